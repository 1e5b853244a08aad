"""What a run found, for people to read: where a segmentation errs, and the page that shows it."""
