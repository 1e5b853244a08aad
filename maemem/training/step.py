"""The training step: a pure function, jitted once, its state donated."""

import concurrent.futures
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree

from maemem.training.mesh import batch_sharding, replicated, state_sharding
from maemem.training.optimizer import tree_norm

# (params, batch, one key a crop) -> the mean loss of the crops. A batch is crops `[b ...]`, or a
# tree of such.
LossFn = Callable[[PyTree, PyTree, Key[Array, " b"]], Float[Array, ""]]
Metrics = dict[str, Float[Array, ""]]


@struct.dataclass
class TrainState:
    """All that a run needs in order to go on: with the config and the step it is exact.

    Attributes:
      step: int32, how many steps are done.
      params: float32 parameters.
      ema: their exponential moving average, or None.
      opt_state: of the optimizer.
    """

    step: Int[Array, ""]
    params: PyTree
    ema: PyTree
    opt_state: Any

    @property
    def best_params(self) -> PyTree:
        """What to evaluate and to export: the average where there is one."""
        return self.params if self.ema is None else self.ema


def sample_keys(seed: int, step: Int[Array, ""] | int, batch_size: int) -> Key[Array, " b"]:
    """One random key a crop: a function of the seed, the step and the place in the global batch."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch_size))


def state_maker(
    init: Callable[[Key[Array, ""]], PyTree],
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    ema: bool,
    mesh: Mesh,
    fsdp: bool,
) -> tuple[TrainState, functools.partial[TrainState]]:
    """What a state looks like, and a function that makes the first one.

    Args:
      init: makes the parameters from a key.
      optimizer: whose state belongs to it.
      seed: of the parameters.
      ema: keep a moving average of the parameters.
      mesh: to lie on.
      fsdp: see `mesh.state_sharding`.

    Returns:
      The state's `jax.ShapeDtypeStruct`s with their shardings, which take no memory and suffice to
      read a state from a checkpoint; and the function, which makes a state in place.
    """

    def make(key: Key[Array, ""]) -> TrainState:
        params = init(key)
        average = jax.tree.map(jnp.copy, params) if ema else None
        return TrainState(jnp.zeros((), jnp.int32), params, average, optimizer.init(params))

    key = jax.random.key(seed)
    shapes = jax.eval_shape(make, key)
    shardings = state_sharding(mesh, shapes, fsdp)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    options: dict[str, Any] = {}
    if mesh.devices.flat[0].platform == "cpu":
        # It runs once: of all levels, this one compiles and runs in the least time together.
        options["xla_backend_optimization_level"] = 1
    maker = jax.jit(make, out_shardings=shardings, compiler_options=options)
    return abstract, functools.partial(maker, key)


def compile_beside(
    train_step: jax.stages.Wrapped,
    like: TrainState,
    batch: PyTree,
    make_state: Callable[[], TrainState],
) -> TrainState:
    """Makes the first state while the step is compiled, for which its shapes suffice.

    It ends when both are done, also if one of them fails.

    Args:
      train_step: of `make_train_step`; its first call then finds it compiled.
      like: what a state looks like.
      batch: the global batches' arrays, or what they look like, with their shardings.
      make_state: of `state_maker`.

    Returns:
      The first state.

    Raises:
      Exception: whatever `make_state`, or else the compilation, raises.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        compiled = beside.submit(lambda: train_step.lower(like, batch).compile())
        state = make_state()
        compiled.result()
    return state


def batch_size(batch: PyTree) -> int:
    """How many crops a batch, or this process's part of one, has."""
    return jax.tree.leaves(batch)[0].shape[0]


def accumulated_gradient(
    loss: LossFn, params: PyTree, batch: PyTree, keys: Key[Array, " b"], parts: int
) -> tuple[Float[Array, ""], PyTree]:
    """Loss and gradient of a batch, computed in `parts` parts one after another to save memory.

    Row r of the batch belongs to part r mod `parts`, so that every part is spread over all devices.
    """
    if parts == 1:
        return jax.value_and_grad(loss)(params, batch, keys)

    def add(total, rows):
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(params, *rows)), None

    def split(rows):
        return jnp.swapaxes(rows.reshape(-1, parts, *rows.shape[1:]), 0, 1)

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    total, _ = jax.lax.scan(add, zeros, jax.tree.map(split, (batch, keys)))
    value, gradient = jax.tree.map(lambda x: x / parts, total)
    return value, gradient


def make_train_step(
    loss: LossFn,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    state: TrainState,
    *,
    seed: int,
    ema_decay: float,
    accumulation: int,
    mesh: Mesh,
    fsdp: bool,
) -> jax.stages.Wrapped:
    """One jitted step: forward, backward, update.

    Args:
      loss: the mean loss of a batch.
      optimizer: how parameters follow the gradient.
      schedule: the learning rate as a function of the steps done, for the record.
      state: any state of the run, or what it looks like.
      seed: of all that is random in a step.
      ema_decay: a step's decay of the moving average, where the state has one.
      accumulation: compute the gradient in this many parts.
      mesh: that state and batches lie on.
      fsdp: see `mesh.state_sharding`.

    Returns:
      `(state, batch) -> (state, metrics)`; it consumes the state that it is given. The metrics are
      `loss`, `learning_rate` and `gradient_norm` (before clipping) of this step, and the
      `parameter_norm` after it.
    """

    def train_step(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        keys = sample_keys(seed, state.step, batch_size(batch))
        value, gradient = accumulated_gradient(loss, state.params, batch, keys, accumulation)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = optax.incremental_update(params, ema, 1 - ema_decay)
        metrics = {
            "loss": value,
            "learning_rate": jnp.asarray(schedule(state.step)),
            "gradient_norm": tree_norm(gradient),
            "parameter_norm": tree_norm(params),
        }
        return TrainState(state.step + 1, params, ema, opt_state), metrics

    shardings = state_sharding(mesh, state, fsdp)
    return jax.jit(
        train_step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
