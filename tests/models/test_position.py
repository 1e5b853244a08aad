import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maemem.models.position import rotary_angles, rotate, sincos_embedding


@pytest.mark.parametrize("width", [192, 512, 768, 1152])
def test_sincos_gives_each_axis_an_equal_share(width):
    grid = (3, 4, 5)
    table = sincos_embedding(grid, width).reshape(*grid, width)
    share = 2 * (width // 6)
    for axis in range(3):
        part = table[..., axis * share : (axis + 1) * share]
        others = tuple(a for a in range(3) if a != axis)
        # It depends on its own axis, and on no other.
        assert np.ptp(part, axis=axis).max() > 0.5
        assert np.ptp(part, axis=others).max() == 0
    assert (table[..., 3 * share :] == 0).all()


def test_sincos_tells_all_places_apart():
    table = sincos_embedding((6, 6, 6), 768)
    distance = np.linalg.norm(table[:, None] - table[None], axis=-1)
    assert distance[~np.eye(216, dtype=bool)].min() > 1


def test_products_of_rotated_heads_depend_on_relative_place_alone():
    grid = (4, 5, 6)
    angles = jnp.asarray(rotary_angles(grid, 64)).reshape(*grid, 32)
    query, key = jax.random.normal(jax.random.key(0), (2, 64))

    def product(place, other):
        turned = [
            rotate(v[None, None, None], jnp.cos(a)[None, None], jnp.sin(a)[None, None])[0, 0, 0]
            for v, a in ((query, angles[place]), (key, angles[other]))
        ]
        return float(turned[0] @ turned[1])

    here = product((0, 1, 2), (1, 3, 3))
    assert product((2, 2, 4), (3, 4, 5)) == pytest.approx(here, rel=1e-4)
    assert product((0, 1, 2), (1, 3, 4)) != pytest.approx(here, rel=1e-2)
    assert product((0, 1, 2), (2, 3, 3)) != pytest.approx(here, rel=1e-2)


def test_rotation_keeps_lengths():
    heads = jax.random.normal(jax.random.key(0), (2, 24, 3, 32))
    angles = jnp.asarray(rotary_angles((2, 3, 4), 32))[None]
    turned = rotate(heads, jnp.cos(angles), jnp.sin(angles))
    np.testing.assert_allclose(
        jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(heads, axis=-1), rtol=1e-5
    )
