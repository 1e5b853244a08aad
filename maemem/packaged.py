"""The configs that come with maemem, by name."""

from __future__ import annotations

from pathlib import Path

_PREFIX = "maemem:"
# In a checkout, a link to the folder beside the package.
_FOLDER = Path(__file__).parent / "configs"


def config_path(given: str) -> str:
    """The file that a name such as `maemem:demo` or `maemem:finetune_vnc:neurites` stands for.

    Args:
      given: the value of `--config`; a path with its variant is returned unchanged.

    Raises:
      ValueError: if there is no such config.
    """
    names = sorted(path.stem for path in _FOLDER.glob("*.py"))
    name, colon, variant = given.removeprefix(_PREFIX).partition(":")
    packaged = given.startswith(_PREFIX)
    file = _FOLDER / f"{name}.py" if packaged else Path(name)
    if not (name in names if packaged else file.is_file()):
        raise ValueError(
            f"there is no config {given}; give the path of one, or choose from "
            f"{', '.join(_PREFIX + known for known in names)}"
        )
    return f"{file}{colon}{variant}"


def with_config_path(argv: list[str]) -> list[str]:
    """A command line with the value of `--config` replaced by the path of a file.

    Raises:
      ValueError: if it names a config that does not exist.
    """
    found = list(argv)
    for i, word in enumerate(argv):
        flag, equals, value = word.partition("=")
        if flag in ("--config", "-config") and equals:
            found[i] = f"{flag}={config_path(value)}"
        elif i and argv[i - 1] in ("--config", "-config"):
            found[i] = config_path(word)
    return found
