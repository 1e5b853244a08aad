"""What tests run as processes of their own: `python -m tests.programs.NAME`."""
