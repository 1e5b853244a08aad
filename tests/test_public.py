"""What may be imported from maemem."""

import subprocess
import sys

import maemem


def test_importing_maemem_imports_nothing_heavy():
    heavy = "{'jax', 'flax', 'tensorstore', 'ml_collections', 'matplotlib', 'orbax'}"
    code = f"import maemem, sys; assert not {heavy} & set(sys.modules), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_documented():
    for name in maemem.__all__:
        assert getattr(maemem, name) is not None
        assert name.startswith("__") or f"    {name}" in maemem.__doc__
        assert name in dir(maemem)


def test_a_name_that_is_not_public_is_an_attribute_error():
    assert not hasattr(maemem, "loads")
