"""Devices as one mesh, and how batches and states lie on it."""

import os
from collections.abc import Callable

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

AXIS = "data"

# Below this size a parameter costs more to gather than to keep on every device.
_SMALLEST_SHARDED = 2**14


def join_cluster() -> None:
    """Joins the other processes of this run, when the environment says that there are any.

    It says so by `JAX_COORDINATOR_ADDRESS` with `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, or by
    what SLURM, Open MPI and Cloud TPU slices set, which JAX reads by itself.

    Raises:
      ValueError: if only some of the three JAX_ variables are set.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    values = [os.environ.get(name) for name in names]
    if any(values) and not all(values):
        given = [name for name, value in zip(names, values, strict=True) if value]
        raise ValueError(f"{', '.join(given)} set, but a cluster needs all of {', '.join(names)}")
    if all(values):
        address, count, index = map(str, values)
        if not (count.isdecimal() and index.isdecimal()):
            given = f"{names[1]}={count} and {names[2]}={index}"
            raise ValueError(f"{given} must be whole numbers")
        jax.distributed.initialize(address, int(count), int(index))
    elif (
        int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
        or int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1
        or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    ):
        jax.distributed.initialize()


def on_first_process(action: Callable[[], None]) -> None:
    """Does something on process 0 while the others wait; if it fails there, all processes fail.

    Raises:
      ValueError: on process 0 whatever the action raises; on the others, naming it.
    """
    failure: Exception | None = None
    if jax.process_index() == 0:
        try:
            action()
        except (ValueError, OSError) as error:
            failure = error
    if jax.process_count() > 1:
        failed = multihost_utils.broadcast_one_to_all(np.int32(failure is not None))
        if failed and failure is None:
            raise ValueError("process 0 has stopped with an error; see its output")
    if failure:
        raise failure


def lost_others(kind: type[BaseException] | None) -> bool:
    """Whether an exception of this kind says that other processes of this run may have ended.

    Then nothing may be done that waits for them, such as JAX's own work at exit.
    """
    return kind is not None and issubclass(kind, JaxRuntimeError) and jax.process_count() > 1


def make_mesh() -> Mesh:
    """All devices of all processes along one axis.

    In the order of the processes, whatever their topology: so process p holds the p-th part of a
    batch.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are split over the devices along their first axis."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(mesh: Mesh, state: PyTree, fsdp: bool) -> PyTree:
    """How a state (or parameters) lies on the mesh.

    Args:
      mesh: of `make_mesh`.
      state: arrays, or their shapes.
      fsdp: split every large array along its longest axis that the devices divide (fully sharded
        data parallelism, ZeRO-3: Rajbhandari et al. 2020); else each device keeps everything.

    Returns:
      A tree of shardings, one a leaf.
    """

    def of(leaf) -> NamedSharding:
        sizes = [n if n % mesh.size == 0 else 0 for n in leaf.shape]
        if not fsdp or np.prod(leaf.shape) < _SMALLEST_SHARDED or not any(sizes):
            return replicated(mesh)
        spec: list[str | None] = [None] * len(sizes)
        spec[int(np.argmax(sizes))] = AXIS
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(of, state)


def check_divisible(name: str, crops: int, accumulation: int) -> None:
    """Checks that a batch can be split over devices and accumulation steps.

    Args:
      name: of the config field, for the message.
      crops: its value.
      accumulation: in how many parts a gradient is computed.

    Raises:
      ValueError: if it cannot.
    """
    parts = jax.device_count() * accumulation
    if crops < 1 or crops % parts:
        near = {max(crops // parts, 1) * parts, max(crops // parts + 1, 1) * parts}
        raise ValueError(
            f"{name} {crops} is not divisible by {jax.device_count()} devices × "
            f"{accumulation} accumulation steps; nearest: {' or '.join(map(str, sorted(near)))}"
        )


def place(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's rows of a global batch, as parts of arrays over all devices."""
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(batch_sharding(mesh), rows), batch
    )


def local_rows(rows: np.ndarray) -> np.ndarray:
    """This process's share of the rows of a global batch."""
    return np.split(rows, jax.process_count())[jax.process_index()]
