"""What a voxel is asked: targets, loss, value range, views and decoders, one file each."""
