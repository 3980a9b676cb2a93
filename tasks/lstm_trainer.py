"""One step of an LSTM's training, compiled, and all of its state as arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from shared.errors import Diverged
from shared.kinds.lstm_train import LstmTrainParams
from tasks.batches import Batch, Batches
from tasks.networks.lstm import CharacterLstm, State
from tasks.optimizers import LocalAdam, LocalRMSprop


class Trainer:
    """A network, its optimizer and the state it carries along the text."""

    def __init__(self, network: CharacterLstm, params: LstmTrainParams, batch_size: int) -> None:
        optimizers = {"rmsprop": LocalRMSprop, "adam": LocalAdam}
        self.network, self.seed, self.clip_norm = network, params.seed or 0, params.clip_norm
        self.optimizer = optimizers[params.optimizer](params.effective_learning_rate)
        self.optimizer.build(network.variables)
        self.carries = params.mode == "stateful"
        self.batch_size = batch_size
        self.carried = network.empty_state(batch_size)
        self._step = tf.function(self._train_step, autograph=False, jit_compile=network.fused)
        self._measure = tf.function(self._losses, autograph=False, jit_compile=network.fused)

    def begin_epoch(self) -> None:
        """The text begins anew."""
        self.carried = self.network.empty_state(self.batch_size)

    def step(self, batch: Batch, step: int) -> float:
        """Train on one batch; `step` counts from the training's start. The loss in nats per character.

        Raises:
            Diverged: the loss or its gradient is no finite number.
        """
        ids, targets = batch
        loss, norm, after = self._step(ids, targets, self.carried, tf.constant(step))
        if self.carries:
            self.carried = after
        if not np.isfinite([loss, norm]).all():
            raise Diverged(f"at step {step + 1} the loss is {loss:g} and its gradient's norm {norm:g}")
        return float(loss)

    def evaluate(self, batches: Batches, on_step: Callable[[], None]) -> float:
        """The mean loss over a text (nats per character); `on_step` is called after each step and may raise."""
        state, order, total = self.network.empty_state(batches.batch_size), batches.fixed_order(), 0.0
        for step in range(batches.steps):
            loss, after = self._measure(*batches.batch(order, step), state, None)
            state = after if self.carries else state
            total += float(loss)
            on_step()
        return total / batches.steps

    def _losses(
        self, ids: tf.Tensor, targets: tf.Tensor, state: State, dropout_seed: tf.Tensor | None
    ) -> tuple[tf.Tensor, State]:
        logits, after = self.network.logits(ids, state, dropout_seed)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tf.reshape(targets, (-1,)), logits=logits
        )
        return tf.reduce_mean(losses), after

    def _train_step(
        self, ids: tf.Tensor, targets: tf.Tensor, state: State, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, State]:
        variables = [variable.value for variable in self.network.variables]
        # Drawn from the step's number: a resumed job leaves out what an unbroken one would.
        dropout_seed = tf.stack([tf.constant(self.seed), step])
        with tf.GradientTape() as tape:
            loss, after = self._losses(ids, targets, state, dropout_seed)
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
        norm = tf.linalg.global_norm(gradients)
        if self.clip_norm is not None:
            gradients = [gradient * tf.minimum(1.0, self.clip_norm / norm) for gradient in gradients]
        self.optimizer.apply(gradients, self.network.variables)
        return loss, norm, after

    def state(self) -> dict[str, Any]:
        """Weights, optimizer and carried state, as arrays for a checkpoint.

        Raises:
            Diverged: a weight is no finite number; what is saved can always be gone on from.
        """
        weights = self.network.weights()
        if not all(np.isfinite(array).all() for array in weights):
            raise Diverged("a weight is no finite number any more")
        flat = [array.numpy() for pair in self.carried for array in pair]
        optimizer = [variable.numpy() for variable in self.optimizer.variables]
        return numbered("weights", weights) | numbered("optimizer", optimizer) | numbered("carried", flat)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.network.set_weights(in_order("weights", state))
        for variable, value in zip(self.optimizer.variables, in_order("optimizer", state), strict=True):
            variable.assign(value)
        flat = [tf.constant(array) for array in in_order("carried", state)]
        self.carried = list(zip(flat[::2], flat[1::2], strict=True))


def numbered(name: str, arrays: Sequence[Any]) -> dict[str, np.ndarray]:
    """Arrays under names that a checkpoint can hold."""
    return {f"{name}.{number:03d}": np.array(array) for number, array in enumerate(arrays)}


def in_order(name: str, state: dict[str, Any]) -> list[np.ndarray]:
    """The arrays that `numbered` named."""
    return [state[key] for key in sorted(state) if key.startswith(f"{name}.")]
