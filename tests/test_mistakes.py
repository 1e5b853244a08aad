"""Wrong fields on the command line: refused before anything is done, in one line that says which.

What each refuses itself is tested beside it; here hypothesis looks for what nobody refuses.
"""

import contextlib
import io
import sys

import hypothesis
import pytest
from absl import flags
from hypothesis import strategies as st
from ml_collections import config_flags

from maemem.assembly.checks import check_config
from maemem.stages import train
from tests import runs


def leaves(config, prefix=""):
    """The names of all fields."""
    for name, value in config.items():
        deeper = hasattr(value, "items")
        yield from leaves(value, f"{prefix}{name}.") if deeper else (f"{prefix}{name}",)


FIELDS = sorted(leaves(runs.config()))
NUMBERS = st.one_of(st.integers(-3, 9), st.integers(), st.floats()).map(repr)
WORDS = st.one_of(
    st.sampled_from(["", "None", "True", "1e400", "()", "{}", "(", "'", "é ü", "('a','b','c')"]),
    st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=5),
)
TUPLES = st.lists(NUMBERS, max_size=4).map(lambda each: f"({''.join(n + ',' for n in each)})")
VALUES = st.one_of(NUMBERS, TUPLES, WORDS)


# What `maemem.main.parse_flags` and absl say in one line.
REPORTED = (AttributeError, KeyError, OSError, TypeError, ValueError, flags.Error)


def parse(name, value):
    """The config of a tiny run with such a field; None where the command line refuses it."""
    arguments = ["main", f"--config={runs.REPOSITORY}/configs/demo.py"]
    arguments += [f"--config.{field}={each}" for field, each in (runs.TINY | {name: value}).items()]
    found = flags.FlagValues()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.setattr(sys, "argv", arguments)  # Where config_flags looks for overrides.
        holder = config_flags.DEFINE_config_file("config", flag_values=found)
        try:
            found(arguments)
        except REPORTED:
            return None
    return holder.value.lock()


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(name=st.sampled_from(FIELDS), value=VALUES)
def test_a_wrong_field_is_refused_or_makes_sense(name, value):
    config = parse(name, value)
    if config is not None:
        with contextlib.suppress(ValueError):
            check_config(config)


class Begun(Exception):
    """Training would begin now."""


def begin(*_):
    raise Begun


@pytest.mark.slow
@hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(name=st.sampled_from(FIELDS), value=VALUES)
@hypothesis.example(name="finetune.augmentation.warp_voxels_zyx", value="(6,2,0.5)")
def test_with_a_wrong_field_a_stage_refuses_or_begins(tmp_path, name, value):
    config = parse(name, value)
    for stage in train.STAGES:
        if config is not None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(train, "fit", begin)
                with contextlib.suppress(Begun, ValueError, OSError):
                    train.run(config, tmp_path, stage)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pretrain.optimizer.learning_rate", "nan"),
        ("pretrain.optimizer.learning_rate", "-1e-4"),
        ("pretrain.optimizer.betas", "(0.9,)"),
        ("pretrain.optimizer.betas", "('a','b')"),
        ("finetune.optimizer.momentum", "1.5"),
        ("finetune.steps", "99999999999999999999"),
        ("finetune.augmentation.warp_spacing_zyx", "(None,)"),
        ("finetune.augmentation.noise_sigma", "-0.1"),
        ("model.segmenter.channels", "('a',)"),
        ("model.segmenter.channels", "()"),
        ("model.encoder.patch_zyx", "(True,True,True)"),
        ("model.encoder.depth", "100000"),
        ("target.dice", "-0.5"),
        ("segment.grid.threshold", "('a',)"),
        ("segment.grid.low", "(nan,)"),
        ("segment.smallest", "-1"),
        ("segment.select_by", "arand"),
        ("predict.memory_bytes", "-1"),
        ("data.train.labelled.weight", "inf"),
    ],
)
def test_a_value_that_no_run_can_work_with_is_named(name, value):
    config = parse(name, value)
    assert config is not None
    with pytest.raises(ValueError, match=rf"{name} is .*; expected: "):
        check_config(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pretrain.steps", "many"),
        ("pretrain.steps", "1.5"),
        ("model.encoder.rotary", "perhaps"),
        ("data.crop_zyx", "(1,"),
        ("pretrain.setps", "3"),
        ("pretrain.optimiser.name", "sgd"),
        ("model", "3"),
    ],
)
def test_a_wrong_type_or_name_is_refused_by_the_command_line(name, value):
    assert parse(name, value) is None
