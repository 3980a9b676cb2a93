"""Train a variational autoencoder, and show its latent space as it forms."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shared.errors import Diverged, JobCancelled
from shared.kinds.vae_train import VaeTrainParams
from tasks.dataset import Dataset, LabelledPictures
from tasks.datasets import epoch_batches, fitting_batch, load_dataset
from tasks.job_context import JobContext
from tasks.latent_space import latent_grid, principal_plane
from tasks.model_file import model_bytes
from tasks.networks.vae import (
    VaeConfig,
    build_vae,
    decoder_logits,
    kl_divergence,
    reconstruction_loss,
    sample_latent,
)
from tasks.picture_grids import picture_grid
from tasks.scatter import scatter
from tasks.training import Pace, State, assign_arrays, back_to_good, refuse_diverged, variable_arrays

GRID_SIDE = 15
"""Pictures across the latent grid."""
COLLAPSED_KL = 0.1
"""Below so many nats the latent vector says next to nothing of the picture."""

_HISTORY = (
    "epoch",
    "step",
    "reconstruction",
    "kl",
    "held_out_reconstruction",
    "held_out_kl",
    "held_out_bound",
)
_EARLY_STEPS = 500  # in which a latent vector may still be empty
_MOST_GRIDS = 100
_SHOWN_RECONSTRUCTIONS = 12
_SCATTERED = 5_000
_TRAIN_STREAM, _HELD_OUT_STREAM = 0, 1  # tell the noise of training and of judging apart


def run(params: VaeTrainParams, job: JobContext) -> None:
    """Train, and leave `model.keras`, `model.json`, `latents.npz`, `history.csv` and pictures of the latent space."""
    dataset = load_dataset(params, job, (params.image_size, params.image_size) if params.image_size else None)
    training = VaeTraining(params, job, dataset)
    try:
        with back_to_good(job, lambda: training.good, training.restore):
            training.run()
    except (JobCancelled, Diverged):
        # Encoding all pictures takes longer than a cancel should.
        training.save_model(None)
        raise
    training.save_model(dataset.train)
    training.save_pictures()
    training.sum_up()


class VaeTraining:
    """One training: the network, its optimizer, and how far they are."""

    def __init__(self, params: VaeTrainParams, job: JobContext, dataset: Dataset) -> None:
        self.params, self.job, self.dataset = params, job, dataset
        height, width, channels = dataset.train.pictures.shape[1:]
        self.config = VaeConfig(
            height=height,
            width=width,
            channels=channels,
            latent_dim=params.latent_dim,
            architecture=params.chosen_architecture(height, width),
            fit=params.fit,
            label_names=dataset.label_names,
        )
        self.vae = build_vae(self.config)
        self.steps = CompiledVae(self.vae, params)
        self.batch_size = fitting_batch(params.batch_size, len(dataset.train), job)
        self.steps_per_epoch = len(dataset.train) // self.batch_size
        self.total = params.epochs * self.steps_per_epoch
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.epoch_losses = np.zeros(2)  # reconstruction and KL, summed over this epoch's steps
        self.good = self.state()
        job.provenance |= {"network": self.config.model_dump(), "parameters": self.vae.count_params()}

    def run(self) -> None:
        """Train from where the last attempt stopped to the end."""
        if (state := self.job.resume()) is not None:
            self.restore(state)
        pictures = tf.constant(self.dataset.train.pictures)
        pace = Pace()
        # A checkpoint may have been taken after an epoch's last step and before its end was told.
        if (
            self.step
            and self.step % self.steps_per_epoch == 0
            and len(self.history) < self.step // self.steps_per_epoch
        ):
            self.end_epoch()
        while self.step < self.total:
            for batches in self.rest_of_epoch(pace):
                with pace.timed(len(batches)):
                    losses = self.steps.train(pictures, tf.constant(batches), tf.constant(self.step)).numpy()
                refuse_diverged(losses, self.step)
                self.step += len(batches)
                # Summed step by step in double precision, so that the pace leaves no trace in the sum.
                for loss in losses.astype(np.float64):
                    self.epoch_losses += loss
                self.report(losses[-1])
            self.end_epoch()

    def rest_of_epoch(self, pace: Pace) -> Iterator[np.ndarray]:
        """The batches that this epoch still has to see, as many at a time as the pace allows."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        batches = epoch_batches(self.params.seed or 0, epoch, len(self.dataset.train), self.batch_size)[done:]
        while len(batches):
            now, batches = (
                batches[: pace.steps],
                batches[pace.steps :],
            )  # the pace changes while they are used
            yield now

    def report(self, loss: np.ndarray) -> None:
        epoch = (self.step - 1) // self.steps_per_epoch + 1
        metrics = {"reconstruction": float(loss[0]), "kl": float(loss[1]), "epoch": epoch}
        message = f"epoch {epoch} of {self.params.epochs}"
        self.job.report(self.step, self.total, message, metrics, checkpoint=self.state)

    def end_epoch(self) -> None:
        """Judge by the held-out pictures, write the history, show the latent space."""
        epoch = self.step // self.steps_per_epoch
        reconstruction, kl, means = self.judge(self.dataset.held_out)
        values = [
            epoch,
            self.step,
            *(self.epoch_losses / self.steps_per_epoch),
            reconstruction,
            kl,
            reconstruction + kl,
        ]
        refuse_diverged(np.array([values]), self.step - 1)
        self.history.append(dict(zip(_HISTORY, values, strict=True)))
        self.epoch_losses = np.zeros(2)
        self.good = self.state()
        self.job.save_artifact("history.csv", history_csv(self.history))
        if epoch % -(-self.params.epochs // _MOST_GRIDS) == 0:
            self.job.save_image(f"latent-grid-epoch-{epoch:04d}.png", self.grid(principal_plane(means)))
        early = self.step < min(_EARLY_STEPS, self.total)
        if (
            kl < COLLAPSED_KL
            and not early
            and not any(warning.code == "kl_collapsed" for warning in self.job.warnings)
        ):
            self.job.warn(
                "kl_collapsed",
                f"After epoch {epoch} the latent vector holds {kl:.4f} nats: every picture is reconstructed alike. "
                "Lower beta, or train longer.",
            )

    def judge(self, pictures: LabelledPictures) -> tuple[float, float, np.ndarray]:
        """Mean reconstruction and KL loss per picture, and the latent means (n, d)."""
        losses, means = [], []
        for first, chunk in chunks(pictures.pictures):
            chunk_losses, mean = self.steps.judge(tf.constant(chunk), tf.constant(first))
            losses.append(chunk_losses.numpy().astype(np.float64))
            means.append(mean.numpy())
        reconstruction, kl = np.concatenate(losses).mean(axis=0)
        return float(reconstruction), float(kl), np.concatenate(means)

    def grid(self, plane: np.ndarray) -> np.ndarray:
        """The latent grid as an image."""
        vectors = latent_grid(GRID_SIDE, plane).astype(np.float32)
        pictures = self.vae.get_layer("decoder")(vectors).numpy()
        return picture_grid(pictures * 255, GRID_SIDE, margin_px=0)

    def state(self) -> State:
        """All that the next step depends on, and what has been told."""
        return {
            **variable_arrays("vae", self.vae.variables),
            **variable_arrays("optimizer", self.steps.optimizer.variables),
            "epoch_losses": self.epoch_losses.copy(),
            "history": list(self.history),
            "step": self.step,
        }

    def restore(self, state: State) -> None:
        """Go back to a state that `state` gave."""
        assign_arrays("vae", self.vae.variables, state)
        assign_arrays("optimizer", self.steps.optimizer.variables, state)
        self.epoch_losses = np.array(state["epoch_losses"])
        self.history = list(state["history"])
        self.step = int(state["step"])
        self.good = state

    def save_model(self, encoded: LabelledPictures | None) -> None:
        """Leave the network, and the latent means of held-out pictures and of each label in `encoded`."""
        self.job.save_artifact("model.keras", model_bytes(self.vae))
        self.job.save_artifact("model.json", self.config.model_dump_json(indent=1).encode())
        held_out = self.dataset.held_out[np.arange(min(len(self.dataset.held_out), _SCATTERED))]
        _, _, means = self.judge(held_out)
        kept: dict[str, Any] = {"means": means, "plane": principal_plane(means)}
        if held_out.labels is not None:
            encoded_means = means if encoded is None else self.judge(encoded)[2]
            labels = held_out.labels if encoded is None else encoded.labels
            kept |= {
                "labels": held_out.labels,
                **label_means(encoded_means, labels, len(self.config.label_names)),
            }
        buffer = io.BytesIO()
        np.savez(buffer, **kept)
        self.job.save_artifact("latents.npz", buffer.getvalue())

    def save_pictures(self) -> None:
        """Leave the latent grid, reconstructions below their originals, and the means by label."""
        held_out = self.dataset.held_out
        _, _, means = self.judge(held_out)
        plane = principal_plane(means)
        self.job.save_image("latent-grid.png", self.grid(plane))
        originals = held_out.pictures[:_SHOWN_RECONSTRUCTIONS]
        reconstructed = self.vae.get_layer("decoder")(means[:_SHOWN_RECONSTRUCTIONS]).numpy() * 255
        pairs = np.concatenate([originals.astype(np.float32), reconstructed])
        self.job.save_image("reconstructions.png", picture_grid(pairs, len(originals)))
        if held_out.labels is not None:
            image = means_by_label(
                means[:_SCATTERED], held_out.labels[:_SCATTERED], plane, self.config.label_names
            )
            self.job.save_image("latents.png", image)

    def sum_up(self) -> None:
        """Say how well the network does on the held-out pictures, and how much of its latent vector it uses."""
        last = self.history[-1]
        _, _, means = self.judge(self.dataset.held_out)
        self.job.summary |= {
            "held_out_reconstruction": last["held_out_reconstruction"],
            "held_out_kl": last["held_out_kl"],
            "held_out_bound": last["held_out_bound"],
            # Burda et al. (2015), arXiv 1509.00519: a dimension whose mean hardly varies is not used.
            "active_dimensions": int((means.var(axis=0) > 0.01).sum()),
            "steps": self.step,
        }


class CompiledVae:
    """The steps of a training, many in one compiled call."""

    def __init__(self, vae: keras.Model, params: VaeTrainParams) -> None:
        self.vae, self.params = vae, params
        self.encoder = vae.get_layer("encoder")
        self.logits = decoder_logits(vae.get_layer("decoder"))
        self.optimizer = keras.optimizers.Adam(params.learning_rate)
        self.optimizer.build(vae.trainable_variables)
        picture_shape = vae.input_shape[1:]
        uint8_pictures = tf.TensorSpec((None, *picture_shape), tf.uint8)
        number = tf.TensorSpec((), tf.int32)
        # Of any length, so that neither the pace nor a last, smaller piece traces them again.
        self.train = tf.function(self._train, [uint8_pictures, tf.TensorSpec((None, None), tf.int32), number])
        self.judge = tf.function(self._judge, [uint8_pictures, number])

    def losses(self, batch: tf.Tensor, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Reconstruction and KL loss of each picture (batch,), and the latent means (batch, d)."""
        pictures = tf.cast(batch, tf.float32) / 255
        mean, log_var = self.encoder(pictures, training=True)
        logits = self.logits(sample_latent(mean, log_var, noise), training=True)
        return (
            reconstruction_loss(pictures, logits, self.params.reconstruction),
            kl_divergence(mean, log_var),
            mean,
        )

    def noise(self, batch: tf.Tensor, stream: int, step: tf.Tensor) -> tf.Tensor:
        """The noise of a step: a function of seed, stream and step, whatever was drawn before."""
        shape = (tf.shape(batch)[0], self.params.latent_dim)
        seed = tf.stack([tf.constant(self.params.seed or 0, tf.int64), 2 * tf.cast(step, tf.int64) + stream])
        return tf.random.stateless_normal(shape, seed)

    def _train(self, pictures: tf.Tensor, batches: tf.Tensor, first_step: tf.Tensor) -> tf.Tensor:
        """Take one step for each row of indices (steps, batch); reconstruction and KL loss of each, (steps, 2)."""
        steps = tf.shape(batches)[0]
        told = tf.TensorArray(tf.float32, steps, element_shape=(2,))
        for index in tf.range(steps):
            batch = tf.gather(pictures, batches[index])
            noise = self.noise(batch, _TRAIN_STREAM, first_step + index)
            with tf.GradientTape() as tape:
                reconstruction, kl, _ = self.losses(batch, noise)
                reconstruction, kl = tf.reduce_mean(reconstruction), tf.reduce_mean(kl)
                loss = reconstruction + self.params.beta * kl
            variables = self.vae.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            told = told.write(index, tf.stack([reconstruction, kl]))
        return told.stack()

    def _judge(self, batch: tf.Tensor, first: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reconstruction and KL loss of each picture (batch, 2), and the latent means (batch, d)."""
        reconstruction, kl, mean = self.losses(batch, self.noise(batch, _HELD_OUT_STREAM, first))
        return tf.stack([reconstruction, kl], axis=1), mean


def chunks(pictures: np.ndarray, size: int = 500) -> Iterator[tuple[int, np.ndarray]]:
    """Cut pictures into pieces that fit into memory with their activations: (first index, piece)."""
    for first in range(0, len(pictures), size):
        yield first, pictures[first : first + size]


def means_by_label(
    means: np.ndarray, labels: np.ndarray, plane: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Draw latent means (n, d) on the plane of the latent grid; those of one dimension in a row for each label."""
    points = means @ plane.T
    if points.shape[1] == 1:
        rows = (labels - labels.max() / 2) * (4 / max(labels.max(), 1))
        points = np.stack([points[:, 0], rows], axis=1)
    return scatter(points, labels, names)


def label_means(means: np.ndarray, labels: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """The mean latent vector of each label (count, d), and how many pictures it is the mean of (count,)."""
    counts = np.bincount(labels, minlength=count)
    sums = np.zeros((count, means.shape[1]))
    np.add.at(sums, labels, means)
    return {"label_means": sums / np.maximum(counts, 1)[:, np.newaxis], "label_counts": counts}


def history_csv(rows: list[dict[str, float]]) -> bytes:
    """The history with a header line; numbers as short as they can be without loss."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
