"""A learner that uses every hook of the contract, of a network of two matrices."""

import dataclasses

import jax
import jax.numpy as jnp

from maemem.learners.contract import Aux, Group, Learner


@dataclasses.dataclass(frozen=True)
class Fake(Learner):
    """Regression from rows of three numbers, against a running mean of its own predictions.

    Its state holds the mean, and a teacher that follows the parameters.
    """

    given: None = None
    noise: float = 1.0
    whole_batch: str = ""

    def init(self, key, like):
        """Of the width of the rows."""
        first, second = jax.random.split(key)
        width = like["image"].shape[1]
        return {
            "encoder": {"kernel": jax.random.normal(first, (width, 2)), "bias": jnp.zeros(2)},
            "head": {"kernel": jax.random.normal(second, (2,))},
        }

    def begin(self, params, like):
        """The teacher is the network as it starts."""
        return {"mean": jnp.zeros(()), "teacher": params}

    def predict(self, params, batch):
        rows = jnp.asarray(batch["image"]).astype(jnp.float32)
        hidden = rows @ params["encoder"]["kernel"] + params["encoder"]["bias"]
        return hidden @ params["head"]["kernel"]

    def loss(self, params, state, batch, at):
        """Half of the noise is the batch's, half the crops'."""
        noise = jax.vmap(jax.random.normal)(at.keys) + jax.random.normal(at.key)
        predicted = self.predict(params, batch)
        error = jnp.square(predicted + self.noise * noise - state["mean"]).mean()
        progress = at.step / at.steps
        return error, Aux({"progress": progress, "predicted": predicted.mean()}, predicted.mean())

    def advance(self, state, params, aux, at):
        """The mean is of the step before; the teacher follows by a quarter."""
        teacher = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, state["teacher"], params)
        return {"mean": 0.5 * state["mean"] + 0.5 * aux.means, "teacher": teacher}

    def groups(self, params):
        """The encoder lies one layer below the head; its bias learns at half the rate."""
        return {
            "encoder": {
                "kernel": Group("encoder", below=1, decays=True),
                "bias": Group("encoder", rate=0.5),
            },
            "head": {"kernel": Group("head", decays=True)},
        }

    def evaluate(self, params, state, batch, keys):
        """How far the network is from its teacher."""
        away = self.predict(params, batch) - self.predict(state["teacher"], batch)
        return {"distance": jnp.abs(away)}

    def inputs(self, batch, at):
        """The rows, as images of one line."""
        return {"rows": jnp.asarray(batch["image"], jnp.float32)[:, None, None] / 5}

    def pictures(self, params, state, batch, keys):
        """What is predicted of them by the network and by its teacher."""
        said = {"network": params, "teacher": state["teacher"]}
        return {n: self.predict(p, batch)[:, None, None, None] for n, p in said.items()}

    @staticmethod
    def transfer(params, state):
        """The teacher's encoder."""
        return {"encoder": state["teacher"]["encoder"]}
