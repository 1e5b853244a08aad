import subprocess

import pytest

from maemem.training.mesh import check_divisible, join_cluster
from tests.runs import REPOSITORY, environment, program


@pytest.mark.parametrize("name", ["place_on_devices", "draw_on_devices"])
def test_large_parameters_are_split_over_devices(name):
    subprocess.run(program(name), cwd=REPOSITORY, env=environment(8), check=True)


def test_a_batch_that_devices_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"crops 7 is not divisible by .* nearest: 6 or 8"):
        check_divisible("crops", 7, 2)
    check_divisible("crops", 8, 2)


def test_half_a_cluster_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1234")
    with pytest.raises(ValueError, match=r"needs all of .*JAX_PROCESS_ID"):
        join_cluster()
