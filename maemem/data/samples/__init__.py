"""Training samples: crops, the input pipeline, augmentation."""
