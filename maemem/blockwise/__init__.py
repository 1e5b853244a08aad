"""Work on a whole volume, block by block, in bounded memory."""
