"""Public data sets, from a home on this machine to the volumes that configs open."""

import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from maemem.data import convert
from maemem.data.fetch import about, fetch, find, main
from maemem.data.sets.archives import unpack
from maemem.data.sets.catalogue import CATALOGUE
from maemem.data.sets.products import Download, Product, PublicDataset
from maemem.data.sets.relabel import Encoding
from maemem.data.stores.volumes import open_volume
from tests.data.homes import open_home
from tests.runs import REPOSITORY

SIZE = (30.0, 6.0, 5.0)
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 255, (11, 24, 30), np.uint8)
LABELS = RANDOM.integers(0, 900, (11, 24, 30), np.uint16)
MASK = np.zeros((3, 8, 8), bool)
MASK[:, 1:3, 1:4] = MASK[:2, 5:7, 5:7] = True


def png(section) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(section).save(buffer, "png")
    return buffer.getvalue()


def tif(volume) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, volume)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def hdf5(**arrays) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name.replace("__", "/")] = array
    return buffer.getvalue()


ARCHIVE = zipped(
    {
        # Written in another order than their numbers say.
        **{f"set-main/raw/{z}.png": png(IMAGE[z]) for z in reversed(range(11))},
        "set-main/seg/labels.tif": tif(LABELS),
        **{f"set-main/mito/{z}.png": png(MASK[z].astype(np.uint8) * 255) for z in range(3)},
        **{
            f"set-main/colours/s{3 - z:04d}.png": png(
                np.stack([IMAGE[z], IMAGE[z] * 0, 255 - IMAGE[z]], -1)
            )
            for z in range(3)
        },
        "__MACOSX/set-main/raw/._1.png": b"junk",
    }
)
STORE = hdf5(
    volumes__raw=IMAGE,
    stack=np.where(IMAGE > 99, 5, 9).astype(np.uint64),
    transforms=np.array([[5, 70], [9, 71]], np.uint64),
)


@pytest.fixture
def home():
    with open_home() as server:
        server.files |= {"set.zip": ARCHIVE, "set.h5": STORE}
        yield server


def public(home, checksum=True, **fields) -> PublicDataset:
    """A data set of all kinds, whose files the home has."""

    def download(name: str) -> Download:
        known = f"sha256:{hashlib.sha256(home.files[name]).hexdigest()}" if checksum else None
        return Download(name, home.url(name), known, "here")

    archive, store = download("set.zip"), download("set.h5")
    values = {
        "name": "set",
        "title": "A set",
        "tissue": "made up",
        "voxel_size_nm": SIZE,
        "products": (
            Product("image.zarr", archive, "*/raw/*.png"),
            Product("labels.zarr", archive, "*/seg/labels.tif"),
            Product("mito.zarr", archive, "*/mito/*.png", Encoding.LINKED),
            Product("blobs.zarr", archive, "*/mito/*.png", Encoding.COMPONENTS),
            Product("colours.zarr", archive, "*/colours/*.png", Encoding.COLOURS_REVERSED),
            Product("raw.zarr", store, "volumes/raw"),
            Product("bodies.zarr", store, "stack", Encoding.BODIES),
        ),
        "license": "CC0",
        "citation": "Nobody 2026",
        "home": "https://example.org",
    }
    return PublicDataset(**values | fields)


def read(path) -> np.ndarray:
    volume = open_volume(str(path))
    assert volume.voxel_size_nm == SIZE
    return volume.store.read().result()


def check(folder) -> None:
    np.testing.assert_array_equal(read(folder / "image.zarr"), IMAGE)
    np.testing.assert_array_equal(read(folder / "labels.zarr"), LABELS)
    np.testing.assert_array_equal(read(folder / "raw.zarr"), IMAGE)
    for found in (read(folder / "mito.zarr"), read(folder / "blobs.zarr")):
        np.testing.assert_array_equal(found > 0, MASK)
        assert found.max() == 2
    colours = read(folder / "colours.zarr")
    assert np.array_equal(
        colours[:, :, None] == colours[..., None], IMAGE[:3, :, None] == IMAGE[:3, ..., None]
    )
    bodies = read(folder / "bodies.zarr")
    assert set(np.unique(bodies)) == {1, 2}
    assert len(np.unique(bodies[IMAGE > 99])) == len(np.unique(bodies[IMAGE <= 99])) == 1


def test_a_data_set_becomes_volumes(home, tmp_path):
    folder = fetch(public(home), str(tmp_path / "data"))
    check(folder)
    assert "CC0" in (folder / "SOURCE.md").read_text()
    assert "Nobody 2026" in (folder / "SOURCE.md").read_text()
    assert sorted(p.name for p in (folder / "download").iterdir()) == ["set.h5", "set.zip"]
    sums = subprocess.run(
        ["sha256sum", "--check", folder / "SHA256SUMS"], cwd=folder / "download", check=True
    )
    assert sums.returncode == 0
    assert home.ranges == [None, None]
    made = (folder / "image.zarr/zarr.json").stat().st_mtime_ns
    assert fetch(public(home), str(tmp_path / "data")) == folder
    assert (folder / "image.zarr/zarr.json").stat().st_mtime_ns == made
    assert home.ranges == [None, None]


@pytest.mark.parametrize("volume", ["image", "blobs"])
def test_an_interrupted_conversion_goes_on(home, tmp_path, monkeypatch, volume):
    finish = convert._finish

    def interrupted(partial, target, plan):
        if target.stem == volume:
            raise KeyboardInterrupt
        finish(partial, target, plan)

    monkeypatch.setattr(convert, "_finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(public(home), str(tmp_path))
    assert (tmp_path / f"set/{volume}.zarr.partial").exists()
    monkeypatch.undo()
    check(fetch(public(home), str(tmp_path)))
    assert not list((tmp_path / "set").glob("*.partial"))
    assert not (tmp_path / "set/unpacked").exists()


def test_what_was_downloaded_by_hand_is_taken(home, tmp_path):
    dataset = public(home)
    (tmp_path / "mine").mkdir()
    for name, content in home.files.items():
        (tmp_path / "mine" / name).write_bytes(content)
    check(fetch(dataset, str(tmp_path / "data"), given=str(tmp_path / "mine")))
    assert home.ranges == []
    (tmp_path / "mine/set.h5").write_bytes(STORE[:-1])
    with pytest.raises(ValueError, match=r"set\.h5 has the sha256 .* incomplete"):
        fetch(dataset, str(tmp_path / "other"), given=str(tmp_path / "mine"))


def test_what_was_unpacked_by_hand_is_taken(home, tmp_path, caplog):
    mine = tmp_path / "mine"
    with zipfile.ZipFile(io.BytesIO(ARCHIVE)) as archive:
        archive.extractall(mine)
    tifffile.imwrite(mine / "raw.tif", IMAGE)
    folder = fetch(public(home), str(tmp_path / "data"), given=str(mine))
    assert "bodies.zarr is missing: set.h5 is not in" in caplog.text
    (mine / "set.h5").write_bytes(STORE)
    check(fetch(public(home), str(tmp_path / "data"), given=str(mine)))
    assert home.ranges == []
    assert folder == tmp_path / "data/set"


def test_nothing_of_it_is_there(home, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds nothing of A set; expected.*set\.zip"):
        fetch(public(home), str(tmp_path / "data"), given=str(tmp_path / "mine"))
    with pytest.raises(FileNotFoundError, match=r"nothing at .*/yours"):
        fetch(public(home), str(tmp_path / "data"), given=str(tmp_path / "yours"))


def test_a_file_without_a_checksum_is_compared_with_what_it_was(home, tmp_path, caplog):
    dataset = public(home, checksum=False)
    assert "CHECKSUM NOT VERIFIED" in about(dataset)
    folder = fetch(dataset, str(tmp_path))
    assert hashlib.sha256(ARCHIVE).hexdigest() in caplog.text
    (folder / "download/set.h5").unlink()
    shutil.rmtree(folder / "raw.zarr")
    home.files["set.h5"] = STORE + b" "
    with pytest.raises(ValueError, match=r"not the file that it was.*--from"):
        fetch(dataset, str(tmp_path))
    assert not (folder / "download/set.h5").exists()


def test_failures_name_what_to_do(home, tmp_path):
    dataset = public(home)
    del home.files["set.zip"]
    with pytest.raises(OSError, match=r"404 Not Found\. Or get set\.zip yourself \(https://exa"):
        fetch(dataset, str(tmp_path))
    closed = Download("set.zip", None, None, "its home")
    dataset = public_closed(dataset, closed)
    with pytest.raises(ValueError, match=r"for those who register: get set\.zip yourself"):
        fetch(dataset, str(tmp_path))


def public_closed(dataset: PublicDataset, download: Download) -> PublicDataset:
    return PublicDataset(
        **{**vars(dataset), "products": (Product("image.zarr", download, "*/raw/*.png"),)}
    )


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "raw/../../evil", "..\\evil"])
def test_no_name_in_an_archive_leads_out_of_its_folder(tmp_path, name):
    archive = tmp_path / "a/b/hostile.zip"
    archive.parent.mkdir(parents=True)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(name, b"evil")
        opened.writestr(link, "/etc/passwd")
        opened.writestr("sub/..", b"evil")
    before = set(tmp_path.rglob("*"))
    unpack(archive, "*", tmp_path / "a/b/c")
    found = set(tmp_path.rglob("*")) - before - {tmp_path / "a/b/c"}
    assert {path.parent for path in found} == {tmp_path / "a/b/c"}
    assert len(found) == 2
    assert not any(path.is_symlink() for path in found)


def test_archives_that_are_refused(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zipped({"a/1.png": b"a", "b/1.png": b"b"}))
    with pytest.raises(ValueError, match=r"holds 2 files \*\.png with 1 different"):
        unpack(archive, "*.png", tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds 0 files \*\.tif"):
        unpack(archive, "*.tif", tmp_path / "out")
    archive.write_bytes(ARCHIVE[: len(ARCHIVE) // 2])
    with pytest.raises(ValueError, match="not a whole zip"):
        unpack(archive, "*.png", tmp_path / "out")
    damaged = bytearray(ARCHIVE)
    damaged[80] ^= 255
    archive.write_bytes(damaged)
    with pytest.raises(ValueError, match="not a whole zip"):
        unpack(archive, "*/raw/*.png", tmp_path / "out")
    assert not list(tmp_path.glob("out/*.png"))


def test_command(tmp_path, capsys):
    command = [sys.executable, "-m", "maemem.data.fetch"]
    wrong = subprocess.run([*command, "snemi"], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: there is no data set 'snemi'; choose from snemi3d,")
    arguments = ["vnc", f"--root={tmp_path}", f"--from={tmp_path}"]
    nothing = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert nothing.returncode == 1
    assert "license: CC BY-NC-SA 3.0" in nothing.stdout
    assert "holds nothing of Larval VNC" in nothing.stderr
    main(["fetch"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CATALOGUE)


def test_every_entry_says_what_is_known_of_it():
    for name, dataset in CATALOGUE.items():
        assert find(name) is dataset
        assert dataset.license
        assert dataset.citation
        for file in dataset.downloads:
            kind, _, digits = (file.checksum or "").partition(":")
            assert (kind, len(digits)) in {("", 0), ("md5", 32), ("sha256", 64)}
            assert file.seen
            assert os.path.basename(file.name) == file.name
        assert len({product.path for product in dataset.products}) == len(dataset.products)
        assert all(product.path.endswith(".zarr") for product in dataset.products)
    with pytest.raises(ValueError, match="choose from snemi3d"):
        find("nothing")


def test_the_page_has_what_the_catalogue_has():
    page = (REPOSITORY / "docs/datasets.md").read_text()
    for dataset in CATALOGUE.values():
        assert f"`{dataset.name}`" in page
        assert ", ".join(f"{nm:g}" for nm in dataset.voxel_size_nm) in page
        assert f"({dataset.home})" in page
        for file in dataset.downloads:
            address = f"<{file.url}>" + ("" if file.verified else " (not verified)")
            checksum = f"`{file.checksum}`" if file.checksum else "not verified"
            assert f"| {file.name} | `{dataset.name}` | {address} | {checksum} |" in page
