"""Devices as one mesh, and how batches and states lie on it."""

import os

import jax
import numpy as np
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
        address, count, index = values
        jax.distributed.initialize(address, int(count or 0), int(index or 0))
    elif (
        int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1
        or int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1
        or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    ):
        jax.distributed.initialize()


def make_mesh() -> Mesh:
    """All devices of all processes along one axis."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


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


def check_batch_size(batch_size: int, accumulation: int) -> None:
    """Raises ValueError if the devices and accumulation steps do not divide the global batch."""
    parts = jax.device_count() * accumulation
    if batch_size % parts:
        raise ValueError(
            f"batch_size {batch_size} is not divisible by {jax.device_count()} devices × "
            f"{accumulation} accumulation steps; nearest: "
            f"{max(batch_size // parts, 1) * parts} or {(batch_size // parts + 1) * parts}"
        )


def place(batch: np.ndarray, mesh: Mesh) -> jax.Array:
    """This process's rows of a global batch, as part of one array over all devices."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)
