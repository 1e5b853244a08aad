"""Volumes, crops and input pipelines; they know nothing of networks."""
