"""Objects of a volume that is segmented in blocks are those of the whole."""

import functools
import os
import tracemalloc

import cc3d
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from hypothesis import strategies as st

from maemem.blockwise.store import open_labels
from maemem.learners.targets.affinity import LEE, Affinity
from maemem.scores.contingency import contingency
from maemem.scores.variation_of_information import VariationOfInformation
from maemem.segmentation.agglomeration import FRAGMENTS, agglomerate, fragments
from maemem.segmentation.instances import compact, remove_small
from maemem.segmentation.intensity import intensity_affinities
from maemem.segmentation.markers import MarkerThresholds, marker_watershed
from maemem.segmentation.mutex import mutex_watershed
from maemem.segmentation.region_graph import SCORES, Merging
from tests.blockwise.segmentations import START, balls, linked, run, smooth_affinities, write


@st.composite
def layouts(draw):
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    block = draw(st.tuples(*[st.integers(1, 9)] * 3))
    halo = draw(st.tuples(*[st.integers(1, 4)] * 3))
    return shape, block, halo


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    layout=layouts(),
    seed=st.integers(0, 2**32),
    levels=st.sampled_from([3, 255]),
    score=st.sampled_from([None, *SCORES]),
    threshold=st.floats(0.2, 0.8),
    smallest=st.integers(0, 6),
)
def test_any_blocks_give_the_objects_of_the_whole(
    tmp_path_factory, layout, seed, levels, score, threshold, smallest
):
    """Ties, which are many where affinities have three levels, are broken alike, too."""
    shape, block, halo = layout
    rng = np.random.default_rng(seed)
    affinities = (rng.integers(0, levels + 1, (3, *shape)) / levels).astype(np.float32)
    expected = linked(affinities)
    if score:
        (expected,) = agglomerate(affinities, expected, [threshold], score)
    found = run(
        *(affinities, linked, tmp_path_factory.mktemp("a") / "a.zarr"),
        block_zyx=block,
        halo_zyx=halo,
        smallest=smallest,
        merging=Merging(score, threshold) if score else None,
    )
    np.testing.assert_array_equal(found, compact(remove_small(expected, smallest)))


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32),
    sections=st.integers(1, 5),
    method=st.sampled_from(["steepest", "distance"]),
)
def test_sections_are_the_same_in_blocks_of_whole_sections(
    tmp_path_factory, seed, sections, method
):
    affinities = smooth_affinities(seed, (5, 20, 20))
    cut = functools.partial(fragments, low=0.05, high=0.6, sectionwise=True, method=method)
    (expected,) = agglomerate(affinities, cut(affinities), [0.5], "median")
    found = run(
        *(affinities, cut, tmp_path_factory.mktemp("a") / "a.zarr"),
        block_zyx=(sections, 20, 20),
        merging=Merging("median", 0.5),
    )
    np.testing.assert_array_equal(found, expected)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    sections=st.integers(1, 9),
    halo=st.integers(1, 4),
    seed=st.integers(0, 2**32),
    levels=st.sampled_from([1, 2, 4, 255]),
    score=st.sampled_from(SCORES),
    threshold=st.floats(0.2, 0.8),
    smallest=st.integers(0, 6),
    method=st.sampled_from(list(FRAGMENTS)),
)
def test_sections_of_any_volume_are_those_of_the_whole(
    tmp_path_factory, shape, sections, halo, seed, levels, score, threshold, smallest, method
):
    """Ties, which are many where affinities have few levels, are broken alike, too."""
    rng = np.random.default_rng(seed)
    affinities = (rng.integers(0, levels + 1, (3, *shape)) / levels).astype(np.float32)
    cut = functools.partial(fragments, low=0.2, high=0.6, sectionwise=True, method=method)
    (expected,) = agglomerate(affinities, cut(affinities), [threshold], score)
    found = run(
        *(affinities, cut, tmp_path_factory.mktemp("a") / "a.zarr"),
        block_zyx=(sections, *shape[1:]),
        halo_zyx=(halo, 1, 1),
        smallest=smallest,
        merging=Merging(score, threshold),
    )
    np.testing.assert_array_equal(found, compact(remove_small(expected, smallest)))


@pytest.mark.parametrize(
    ("method", "high", "halo", "bound"),
    [("steepest", 0.8, (8, 32, 32), 0.02), ("distance", 0.6, (32, 32, 32), 0.05)],
)
def test_watersheds_of_real_tissue_differ_little_from_those_of_the_whole(
    tmp_path, real_data, method, high, halo, bound
):
    """They decide by what is anywhere; a halo of the half-width of neurites shows most of it."""
    image = tifffile.imread(real_data / "fib25" / "train-input.tif")[:64, :180, :180]
    affinities = intensity_affinities(image)
    cut = functools.partial(fragments, low=0.05, high=high, method=method)
    (whole,) = agglomerate(affinities, cut(affinities), [0.6], "mean")
    options = {"block_zyx": (32, 90, 90), "chunk_zyx": (8, 30, 30), "merging": Merging("mean", 0.6)}
    score = VariationOfInformation(ignore_background=False)
    voi = [
        score.values(contingency(whole, labels))["voi"]
        for labels in (
            run(affinities, cut, tmp_path / f"{seen}.zarr", halo_zyx=seen, **options)
            for seen in (halo, (1, 1, 1))
        )
    ]
    assert voi[0] < bound < voi[1]


@pytest.mark.slow
@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32),
    block=st.tuples(*[st.integers(2, 24)] * 3),
    with_distance=st.booleans(),
    smallest=st.sampled_from([0, 60]),
)
def test_instances_that_cross_blocks_are_joined(
    tmp_path_factory, seed, block, with_distance, smallest
):
    """Where a halo shows all of the foreground that is connected, markers are exact."""
    shape = (14, 20, 22)
    prediction = balls(seed, shape, 3, 4.5)
    more = {"seed_distance": 0.3, "mask_distance": 0.0} if with_distance else {}
    thresholds = MarkerThresholds(0.8, 0.5, 0.5, smallest=0, **more)
    cut = functools.partial(marker_watershed, thresholds=thresholds)
    found = run(
        *(prediction, cut, tmp_path_factory.mktemp("a") / "a.zarr"),
        block_zyx=block,
        halo_zyx=shape,
        smallest=smallest,
    )
    np.testing.assert_array_equal(found, compact(remove_small(cut(prediction), smallest)))


@hypothesis.settings(max_examples=6, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**32), block=st.tuples(*[st.integers(3, 16)] * 3))
def test_mutex_watershed_of_clear_affinities_is_that_of_the_whole(tmp_path_factory, seed, block):
    """Where long-range edges never contradict the nearest, their order, and so blocks, are moot.

    But for objects that only such edges hold together, as around voxels that are background:
    blocks join what touches at their faces.
    """
    rng = np.random.default_rng(seed)
    apart = smooth_affinities(seed, (10, 16, 18)).min(0) > 0.3
    cells = cc3d.connected_components(apart, connectivity=6).astype(np.int32)
    values, known = Affinity(LEE).targets({"labels": jnp.asarray(cells[None])})
    clear = np.where(
        values > 0.5, rng.uniform(0.8, 1, values.shape), rng.uniform(0, 0.1, values.shape)
    )
    prediction = np.where(known > 0, clear, 0.65)[0].transpose(3, 0, 1, 2).astype(np.float32)
    cut = functools.partial(
        mutex_watershed, offsets_zyx=LEE, nearest_bias=0.4, long_bias=0.7, background=0.2
    )
    wanted = compact(cut(prediction))
    hypothesis.assume(cc3d.connected_components(wanted, connectivity=6).max() == wanted.max())
    found = run(
        *(prediction, cut, tmp_path_factory.mktemp("a") / "a.zarr"),
        block_zyx=block,
        halo_zyx=(4, 9, 9),
    )
    np.testing.assert_array_equal(found, wanted)


def test_resumes_and_refuses_another_ones_record(tmp_path):
    affinities = smooth_affinities(0, (6, 12, 12))
    options = {"block_zyx": (3, 6, 6), "merging": Merging("mean", 0.5)}
    whole = run(affinities, linked, tmp_path / "whole.zarr", **options)
    calls = []

    def killed_at(stop):
        def cut(values):
            if len(calls) == stop:
                raise KeyboardInterrupt
            calls.append(None)
            return linked(values)

        return cut

    with pytest.raises(KeyboardInterrupt):
        run(affinities, killed_at(5), tmp_path / "a.zarr", **options)
    with pytest.raises(ValueError, match=r"block_zyx was \[3, 6, 6\] and is \[6, 6, 6\]"):
        run(affinities, linked, tmp_path / "a.zarr", **{**options, "block_zyx": (6, 6, 6)})
    again = run(affinities, killed_at(-1), tmp_path / "a.zarr", **options)
    assert len(calls) == 8
    np.testing.assert_array_equal(again, whole)
    files = [
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("c/**/*.*")}
        for n in ("whole.zarr", "a.zarr")
    ]
    assert files[0] == files[1]
    assert {path.name for path in (tmp_path / "a.zarr").iterdir()} == {"0", "zarr.json"}
    assert open_labels(tmp_path / "a.zarr").region.start_zyx == START


def test_the_table_that_workers_of_a_killed_run_read_is_not_written_over(tmp_path):
    affinities = smooth_affinities(0, (6, 12, 12))
    options = {"block_zyx": (3, 6, 6), "merging": Merging("mean", 0.5)}
    tables = []

    def orphaned(work, missing):
        found = list(tmp_path.rglob("objects.npy"))
        tables.extend(path.open("rb") for path in found)
        if len(tables) == 1:
            raise KeyboardInterrupt
        return map(work, missing)

    with pytest.raises(KeyboardInterrupt):
        write(affinities, linked, tmp_path / "a.zarr", workers=orphaned, **options)
    write(affinities, linked, tmp_path / "a.zarr", workers=orphaned, **options)
    before, *_, after = (os.fstat(table.fileno()) for table in tables)
    assert not os.path.samestat(before, after)
    assert tables[0].read() == tables[-1].read()
    for table in tables:
        table.close()


def test_a_block_has_to_see_beyond_its_faces(tmp_path):
    with pytest.raises(ValueError, match="expected at least 1 along each axis"):
        run(
            smooth_affinities(0, (6, 12, 12)),
            linked,
            tmp_path / "a.zarr",
            block_zyx=(3, 6, 6),
            halo_zyx=(0, 1, 1),
        )


def test_what_is_there_is_not_overwritten(tmp_path):
    options = {"block_zyx": (3, 6, 6)}
    run(smooth_affinities(0, (6, 12, 12)), linked, tmp_path / "a.zarr", **options)
    with pytest.raises(FileExistsError, match="not overwritten"):
        run(smooth_affinities(1, (6, 12, 12)), linked, tmp_path / "a.zarr", **options)


def test_memory_does_not_grow_with_the_volume(tmp_path):
    """Eight times the voxels, in as many large objects: what is held is a block and the graph."""
    peaks = []
    for side in (96, 192):
        affinities = np.broadcast_to(np.float32(0.9), (3, side, side, side))
        options = {"block_zyx": (48, 48, 48), "merging": Merging("mean", 0.5)}
        tracemalloc.start()
        output = tmp_path / f"{side}.zarr"
        assert write(affinities, linked, output, chunk_zyx=(48, 48, 48), **options) == 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("merging", [None, Merging("median", 0.5)])
def test_nothing_but_background(tmp_path, merging):
    nothing = np.zeros((3, 4, 5, 6), np.float32)
    labels = run(nothing, linked, tmp_path / "a.zarr", block_zyx=(2, 3, 3), merging=merging)
    assert labels.max() == 0
