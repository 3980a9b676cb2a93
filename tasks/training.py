"""How a network is trained on pictures: many steps in a compiled call, a look now and then, and a way back."""

import csv
import io
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from shared.errors import Diverged
from shared.kinds.training_pictures import enough_epochs
from tasks.dataset import Dataset
from tasks.datasets import epoch_batches
from tasks.job_context import JobContext

CALL_S = 0.4
"""How long one compiled call should last: a cancel waits for its end, and each call costs a fraction of a ms."""

State = dict[str, Any]


class Pace:
    """How many steps go into one compiled call. The number changes nothing in what is computed."""

    def __init__(self) -> None:
        self.steps = 1

    @contextmanager
    def timed(self, steps: int) -> Iterator[None]:
        """Time a call of so many steps, and choose the next one's."""
        started = time.monotonic()
        yield
        step_s = max(time.monotonic() - started, 1e-6) / steps
        # The first call traces the function, so it says nothing of the others; hence growth by degrees.
        self.steps = max(1, min(int(CALL_S / step_s), 8 * self.steps))


class Training(ABC):
    """A training that can be stopped after any step and resumed as if it never had been.

    What a step does depends on nothing but the variables, the seed and the step's number.
    """

    losses: ClassVar[tuple[str, ...]]
    """What `train` tells of each step."""

    def __init__(
        self,
        job: JobContext,
        dataset: Dataset,
        *,
        seed: int,
        batch_size: int,
        epochs: int | None,
        steps: int | None,
    ) -> None:
        """Train for so many `epochs` or `steps`; with neither, as long as a set of this size needs."""
        self.job, self.dataset, self.seed, self.batch_size = job, dataset, seed, batch_size
        self.steps_per_epoch = len(dataset.train) // batch_size
        self.total = steps or (epochs or enough_epochs(self.steps_per_epoch)) * self.steps_per_epoch
        self.look_every = self.steps_per_epoch
        self.step = 0
        self.looked_at = 0
        self.history: list[dict[str, float | None]] = []
        self.loss_sums = np.zeros(len(self.losses))  # since the last look
        self.good: State = {}

    @abstractmethod
    def variables(self) -> dict[str, Sequence[Any]]:
        """Every variable on which the next step depends, in named groups."""

    @abstractmethod
    def train(self, pictures: tf.Tensor, batches: tf.Tensor, first_step: tf.Tensor) -> tf.Tensor:
        """Take one step for each row of picture indices (steps, batch); the losses of each (steps, losses)."""

    @abstractmethod
    def look(self) -> None:
        """Judge the network as it is now, add to the history, and leave pictures of it."""

    @property
    def epoch(self) -> int:
        """The number of the epoch to which the last step belonged, from 1."""
        return math.ceil(self.step / self.steps_per_epoch)

    def run(self) -> None:
        """Train from where the last attempt stopped to the end.

        Raises:
            Diverged: a loss is no finite number; the variables are those of the last look again, and a checkpoint.
        """
        self.good = self.state()
        if (state := self.job.resume()) is not None:
            self.restore(state)
            self.good = state
        try:
            self._run()
        except Diverged as error:
            self.restore(self.good)
            self.job.save_checkpoint(self.step, self.good)
            self.job.summary["last_good_step"] = self.step
            raise Diverged(f"{error.message} What is left is the model of step {self.step}.") from error

    def _run(self) -> None:
        pictures = tf.constant(self.dataset.train.pictures)
        pace = Pace()
        while True:
            if self.step > self.looked_at and (self.step % self.look_every == 0 or self.step >= self.total):
                self._look()
            if self.step >= self.total:
                return
            batches = self.next_batches(pace.steps)
            with pace.timed(len(batches)):
                losses = self.train(pictures, tf.constant(batches), tf.constant(self.step)).numpy()
            refuse_diverged(losses, self.step)
            self.step += len(batches)
            self.add_losses(losses.astype(np.float64))
            self.report(losses[-1])

    def next_batches(self, count: int) -> np.ndarray:
        """The next batches of this epoch, (at most `count`, batch_size)."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        batches = epoch_batches(self.seed, epoch, len(self.dataset.train), self.batch_size)
        return batches[done : done + min(count, self.total - self.step)]

    def add_losses(self, losses: np.ndarray) -> None:
        """Add the losses (steps, losses) to the sums, step by step, so that the pace leaves no trace in them."""
        for step_losses in losses:
            self.loss_sums += step_losses

    @property
    def epochs(self) -> int:
        """How many epochs the training has, the last perhaps a part of one."""
        return math.ceil(self.total / self.steps_per_epoch)

    def report(self, losses: np.ndarray) -> None:
        """Say how far the training is; here it may be stopped."""
        metrics = dict(zip(self.losses, map(float, losses), strict=True)) | {"epoch": self.epoch}
        said = f"epoch {self.epoch} of {self.epochs}"
        self.job.report(self.step, self.total, said, metrics, checkpoint=self.state)

    def _look(self) -> None:
        self.look()
        self.looked_at = self.step
        self.loss_sums = np.zeros(len(self.losses))
        self.good = self.state()
        self.job.save_artifact("history.csv", history_csv(self.history))

    def mean_losses(self) -> dict[str, float]:
        """The losses since the last look, averaged over the steps."""
        means = self.loss_sums / max(self.step - self.looked_at, 1)
        return dict(zip(self.losses, means.tolist(), strict=True))

    def state(self) -> State:
        """All that the next step depends on, and what has been told."""
        arrays = {
            f"{group}.{index:04d}": _copy(variable)
            for group, variables in self.variables().items()
            for index, variable in enumerate(variables)
        }
        return {
            **arrays,
            "step": self.step,
            "looked_at": self.looked_at,
            "loss_sums": self.loss_sums.copy(),
            "history": list(self.history),
        }

    def restore(self, state: State) -> None:
        """Go back to a state that `state` gave."""
        for group, variables in self.variables().items():
            for index, variable in enumerate(variables):
                variable.assign(state[f"{group}.{index:04d}"])
        self.step, self.looked_at = int(state["step"]), int(state["looked_at"])
        self.loss_sums = np.array(state["loss_sums"])
        self.history = list(state["history"])

    def warn_once(self, code: str, message: str) -> None:
        """Warn, unless this job has been warned of the same before."""
        if not any(warning.code == code for warning in self.job.warnings):
            self.job.warn(code, message)


def _copy(variable: Any) -> np.ndarray:
    # A copy: what Keras gives may be the memory in which the variable goes on changing.
    return np.array(keras.ops.convert_to_numpy(variable))


def refuse_diverged(losses: np.ndarray, first_step: int) -> None:
    """Refuse losses (steps, ...) of the steps after `first_step` that hold a value that is no number.

    Raises:
        Diverged: naming the step.
    """
    finite = np.isfinite(losses).reshape(len(losses), -1).all(axis=1)
    if not finite.all():
        step = first_step + int(np.argmin(finite)) + 1
        raise Diverged(f"The loss at step {step} is no finite number. Choose a smaller learning rate.")


def stateless_normal(shape: Sequence[Any], seed: int, stream: int, step: tf.Tensor) -> tf.Tensor:
    """Normal noise that depends on seed, stream (0 to 7) and step alone, whatever was drawn before."""
    return tf.random.stateless_normal(shape, _stateless_seed(seed, stream, step))


def stateless_uniform(shape: Sequence[Any], seed: int, stream: int, step: tf.Tensor) -> tf.Tensor:
    """The same, uniform in [0, 1)."""
    return tf.random.stateless_uniform(shape, _stateless_seed(seed, stream, step))


def _stateless_seed(seed: int, stream: int, step: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(seed, tf.int64), 8 * tf.cast(step, tf.int64) + stream])


def history_csv(rows: Sequence[dict[str, float | None]]) -> bytes:
    """The history with a header line; numbers as short as they can be without loss, None as an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
