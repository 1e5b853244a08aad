"""Pictures show what they are given: read back from their PNGs, pixel by pixel."""

import io

import numpy as np
import pytest
from PIL import Image

from maemem import pictures

SIZE = 40
SCALE = 8  # 320 pixels for a tile of 40


def pixels(png: bytes) -> np.ndarray:
    """uint8 `[y x rgb]`."""
    assert png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def tile(image: np.ndarray, line: int, column: int, height: int = SIZE) -> np.ndarray:
    """A tile cut out of a picture whose lines are all of one height, at its own resolution."""
    top = pictures._TOP + line * (height * SCALE + pictures._GAP)
    left = pictures._LEFT + column * (SIZE * SCALE + pictures._GAP)
    block = image[top : top + height * SCALE, left : left + SIZE * SCALE]
    return block[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE].astype(int)


@pytest.fixture
def volume() -> dict[str, np.ndarray]:
    """Two objects side by side, of which one is split, on an even background."""
    raw = np.full((3, SIZE, SIZE), 100, np.uint8)
    raw[..., 0], raw[..., 1] = 0, 255
    truth = np.ones(raw.shape, np.int32)
    truth[:, :, 20:] = 2
    truth[:, 30:] = 0
    truth[:, 35:] = -1
    predicted = truth.clip(0)
    predicted[:, 10:30, 20:] = 7
    errors = np.zeros(raw.shape, np.uint8)
    errors[:, 10:30, 20:] = 1
    errors[:, 2, 5:8] = 2
    errors[:, 4, 5:8] = 3
    return {"raw": raw, "truth": truth, "predicted": predicted, "errors": errors}


def test_tiles_lie_where_they_belong_and_keep_their_pixels():
    rng = np.random.default_rng(0)
    images = rng.choice(np.array([0, 80, 160, 255], np.uint8), (2, 3, SIZE, SIZE, 3))
    lines = {f"line {i}": dict(zip("abc", row, strict=True)) for i, row in enumerate(images)}
    drawn = pixels(pictures.draw_tiles(lines))
    assert drawn.shape[:2] == (
        pictures._TOP + 2 * (SIZE * SCALE + pictures._GAP),
        pictures._LEFT + 3 * (SIZE * SCALE + pictures._GAP),
    )
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            np.testing.assert_allclose(tile(drawn, i, j), image, atol=3)


def test_lines_may_differ_in_height():
    tall, flat = np.full((SIZE, SIZE, 3), 250, np.uint8), np.full((10, SIZE, 3), 250, np.uint8)
    drawn = pixels(pictures.draw_tiles({"tall": {"a": tall}, "flat": {"a": flat}}))
    assert np.count_nonzero((drawn > 240).all(-1)) >= (SIZE + 10) * SIZE * SCALE**2
    assert len(drawn) == pictures._TOP + (SIZE + 10) * SCALE + 2 * pictures._GAP


def test_segmentation_shows_ids_in_colours_shared_with_the_truth(volume):
    png = pictures.draw_segmentation(
        *(volume["raw"], volume["predicted"], {"z = 1": (1,)}),
        truth=volume["truth"],
        errors=volume["errors"],
    )
    raw, truth, predicted, errors = (tile(pixels(png), 0, i) for i in range(4))
    assert np.ptp(raw[20, 2:]) <= 3, "even"
    np.testing.assert_allclose(truth[20, 5], predicted[20, 5], atol=4)
    assert np.abs(truth[20, 30] - predicted[20, 30]).max() > 40, "split off"
    assert np.abs(truth[20, 5] - truth[20, 30]).max() > 40, "two objects"
    np.testing.assert_allclose(truth[32, 5], raw[32, 5], atol=4, err_msg="background")
    assert (truth[38, 5] < raw[38, 5] - 20).all(), "unlabelled is darker"
    assert errors[20, 30].argmax() == 2, "splits are blue"
    assert errors[2, 6].argmax() == 0, "merges are red"
    assert errors[4, 6, 1] < min(errors[4, 6, 0], errors[4, 6, 2]), "both are purple"
    assert np.ptp(errors[20, 5]) <= 4, "what is right is grey"


def test_segmentation_without_truth_has_two_columns(volume):
    cuts = {"z = 0": (0,), "y = 3": (slice(None), 3)}
    drawn = pixels(pictures.draw_segmentation(volume["raw"], volume["predicted"], cuts))
    assert drawn.shape[1] == pictures._LEFT + 2 * (SIZE * SCALE + pictures._GAP)
    assert len(drawn) == pictures._TOP + (SIZE + 3) * SCALE + 2 * pictures._GAP


def test_prediction_is_black_at_zero_and_white_at_one(volume):
    channels = np.zeros((2, *volume["raw"].shape), np.float32)
    channels[1] = 1
    channels[1, :, :20] = 0.5
    png = pictures.draw_prediction(volume["raw"], channels, ("z-1", "y-1"), {"z = 2": (2,)})
    drawn = pixels(png)
    assert tile(drawn, 0, 1).max() < 4
    second = tile(drawn, 0, 2)
    assert second[30:].min() > 251
    np.testing.assert_allclose(second[5], 127, atol=4)


def test_colours_of_neighbouring_ids_differ():
    colours = pictures.id_colours(np.arange(-1, 200)).astype(int)
    assert not colours[:2].any(), "background and unlabelled"
    assert (colours[2:].max(-1) > 150).all(), "bright"
    apart = np.abs(colours[2:-1] - colours[3:]).max(-1)
    assert apart.min() > 60
    assert len(np.unique(colours[2:], axis=0)) == 199


def test_learning_draws_each_metric_in_its_panel():
    rows = [
        {"step": s, "loss": 1 / s, **({"eval_loss": 2 / s} if s % 2 else {})} for s in (1, 2, 3)
    ]
    one = Image.open(io.BytesIO(pictures.draw_learning(rows, [["loss"]])))
    two = Image.open(io.BytesIO(pictures.draw_learning(rows, [["loss", "eval_loss"], ["loss"]])))
    assert two.size == (2 * one.size[0], one.size[1])
    alpha = np.asarray(one.convert("RGBA"))[..., 3]
    assert (alpha == 0).mean() > 0.8, "no ground"

    def drawn(image: Image.Image, line: int) -> int:
        wanted = [int(pictures._LINES[line][i : i + 2], 16) for i in (1, 3, 5)]
        seen = np.asarray(image.convert("RGBA")).astype(int)
        return np.count_nonzero((np.abs(seen[..., :3] - wanted) < 9).all(-1) & (seen[..., 3] > 200))

    assert drawn(one, 0) > 100
    assert drawn(one, 1) == 0
    assert drawn(two, 1) > 100


def test_curves_replace_their_file(tmp_path):
    path = tmp_path / "curve.png"
    path.write_text("old")
    pictures.draw_curves(path, [{"step": 1, "loss": 2.0}], names=("loss", "none"), title="t")
    assert pixels(path.read_bytes()).std() > 0
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]


def test_crops_are_drawn_with_what_is_hidden_and_ids_over_the_grey_before_them():
    crops = np.zeros((1, 4, 8, 8), np.float32)
    crops[:, :, :4] = np.nan
    ids = np.where(np.arange(8) < 4, 5, 0) * np.ones((1, 4, 8, 8), int)
    grey = np.zeros((1, 4, 8, 8), np.float32)
    shown = pixels(pictures.draw_crops({"crop": crops, "grey": grey, "ids": ids})).astype(int)

    def count(colour):
        return (np.abs(shown - colour).max(-1) < 6).sum()

    hidden, plain = count((59, 110, 165)), count(127)
    assert 4 * hidden == pytest.approx(plain, rel=0.1)  # Half of one column, and two halves beside.
    assert count((127 * 0.55 + pictures.id_colours(np.array([5])) * 0.45)[0]) > 0.9 * hidden
