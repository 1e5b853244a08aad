"""Data sets: the public catalogue, fetching, synthetic tissue."""
