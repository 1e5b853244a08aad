"""The encoder of one network in another: exactly, or not at all."""

import logging

import jax
import numpy as np
import pytest

from maemem.training.transfer import transfer


def network(width=4, seed=0, **others):
    """Parameters of an encoder and of what is around it."""
    keys = iter(jax.random.split(jax.random.key(seed), 5))
    encoder = {
        "patch_embedding": {"kernel": jax.random.normal(next(keys), (8, width))},
        "transformer": {"block_00": {"norm": {"scale": jax.random.normal(next(keys), (width,))}}},
    }
    return {"encoder": encoder, **others}


def test_all_of_the_encoder_is_taken_and_nothing_else_is_touched(caplog):
    params = network(head={"kernel": jax.numpy.ones((4, 3))})
    source = jax.tree.map(np.asarray, network(seed=1))
    with caplog.at_level(logging.INFO, "maemem"):
        started = transfer(params, source, "there")
    jax.tree.map(np.testing.assert_array_equal, started["encoder"], source["encoder"])
    np.testing.assert_array_equal(started["head"]["kernel"], params["head"]["kernel"])
    assert jax.tree.structure(started) == jax.tree.structure(params)
    assert "from there: 2 parameters matched, of encoder" in caplog.text
    assert "new: head" in caplog.text


def test_no_match_is_an_error():
    source = {"decoder": {"bias": np.ones(4)}}
    with pytest.raises(ValueError, match="no parameter of there matches: it has decoder/bias"):
        transfer(network(), source, "there")


def test_another_width_is_an_error_that_names_the_shapes():
    with pytest.raises(ValueError, match=r"kernel: \(8, 6\) there, \(8, 4\) here"):
        transfer(network(), network(width=6), "there")


@pytest.mark.parametrize("lacking", ["wanted", "given"])
def test_another_depth_is_an_error(lacking):
    deep, shallow = network(), network()
    deep["encoder"]["transformer"]["block_01"] = deep["encoder"]["transformer"]["block_00"]
    pair = (deep, shallow) if lacking == "given" else (shallow, deep)
    with pytest.raises(ValueError, match=r"is another one: .*block_01/norm/scale"):
        transfer(*pair, "there")


def test_other_parts_are_taken_too_where_the_source_has_them():
    params = network(head={"kernel": jax.numpy.ones((4, 3))}, stem={"bias": jax.numpy.ones(4)})
    source = jax.tree.map(np.asarray, network(seed=1, stem={"bias": jax.numpy.zeros(4)}))
    started = transfer(params, source, "there")
    jax.tree.map(np.testing.assert_array_equal, {**started, "head": 0}, {**source, "head": 0})
    np.testing.assert_array_equal(started["head"]["kernel"], params["head"]["kernel"])


def test_a_part_that_the_network_does_not_have_is_an_error():
    source = network(seed=1, stem={"bias": np.zeros(4)})
    with pytest.raises(ValueError, match="has stem/bias beyond"):
        transfer(network(), source, "there")
