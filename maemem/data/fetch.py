"""Gets public data sets by name, for the configs that use them.

    python -m maemem.data.fetch                         # what there is
    python -m maemem.data.fetch snemi3d                 # license, citation, addresses
    python -m maemem.data.fetch snemi3d --root=DATA     # makes DATA/snemi3d
    python -m maemem.data.fetch snemi3d --root=DATA --from=~/Downloads

Configs then find it with `--config.data.root=DATA`. After an interrupt the same command goes on.
`--from` downloads nothing: it names a folder of files downloaded by hand, packed or unpacked, or
one such file. docs/datasets.md has the table.
"""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

from absl import app, flags

from maemem.data.sets.archives import check_file, digest
from maemem.data.sets.catalogue import CATALOGUE
from maemem.data.sets.products import (
    Download,
    Material,
    Product,
    PublicDataset,
    find_material,
    make_volume,
)
from maemem.logs import log_to_terminal

# Not __name__: as a command, this module is called __main__.
log = logging.getLogger("maemem.data.fetch")

_SUMS = "SHA256SUMS"


def fetch(dataset: PublicDataset, root: str, *, given: str = "") -> Path:
    """Downloads a data set, and makes its volumes, which configs read.

    Existing volumes are kept. SOURCE.md gets license, citation and addresses; SHA256SUMS gets the
    checksums that later downloads are compared with. Downloads stay in the folder `download`, which
    may be deleted.

    Args:
      dataset: one of `catalogue.CATALOGUE`.
      root: the folder of all data sets; made if need be.
      given: a folder or a file downloaded by hand; empty: download it.

    Returns:
      The folder of the data set.

    Raises:
      ValueError: if a file is damaged or has another checksum; if it must be downloaded by hand; if
        pooch is missing.
      OSError: if a download fails (its part is kept), or `given` has nothing of the data set.
    """
    folder = Path(root).expanduser().resolve() / dataset.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SOURCE.md").write_text(about(dataset) + "\n")
    absent = []
    for product in dataset.products:
        target = folder / product.path
        if target.exists():
            log.info("%s is there", target)
        elif material := _material(product, dataset, folder, given):
            scratch = folder / "unpacked" / target.stem
            make_volume(product, material, target, dataset.voxel_size_nm, scratch)
            log.info("made %s", target)
        else:
            absent.append(product)
    shutil.rmtree(folder / "unpacked", ignore_errors=True)
    if absent and len(absent) == len(dataset.products):
        raise FileNotFoundError(
            f"{given} holds nothing of {dataset.title}; expected, whole or unpacked, "
            f"{', '.join(download.name for download in dataset.downloads)}"
        )
    for product in absent:
        log.warning("%s is missing: %s is not in %s", product.path, product.download.name, given)
    return folder


def find(name: str) -> PublicDataset:
    """The data set with a name.

    Raises:
      ValueError: if there is none.
    """
    if name not in CATALOGUE:
        raise ValueError(f"there is no data set {name!r}; choose from {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def about(dataset: PublicDataset) -> str:
    """License, citation and addresses of a data set, as Markdown."""
    voxel = " x ".join(f"{nm:g}" for nm in dataset.voxel_size_nm)
    lines = [
        f"# {dataset.title}",
        "",
        f"- {dataset.tissue}; voxels of {voxel} nm (z, y, x)",
        f"- license: {dataset.license}",
        f"- cite: {dataset.citation}",
        f"- home: {dataset.home}",
        *([f"- {dataset.note}"] if dataset.note else []),
    ]
    for file in dataset.downloads:
        address = f"<{file.url}>" if file.url else "for those who register at its home"
        lines += [
            f"- {file.name}: {address}" + ("" if file.verified else ", ADDRESS NOT VERIFIED"),
            f"  - {file.checksum or 'CHECKSUM NOT VERIFIED'}",
            f"  - seen in: {file.seen}",
        ]
    return "\n".join(lines)


def summary() -> str:
    """The data sets, one a line."""
    return "\n".join(f"{d.name:10}{d.title}: {d.tissue}" for d in CATALOGUE.values())


def _material(
    product: Product, dataset: PublicDataset, folder: Path, given: str
) -> Material | None:
    """The files to make a volume from; None: the user does not have them."""
    file = product.download
    if not given:
        return Material(_downloaded(file, dataset, folder), "download")
    place = Path(given).expanduser().resolve()
    if not place.exists():
        raise FileNotFoundError(f"there is nothing at {place}, which --from names")
    material = find_material(place, product, alone=len(dataset.downloads) == 1)
    if material:
        log.info("taking %s of %s", product.path, material.path)
    if material and material.kind == "download":
        check_file(material.path, file.checksum or _recorded(folder, file.name))
        _record(file, material.path, folder)
    return material


def _downloaded(file: Download, dataset: PublicDataset, folder: Path) -> Path:
    """The path of a file, downloaded if need be, and compared with its checksum."""
    path = folder / "download" / file.name
    checksum = file.checksum or _recorded(folder, file.name)
    if path.exists():
        check_file(path, checksum)
        return path
    elsewhere = f"get {file.name} yourself ({dataset.home}), and name its folder with --from"
    if file.url is None:
        raise ValueError(f"{dataset.title} is for those who register: {elsewhere}")
    try:
        from maemem.data.sets.download import download
    except ModuleNotFoundError:
        raise ValueError("downloading needs pooch: pip install 'maemem[download]'") from None
    try:
        download(file.url, path, checksum)
    except (OSError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"{error}. Or {elsewhere}") from None
    _record(file, path, folder)
    return path


def _recorded(folder: Path, name: str) -> str | None:
    """The checksum of a file when it was first downloaded."""
    sums = folder / _SUMS
    lines = sums.read_text().splitlines() if sums.exists() else []
    found = {line[66:]: line[:64] for line in lines}
    return f"sha256:{found[name]}" if name in found else None


def _record(file: Download, path: Path, folder: Path) -> None:
    """Records the checksum of a file, in the format of `sha256sum --check`."""
    if _recorded(folder, file.name):
        return
    known = (file.checksum or "").partition("sha256:")[2]
    found = known or digest(path)
    if file.checksum is None:
        log.warning("nobody published a checksum of %s; this one has sha256 %s", file.name, found)
    with (folder / _SUMS).open("a") as sums:
        sums.write(f"{found}  {file.name}\n")


def define_flags() -> None:
    """Defines the flags of the command; importing this module defines none."""
    flags.DEFINE_string("root", None, "The folder of all data sets, a config's data.root.")
    flags.DEFINE_string("from", "", "A folder, or a file, of what was downloaded by hand.")


def main(argv: list[str]) -> None:
    """The command: a name, and the flags."""
    log_to_terminal()
    if len(argv) == 1:
        print(summary())
        return
    try:
        if len(argv) > 2:
            raise ValueError(f"expected one NAME, got {' '.join(argv[1:])}")
        dataset, root = find(argv[1]), flags.FLAGS.root
        print(about(dataset))
        if not root:
            print(f"\nto get it: python -m maemem.data.fetch {dataset.name} --root=DATA")
            return
        folder = fetch(dataset, root, given=flags.FLAGS["from"].value or "")
        missing = [p.path for p in dataset.products if not (folder / p.path).exists()]
        state = f"lacks {', '.join(missing)}, all else is ready" if missing else "is ready"
        print(f"{folder} {state}; give configs --config.data.root={folder.parent}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from what is on disk", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    define_flags()
    app.run(main)
