"""Pure Flax modules and functions; they know nothing of files, configs or devices."""
