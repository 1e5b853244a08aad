"""No network is tested on what a link of its chain has seen."""

import json

import numpy as np
import pytest

from maemem.assembly.lineage import check_unseen
from maemem.config import everything, volume

SIZE = (30.0, 6.0, 6.0)


@pytest.fixture
def chain(tmp_path):
    """A training that starts from `second`, which started from `first`; all see tissue.npy."""
    np.save(tmp_path / "tissue.npy", np.zeros((64, 16, 16), np.uint8))

    def config_of(train, encoder="", test="50:64, :, :"):
        config = everything()
        config.data.root = str(tmp_path)
        config.data.train.own = volume("tissue.npy", region=train, voxel_size_nm=SIZE)
        config.data.test.own = volume("tissue.npy", region=test, voxel_size_nm=SIZE)
        config.pretrain.encoder = encoder
        return config

    for name, train, encoder in (("first", "0:20, :, :", ""), ("second", "20:30, :, :", "first")):
        (tmp_path / name).mkdir()
        record = config_of(train, str(tmp_path / encoder) if encoder else "").to_dict()
        (tmp_path / name / "config.json").write_text(json.dumps({"config": record}))
    return lambda test: config_of("30:40, :, :", test=test), tmp_path


@pytest.mark.parametrize(
    ("region", "link"),
    [("50:64, :, :", ""), ("20:64, :, :", "second"), ("19:20, :, :", "first"), ("", "second")],
)
def test_a_test_region_that_a_link_has_seen_is_refused(chain, region, link):
    make, folder = chain
    if not link:
        check_unseen(make(region), str(folder / "second"), folder)
        return
    with pytest.raises(ValueError, match=rf"data\.test\.own .* trained on .*/{link}\)"):
        check_unseen(make(region), str(folder / "second"), folder)


def test_a_checkpoint_belongs_to_its_workdir(chain):
    make, folder = chain
    inside = folder / "second" / "pretrain" / "checkpoints" / "400"
    with pytest.raises(ValueError, match="has seen"):
        check_unseen(make("20:25, :, :"), str(inside), folder)


def test_bins_of_a_link_are_counted(chain):
    make, folder = chain
    path = folder / "second" / "config.json"
    record = json.loads(path.read_text())
    record["config"]["data"]["bin_zyx"] = [2, 1, 1]  # So it saw sections 40 to 59.
    path.write_text(json.dumps(record))
    check_unseen(make("60:64, :, :"), str(folder / "second"), folder)
    with pytest.raises(ValueError, match="has seen"):
        check_unseen(make("58:64, :, :"), str(folder / "second"), folder)


@pytest.mark.parametrize("encoder", ["", "{workdir}", "nowhere", "weights.safetensors"])
def test_what_has_no_record_is_passed_over(chain, encoder):
    make, folder = chain
    check_unseen(make(""), encoder, folder)
