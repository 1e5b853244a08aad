"""What a network is asked to predict: targets, loss and decoding, one file each."""
