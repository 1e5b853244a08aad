"""A check-up before hours of compute: `python -m maemem.doctor`."""
