"""Model folders: what was written is read, and what was changed since is refused."""

import shutil
import subprocess

import numpy as np
import pytest

from maemem.training.checkpoint import read_parameters
from maemem.training.model_folder import read_weights, write_model

PARAMS = {
    "encoder": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3).T},
    "head": np.ones(2),
}


@pytest.fixture
def folder(tmp_path):
    """A model folder."""
    write_model(tmp_path / "model", PARAMS, {"config.json": "{}", "README.md": "# A card\n"})
    return tmp_path / "model"


def test_what_was_written_is_read(folder):
    assert not folder.with_name("model.partial").exists()
    for found in (read_weights(folder), read_parameters(folder, "finetune")[0]):
        assert found.keys() == PARAMS.keys()
        np.testing.assert_array_equal(found["encoder"]["kernel"], PARAMS["encoder"]["kernel"])
        np.testing.assert_array_equal(found["head"], PARAMS["head"])


def test_checksums_are_those_of_coreutils(folder):
    if not (program := shutil.which("sha256sum")):
        pytest.skip("there is no sha256sum")
    done = subprocess.run([program, "--check", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert done.returncode == 0
    assert done.stdout.count(b"OK") == 3


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "README.md"])
def test_a_changed_file_is_named(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is not what SHA256SUMS says"):
        read_weights(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name} is missing"):
        read_weights(folder)


def test_what_no_checksum_vouches_for_is_refused(folder):
    sums = folder / "SHA256SUMS"
    kept = [line for line in sums.read_text().splitlines() if "weights" not in line]
    sums.write_text("\n".join(kept))
    with pytest.raises(ValueError, match=r"weights\.safetensors is not in SHA256SUMS"):
        read_weights(folder)
    sums.unlink()
    with pytest.raises(ValueError, match="has no SHA256SUMS"):
        read_weights(folder)


def test_nothing_is_overwritten(folder):
    with pytest.raises(FileExistsError, match="choose another folder"):
        write_model(folder, PARAMS, {"config.json": "{}"})
