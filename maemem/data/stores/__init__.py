"""Volumes on disk: formats, reading, conversion, pyramids."""
