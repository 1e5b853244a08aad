"""Networks that turn an image into levels of features, one file each."""
