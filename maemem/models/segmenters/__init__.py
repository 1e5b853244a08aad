"""Networks that turn an encoder's levels into logits, one file each."""
