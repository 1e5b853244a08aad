"""How annotations are checked while tests run."""

from beartype import BeartypeConf, beartype

# An int is a float, as type checkers and `(6, 2, 0.5)` on the command line have it (PEP 484).
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
