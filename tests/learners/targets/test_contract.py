"""What every target and every decoder must do, of each key by itself."""

import functools
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.blockwise.segment import cut_region
from maemem.data.sets.synthetic import make_tissue
from maemem.fields import build_kind, section
from maemem.geometry import Box, views
from maemem.learners.targets import TARGETS
from maemem.learners.targets.contract import Target, combinations
from maemem.scores.adapted_rand import AdaptedRand
from maemem.scores.contingency import contingency
from tests.segmentation.decoding import decode, middle

SHAPE = (12, 64, 64)
# What a decoder needs of its target, where that is not the default.
NEEDS = {"mutex": {"offsets": "lee"}}
DECODERS = [(kind, name) for kind, target in TARGETS.items() for name in target.decoders]


@functools.cache
def truth():
    """Dense tissue: bodies, with background between them."""
    return {"labels": jnp.asarray(make_tissue(SHAPE, seed=0).neurites.astype(np.int32)[None])}


@pytest.fixture(params=TARGETS)
def target(request):
    return build_kind(TARGETS, section(TARGETS[request.param], TARGETS), "target")


def decoder_of(kind, name):
    asked = build_kind(TARGETS, section(TARGETS[kind], TARGETS, **NEEDS.get(name, {})), "target")
    kinds = type(asked).decoders
    return build_kind(kinds, section(kinds[name], kinds), "segment.decoder", target=asked)


def test_maps_and_weights_are_from_0_to_1(target):
    assert isinstance(target, Target)
    maps, weight = target.targets(truth())
    assert maps.shape == weight.shape == (1, *SHAPE, len(target.channels))
    for values in (maps, weight):
        assert values.dtype == jnp.float32
        assert values.min() >= 0
        assert values.max() <= 1
    assert set(target.reads) <= truth().keys()


def test_what_nobody_labelled_weighs_nothing(target):
    unknown = {"labels": jnp.full((1, *SHAPE), -1)}
    maps, weight = target.targets(unknown)
    assert (weight == 0).all()
    gradient = jax.grad(lambda x: target.loss(x, maps, weight).sum())(jnp.ones(maps.shape))
    assert (gradient == 0).all()


def test_a_falling_loss_leads_to_the_truth(target):
    maps, weight = target.targets(truth())
    slope = jax.jit(jax.value_and_grad(lambda x: target.loss(x, maps, weight).sum()))
    logits, losses, errors = jnp.zeros(maps.shape), [], []
    for _ in range(30):
        loss, gradient = slope(logits)
        losses.append(float(loss))
        errors.append(float((weight * jnp.abs(target.activate(logits) - maps)).mean()))
        logits -= 0.3 * jnp.sign(gradient)
    assert losses[-1] < 0.3 * losses[0]
    assert errors[-1] < 0.3 * errors[0]


def test_half_of_the_weights_is_not_half_of_the_loss(target):
    maps, weight = target.targets(truth())
    random = jax.random.normal(jax.random.key(0), maps.shape)
    whole, half = (float(target.loss(random, maps, w * weight)[0]) for w in (1.0, 0.5))
    assert half == pytest.approx(whole, rel=0.05)  # But for what Dice is smoothed by.


def test_views_that_are_admitted_are_undone(target):
    labels = truth()["labels"][:, :8, :8, :8]
    maps, weight = map(np.asarray, target.targets({"labels": labels}))
    every = views(list(itertools.permutations(range(3))))
    admitted = [view for view in every if target.admits(view)]
    assert len(admitted) >= 8
    for view in admitted[:: max(1, len(admitted) // 8)]:
        turned, _ = target.targets({"labels": view.apply(labels)})
        back, inside = target.undo(turned, view)
        known = (weight > 0) & np.asarray(inside)
        np.testing.assert_allclose(np.asarray(back)[known], maps[known], atol=1e-5)


def test_activation_is_a_probability(target):
    logits = 20 * jax.random.normal(jax.random.key(0), (1, 2, 3, 4, len(target.channels)))
    said = target.activate(logits)
    assert said.dtype == jnp.float32
    assert said.min() >= 0
    assert said.max() <= 1


@pytest.mark.parametrize(("kind", "name"), DECODERS)
def test_perfect_maps_decode_to_the_truth(kind, name):
    decoder = decoder_of(kind, name)
    maps, weight = decoder.target.targets(truth())
    values = np.moveaxis(np.asarray(maps * (weight > 0))[0], -1, 0)  # [z y x c] -> [c z y x]
    ids = np.asarray(truth()["labels"][0])
    thresholds = {name: tried[0] for name, tried in decoder.grid().items()}
    table = contingency(ids, decode(decoder, values, thresholds))
    assert AdaptedRand().values(table)["adapted_rand"] < 0.1


@pytest.mark.parametrize(("kind", "name"), DECODERS)
def test_default_grids_are_accepted_and_others_named(kind, name):
    decoder = decoder_of(kind, name)
    grid = decoder.grid()
    decoder.check(grid)
    assert set(grid) == {*decoder.cuts, *decoder.merges}
    first = next(n for n, values in grid.items() if not isinstance(values[0], str))
    for changes, message in (
        ({first: ()}, "one or more values of each of"),
        ({"other": (1,)}, "one or more values of each of"),
        ({first: ("a",)}, rf"grid\.{first} is \('a',\); expected: numbers"),
        ({first: (float("nan"),)}, rf"grid\.{first} is .*; expected: numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder.check(grid | changes)


@pytest.mark.parametrize(("kind", "name"), DECODERS)
def test_pieces_cut_once_and_merged_in_all_ways_are_those_of_one_go(kind, name, tmp_path):
    """In one block, that is the whole; decoders go to other processes."""
    decoder = pickle.loads(pickle.dumps(decoder_of(kind, name)))
    maps, _ = decoder.target.targets(truth())
    noise = 0.2 * np.random.default_rng(0).normal(size=maps.shape)
    values = np.clip(np.asarray(maps) + noise, 0, 1).astype(np.float32)
    values = np.moveaxis(values[0], -1, 0)  # [z y x c] -> [c z y x]
    grid = decoder.grid()
    cuts = {n: v for n, v in middle(grid).items() if n in decoder.cuts}
    merges = {decoder.merging(**each): each for each in combinations(grid, decoder.merges)}
    region = cut_region(
        lambda box: values[(slice(None), *box.slices)],
        functools.partial(decoder.cut, **cuts),
        tmp_path / "pieces",
        region=Box((0, 0, 0), SHAPE),
        voxel_size_nm=(30.0, 6.0, 6.0),
        block_zyx=SHAPE,
        halo_zyx=(1, 1, 1),
        scores=grid.get("score", ()),
        identity={},
        progress=False,
    )
    (block,) = region.blocks
    found = dict(region.objects(list(merges), 16))
    assert found.keys() == merges.keys()
    for merging in list(merges)[:: max(1, len(merges) // 4)]:
        whole = decode(decoder, values, cuts | merges[merging], smallest=16)
        np.testing.assert_array_equal(found[merging][region.read(block)], whole)
