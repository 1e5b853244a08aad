"""From predictions to objects, and how good they are: arrays in, arrays out."""
