"""Scores of a segmentation against the truth, one file each."""
