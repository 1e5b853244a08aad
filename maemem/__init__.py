"""maemem: masked autoencoders for electron microscopy of brain tissue."""

__version__ = "0.1.0"
