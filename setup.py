"""What pyproject.toml cannot say: the configs are beside the package, and are part of its wheel."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["maemem*"]), "maemem.configs"],
    package_dir={"maemem.configs": "configs"},
)
