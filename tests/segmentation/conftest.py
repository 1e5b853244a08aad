"""Checks the annotated shapes and dtypes of this package when its functions are called."""

from jaxtyping import install_import_hook

install_import_hook("maemem.segmentation", "beartype.beartype")
