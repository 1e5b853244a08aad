"""What a region is known to hold: label volumes."""
