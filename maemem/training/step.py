"""The training step: a pure function, jitted once, its state donated."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key, PyTree

from maemem.learners.contract import At, Batch, Learner, Like
from maemem.training.mesh import batch_sharding, replicated, state_sharding
from maemem.training.optimizer import Optimizer, freeze, tree_norm

# (params, rows of a batch, one key a crop) -> the mean loss of the crops, and what comes with it.
LossFn = Callable[[PyTree, PyTree, Key[Array, " b"]], tuple[Float[Array, ""], PyTree]]
Metrics = dict[str, Float[Array, ""]]

# The row of the key that all crops of a batch share; no crop has as large a number.
_BATCH_ROW = 2**32 - 1


@struct.dataclass
class TrainState:
    """All that a run needs in order to go on: with the config and the step it is exact.

    Attributes:
      step: int32, how many steps are done.
      params: float32 parameters.
      ema: their exponential moving average, or None.
      opt_state: of the optimizer.
      learner: the learner's own: a teacher, a running mean; nothing, of most.
    """

    step: Int[Array, ""]
    params: PyTree
    ema: PyTree
    opt_state: Any
    learner: PyTree = ()

    @property
    def best_params(self) -> PyTree:
        """What to evaluate and to export: the average where there is one."""
        return self.params if self.ema is None else self.ema


def sample_keys(seed: int, step: Int[Array, ""] | int, batch_size: int) -> Key[Array, " b"]:
    """One random key a crop: a function of the seed, the step and the place in the global batch."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(batch_size))


def batch_key(seed: int, step: Int[Array, ""] | int) -> Key[Array, ""]:
    """The key of a whole batch: a function of the seed and the step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), _BATCH_ROW)


def make_init(
    learner: Learner, optimizer: Optimizer, like: Like, *, steps: int, ema: bool
) -> Callable[[Key[Array, ""]], TrainState]:
    """A function of a key that makes the first state, before it starts from other parameters.

    Args:
      learner: whose parameters it has.
      optimizer: of these.
      like: shapes and dtypes of a global batch.
      steps: the length of the run.
      ema: keep a moving average of the parameters.
    """

    def init(key: Key[Array, ""]) -> TrainState:
        params = learner.init(key, like)
        average = jax.tree.map(jnp.copy, params) if ema else None
        transformation = optimizer.transformation(steps, learner.groups(params))
        zero = jnp.zeros((), jnp.int32)
        begun = jax.tree.map(jnp.copy, learner.begin(params, like))  # States are donated.
        return TrainState(zero, params, average, transformation.init(params), begun)

    return init


def state_like(init: Callable[[Key[Array, ""]], TrainState], mesh: Mesh, fsdp: bool) -> TrainState:
    """What a state looks like: `jax.ShapeDtypeStruct`s with shardings, which take no memory.

    They suffice to compile a step, and to read a state from a checkpoint.
    """
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        state_sharding(mesh, shapes, fsdp),
    )


def make_state(
    init: Callable[[Key[Array, ""]], TrainState], like: TrainState, seed: int
) -> TrainState:
    """The first state, made where it lies.

    Args:
      init: of `make_init`.
      like: of `state_like`.
      seed: of the parameters.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    options: dict[str, Any] = {}
    if jax.default_backend() == "cpu":
        # It runs once: of all levels, this one compiles and runs in the least time together.
        options["xla_backend_optimization_level"] = 1
    maker = jax.jit(init, out_shardings=shardings, compiler_options=options)
    return maker(jax.random.key(seed))


def compile_beside(
    train_step: jax.stages.Wrapped,
    like: TrainState,
    batch: PyTree,
    make: Callable[[], TrainState],
) -> TrainState:
    """Makes the first state while the step is compiled, for which its shapes suffice.

    It ends when both are done, also if one of them fails.

    Args:
      train_step: of `make_train_step`; its first call then finds it compiled.
      like: what a state looks like.
      batch: the global batches' arrays, or what they look like, with their shardings.
      make: makes the first state.

    Returns:
      The first state.

    Raises:
      Exception: whatever `make`, or else the compilation, raises.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        compiled = beside.submit(lambda: train_step.lower(like, batch).compile())
        state = make()
        compiled.result()
    return state


def batch_size(batch: PyTree) -> int:
    """How many crops a batch, or this process's part of one, has."""
    return jax.tree.leaves(batch)[0].shape[0]


def accumulated_gradient(
    loss: LossFn, params: PyTree, batch: PyTree, keys: Key[Array, " b"], parts: int
) -> tuple[tuple[Float[Array, ""], PyTree], PyTree]:
    """Loss, what comes with it, and gradient of a batch, in `parts` parts one after another.

    All three are means over the parts. Row r of the batch belongs to part r mod `parts`, so that
    every part is spread over all devices.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return gradient(params, batch, keys)

    def add(total, rows):
        return jax.tree.map(jnp.add, total, gradient(params, *rows)), None

    def split(rows):
        # [parts·m ...] -> [parts m ...]
        return jnp.swapaxes(rows.reshape(-1, parts, *rows.shape[1:]), 0, 1)

    rows = jax.tree.map(split, (batch, keys))
    first = jax.tree.map(lambda part: part[0], rows)
    shapes = jax.eval_shape(gradient, params, *first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, rows)
    return jax.tree.map(lambda x: x / parts, total)


def make_train_step(
    learner: Learner,
    optimizer: Optimizer,
    like: TrainState,
    *,
    steps: int,
    seed: int,
    ema_decay: float,
    accumulation: int,
    mesh: Mesh,
    fsdp: bool,
) -> jax.stages.Wrapped:
    """One jitted step: forward, backward, update.

    Args:
      learner: what is minimised.
      optimizer: how parameters follow the gradient.
      like: any state of the run, or what it looks like.
      steps: the length of the run.
      seed: of all that is random in a step.
      ema_decay: a step's decay of the moving average, where the state has one.
      accumulation: compute the gradient in this many parts.
      mesh: that state and batches lie on.
      fsdp: see `mesh.state_sharding`.

    Returns:
      `(state, batch) -> (state, metrics)`; it consumes the state that it is given. The metrics are
      `loss`, `learning_rate` and `gradient_norm` (before clipping) of this step, the
      `parameter_norm` after it, and the learner's own.

    Raises:
      ValueError: if accumulation would change what the learner means, or a frozen part is unknown.
    """
    if accumulation > 1 and learner.whole_batch:
        raise ValueError(
            f"accumulation is {accumulation}; expected: 1, because {learner.whole_batch}"
        )
    groups = learner.groups(like.params)
    schedule = optimizer.schedule(steps)
    transformation = optimizer.transformation(steps, groups)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        keys = sample_keys(seed, state.step, batch_size(batch))
        at = At(state.step, jnp.asarray(steps, jnp.int32), batch_key(seed, state.step), keys)

        def loss(params, batch, keys):
            frozen = freeze(params, groups, optimizer.frozen)
            return learner.loss(frozen, state.learner, batch, at._replace(keys=keys))

        (value, aux), gradient = accumulated_gradient(loss, state.params, batch, keys, accumulation)
        updates, opt_state = transformation.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = optax.incremental_update(params, ema, 1 - ema_decay)
        metrics = {
            "loss": value,
            "learning_rate": jnp.asarray(schedule(state.step)),
            "gradient_norm": tree_norm(gradient),
            "parameter_norm": tree_norm(params),
            **aux.metrics,
        }
        advanced = learner.advance(state.learner, params, aux, at)
        return TrainState(state.step + 1, params, ema, opt_state, advanced), metrics

    shardings = state_sharding(mesh, like, fsdp)
    return jax.jit(
        train_step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
