"""Workers that are killed at random while they predict and segment: the same bytes."""

import contextlib
import os
import random
import signal
import threading

import pytest

from maemem.blockwise import cluster
from maemem.blockwise.workers import open_workers
from maemem.segmentation.region_graph import Merging
from tests.blockwise import predictions, segmentations
from tests.blockwise.test_cluster import EVERY
from tests.blockwise.volumes import files, grey_values, stored_volume

MOST = 2  # Kills a step: fewer than the deaths that Dask puts up with before it blames a block.


def busy(cluster):
    """The processes of the workers that have a block to do."""
    states = cluster.scheduler.workers
    return [
        nanny.pid
        for nanny in cluster.workers.values()
        if (state := states.get(nanny.worker_address)) and state.processing and nanny.pid
    ]


@contextlib.contextmanager
def killing(cluster, kills):
    """Kills, every so often, a random worker that has a block to do; notes it in `kills`."""
    ended = threading.Event()

    def kill():
        while kills[-1] < MOST and not ended.wait(random.uniform(0, 0.05)):
            with contextlib.suppress(ProcessLookupError):  # It is dead already, and not yet missed.
                if found := busy(cluster):
                    os.kill(random.choice(found), signal.SIGKILL)
                    kills[-1] += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture
def workers_and_kills():
    """Four processes that are killed while they map, and how many were, a step each."""
    kills = []

    def under_fire(work, blocks):
        kills.append(0)
        with killing(workers.args[0].cluster, kills):
            yield from workers(work, blocks)

    with open_workers("local:4") as workers:
        yield under_fire, kills


@pytest.mark.slow
def test_predicted_and_segmented_under_fire_it_is_the_same_bytes(tmp_path, workers_and_kills):
    workers, kills = workers_and_kills
    volume = stored_volume(tmp_path / "raw.zarr", grey_values(predictions.SHAPE))
    small = {"chunk_zyx": (2, 8, 8), "block_zyx": (2, 8, 8)}
    affinities = segmentations.smooth_affinities(0, (8, 48, 48))
    cut = {
        "chunk_zyx": (2, 12, 12),
        "block_zyx": (2, 12, 12),
        "merging": Merging("median", 0.6),
        "smallest": 5,
    }
    for name, by in (("here", map), ("there", workers)):
        folder = tmp_path / name
        predictions.run(volume, folder / "predicted.zarr", workers=by, **small)
        segmentations.run(
            affinities, segmentations.linked, folder / "labels.zarr", workers=by, **cut
        )
    assert files(tmp_path / "here") == files(tmp_path / "there")
    assert len(kills) == 4, "predicted, cut, connected, labelled"
    assert min(kills) > 0


def kill_myself(block):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_block_that_kills_whoever_tries_it_ends_the_work(monkeypatch):
    monkeypatch.setitem(cluster._SETTINGS, "distributed.scheduler.allowed-failures", 0)
    with (
        open_workers("local:1") as workers,
        pytest.raises(
            ValueError, match=r"each worker that tried one block died, .*; lower predict"
        ),
    ):
        list(workers(kill_myself, EVERY[:1]))
