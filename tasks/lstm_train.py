"""Train a character-level LSTM language model on a text."""

import math
from typing import Any

import numpy as np

from shared.errors import Diverged, JobCancelled, JobTimedOut
from shared.kinds.lstm_train import LstmTrainParams
from shared.vocabulary import Place, Vocabulary
from tasks.batches import Batches, batches_of, split
from tasks.job_context import JobContext
from tasks.lstm_trainer import Trainer
from tasks.model_file import model_bytes
from tasks.networks.lstm import CharacterLstm, weights_from
from tasks.networks.lstm_writing import BLOCK, Writer
from tasks.plots import line_plot
from tasks.texts import Text, load_text, samples_page
from tasks.weights_file import read_arrays

PLACES = 16
"""Pieces of the text kept in the vocabulary, for prompts."""

# What random numbers are for, beside seed and epoch, so that no two uses share theirs.
_FOR_SAMPLES, _FOR_PLACES = 1, 2


def run(params: LstmTrainParams, job: JobContext) -> None:
    """Train epoch by epoch; leave the model, its vocabulary, the history, samples and a plot of the loss."""
    training = Training(params, job, load_text(params, job))
    training.begin()
    try:
        while training.epoch < params.epochs:
            training.run_epoch()
    except (JobCancelled, JobTimedOut):
        training.leave()
        raise
    except Diverged as error:
        step = training.back_to_good()
        training.leave()
        raise Diverged(
            f"{error.message}; the model left is that of step {step}, try a lower learning_rate"
        ) from error
    training.leave()


class Training:
    """One training, at some step of some epoch."""

    def __init__(self, params: LstmTrainParams, job: JobContext, text: Text) -> None:
        self.params, self.job, self.text = params, job, text
        self.seed = params.seed or 0
        fraction, window = params.validation_fraction, params.window
        self.learned, held_back = split(text.ids, validation_fraction=fraction, window=window)
        self.batches = self._batches(self.learned)
        self.validation = None if held_back is None else self._batches(held_back)
        self.network = CharacterLstm(
            len(text.characters),
            layers=params.layers,
            units=params.units,
            dropout=params.dropout,
            every=params.mode == "stateful",
            seed=self.seed,
        )
        self.trainer = Trainer(self.network, params, self.batches.batch_size)
        self.total = params.epochs * self.batches.steps
        self.epoch, self.batch, self.loss_sum = 0, 0, 0.0
        self.history: list[dict[str, float | None]] = []
        self.good: dict[str, Any] = {}

    def _batches(self, ids: np.ndarray) -> Batches:
        params = self.params
        return batches_of(ids, mode=params.mode, window=params.window, batch_size=params.batch_size)

    @property
    def step(self) -> int:
        """Steps done since the training's start."""
        return self.epoch * self.batches.steps + self.batch

    # The start

    def begin(self) -> None:
        """Go on from the newest checkpoint, from another job's weights, or from random ones."""
        state = self.job.resume()
        if state is not None:
            self._restore(state)
        elif self.params.start_from_job is not None:
            self._start_from(self.params.start_from_job)
        self.good = self.state()
        self._warn()

    def _start_from(self, job_id: str) -> None:
        field = "start_from_job"
        vocabulary = Vocabulary.parse(
            self.job.model_path(job_id, "vocabulary.json").read_bytes(), field=field
        )
        self.params.check_vocabulary(vocabulary.characters, self.text.characters)
        arrays = read_arrays(self.job.model_path(job_id, "model.keras"), field=field)
        self.network.set_weights(weights_from(arrays, field=field))

    def _warn(self) -> None:
        """Tell what a short text changes, once in a job's life."""
        told = {warning.code for warning in self.job.warnings}
        size, asked = self.batches.batch_size, self.params.batch_size
        if size < asked and "batch_shrunk" not in told:
            self.job.warn(
                "batch_shrunk", f"the text fills batches of {size}, not of {asked}", {"batch_size": size}
            )
        if self.params.validation_fraction and self.validation is None and "no_validation" not in told:
            message = (
                f"there is no validation: each part of the text needs {self.params.window + 1} characters"
            )
            self.job.warn("no_validation", message)

    # One epoch

    def run_epoch(self) -> None:
        """Train on the rest of this epoch, measure, write samples, and keep a checkpoint."""
        if self.batch == 0:
            self.trainer.begin_epoch()
        order = self.batches.order(self.seed, self.epoch)
        while self.batch < self.batches.steps:
            loss = self.trainer.step(self.batches.batch(order, self.batch), self.step)
            self.loss_sum += loss
            self.batch += 1
            self._report(loss)
        self._end_epoch()

    def _report(self, loss: float) -> None:
        metrics = {"loss": loss, "bits_per_character": bits(loss), "epoch": self.epoch + 1.0}
        if self.history and self.history[-1]["validation_loss"] is not None:
            metrics["validation_bits_per_character"] = bits(self.history[-1]["validation_loss"])
        message = f"epoch {self.epoch + 1} of {self.params.epochs}"
        self.job.report(self.step, self.total, message, metrics, checkpoint=self.state)

    def _end_epoch(self) -> None:
        loss = self.loss_sum / self.batches.steps
        validation_loss = None
        if self.validation is not None:
            validation_loss = self.trainer.evaluate(self.validation, on_step=lambda: self._report(loss))
        if self.params.sample_temperatures:
            self._write_samples()
        self.history.append({"loss": loss, "validation_loss": validation_loss})
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
        self.trainer.begin_epoch()
        self.job.save_checkpoint(self.step, self.state())

    def _write_samples(self) -> None:
        """One text per temperature, each from the same place of the training text."""
        params, seed = self.params, [self.seed, self.epoch, _FOR_SAMPLES]
        start = int(np.random.default_rng(seed).integers(0, len(self.learned) - params.window))
        writer = Writer(
            self.network.weights(),
            mode=params.mode,
            window=params.window,
            temperatures=params.sample_temperatures,
            seed=seed,
        )
        writer.read(self.learned[start : start + params.window])
        pieces = [writer.write(min(BLOCK, params.sample_length))]
        while writer.written < params.sample_length:
            pieces.append(writer.write(params.sample_length - writer.written))
        texts = [
            "".join(self.text.characters[place] for place in column) for column in np.concatenate(pieces).T
        ]
        page = samples_page(
            self.text.excerpt(start, params.window), list(zip(params.sample_temperatures, texts, strict=True))
        )
        self.job.save_artifact(f"samples-epoch-{self.epoch + 1:04d}.txt", page.encode())

    # Its state

    def state(self) -> dict[str, Any]:
        """All that is needed to go on from here.

        Raises:
            Diverged: from here there is no going on.
        """
        self.good = self.trainer.state() | {
            "epoch": self.epoch,
            "batch": self.batch,
            "loss_sum": self.loss_sum,
            "history": list(self.history),
        }
        return self.good

    def _restore(self, state: dict[str, Any]) -> None:
        self.trainer.restore(state)
        self.epoch, self.batch, self.loss_sum = state["epoch"], state["batch"], state["loss_sum"]
        self.history = state["history"]

    def back_to_good(self) -> int:
        """Return to the last state whose weights are numbers, keep it as the checkpoint, and name its step."""
        self._restore(self.good)
        self.job.save_checkpoint(self.step, self.good)
        return self.step

    # The end

    def leave(self) -> None:
        """Save what there is now: it can be sampled, whatever ended the training."""
        self.job.save_artifact("model.keras", model_bytes(self.network.model))
        self.job.save_artifact("vocabulary.json", self._vocabulary().model_dump_json(indent=1).encode())
        self.job.save_artifact("history.csv", history_csv(self.history).encode())
        self.job.save_image("loss.png", history_plot(self.history))
        self.job.summary |= self._summary()

    def _vocabulary(self) -> Vocabulary:
        length = min(self.params.window, 200)
        drawn = np.random.default_rng([self.seed, 0, _FOR_PLACES]).integers(
            0, len(self.learned) - length, PLACES
        )
        starts = sorted({int(start) for start in drawn})
        return Vocabulary(
            characters=self.text.characters,
            mode=self.params.mode,
            window=self.params.window,
            lowercase=self.params.lowercase,
            places=tuple(Place(offset=start, text=self.text.excerpt(start, length)) for start in starts),
        )

    def _summary(self) -> dict[str, Any]:
        newest = self.history[-1] if self.history else {"loss": None, "validation_loss": None}
        return {
            "epochs": self.epoch,
            "steps": self.step,
            "characters": len(self.text.ids),
            "vocabulary_size": len(self.text.characters),
            "batch_size": self.batches.batch_size,
            "learning_rate": self.params.effective_learning_rate,
            "bits_per_character": bits(newest["loss"]),
            "validation_bits_per_character": bits(newest["validation_loss"]),
        }


def bits(nats: float | None) -> float | None:
    """Nats as bits."""
    return None if nats is None else nats / math.log(2)


def history_csv(history: list[dict[str, float | None]]) -> str:
    """One line per epoch; what was not measured stays empty."""
    lines = ["epoch,loss,bits_per_character,validation_loss,validation_bits_per_character"]
    for epoch, row in enumerate(history, start=1):
        values = [row["loss"], bits(row["loss"]), row["validation_loss"], bits(row["validation_loss"])]
        lines.append(",".join([str(epoch), *("" if value is None else f"{value:.6f}" for value in values)]))
    return "\n".join(lines) + "\n"


def history_plot(history: list[dict[str, float | None]]) -> np.ndarray:
    """Bits per character over the epochs, as a picture."""
    names = {"training": "loss", "validation": "validation_loss"}
    lines = {
        name: [(float(epoch), bits(row[key])) for epoch, row in enumerate(history, start=1)]
        for name, key in names.items()
        if name == "training" or any(row[key] is not None for row in history)
    }
    title = "Loss: how badly the next character is foreseen"
    return line_plot(lines, title=title, x_label="epoch", y_label="bits per character")
