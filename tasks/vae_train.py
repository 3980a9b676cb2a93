"""Train a variational autoencoder, and show its latent space as it forms."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shared.errors import Diverged, JobCancelled
from shared.kinds.vae_train import VaeTrainParams
from tasks.dataset import Dataset, LabelledPictures
from tasks.datasets import fitting_batch, load_dataset
from tasks.job_context import JobContext
from tasks.latent_space import latent_grid, principal_plane, used_dimensions
from tasks.model_file import model_bytes
from tasks.networks.vae import (
    VaeConfig,
    build_vae,
    decoder_logits,
    kl_divergence,
    reconstruction_loss,
    sample_latent,
)
from tasks.optimizers import LocalAdam
from tasks.picture_grids import picture_grid
from tasks.scatter import scatter
from tasks.training import Training, refuse_diverged, stateless_normal

GRID_SIDE = 15
"""Pictures across the latent grid."""
COLLAPSED_KL = 0.1
"""Below so many nats the latent vector says next to nothing of the picture."""

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
        training.run()
    except (JobCancelled, Diverged):
        # Encoding all pictures takes longer than a cancel should.
        training.save_model(None)
        raise
    training.save_model(dataset.train)
    training.save_pictures()
    training.sum_up()


class VaeTraining(Training):
    """One training of a VAE: the network, its optimizer, and how far they are."""

    losses = ("reconstruction", "kl")

    def __init__(self, params: VaeTrainParams, job: JobContext, dataset: Dataset) -> None:
        batch_size = fitting_batch(params.batch_size, len(dataset.train), job)
        seed = params.seed or 0
        super().__init__(job, dataset, seed=seed, batch_size=batch_size, epochs=params.epochs, steps=None)
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
        self.grids_apart = -(-self.epochs // _MOST_GRIDS)  # epochs
        job.provenance |= {"network": self.config.model_dump(), "parameters": self.vae.count_params()}

    def variables(self) -> dict[str, Sequence[Any]]:
        return {"vae": self.vae.variables, "optimizer": self.steps.optimizer.variables}

    def train(self, pictures: tf.Tensor, batches: tf.Tensor, first_step: tf.Tensor) -> tf.Tensor:
        return self.steps.train(pictures, batches, first_step)

    def look(self) -> None:
        """Judge by the held-out pictures, write the history, show the latent space."""
        reconstruction, kl, means = self.judge(self.dataset.held_out)
        refuse_diverged(np.array([[reconstruction, kl]]), self.step - 1)
        held_out = {
            "held_out_reconstruction": reconstruction,
            "held_out_kl": kl,
            "held_out_bound": reconstruction + kl,
        }
        self.history.append({"epoch": self.epoch, "step": self.step, **self.mean_losses(), **held_out})
        if self.epoch % self.grids_apart == 0:
            self.job.save_image(f"latent-grid-epoch-{self.epoch:04d}.png", self.grid(principal_plane(means)))
        if self.step >= min(_EARLY_STEPS, self.total):
            self.warn_of_collapse(kl, means)

    def warn_of_collapse(self, kl: float, means: np.ndarray) -> None:
        """Say when the latent vector is empty; at the end also when much of it is unused, which training may mend."""
        if kl < COLLAPSED_KL:
            self.warn_once(
                "kl_collapsed",
                f"After epoch {self.epoch} the latent vector holds {kl:.4f} nats: every picture is reconstructed "
                "alike. Lower beta, or train longer.",
            )
        elif self.step >= self.total and len(means) > means.shape[1]:
            used = used_dimensions(means)
            # Some are left over in every generous latent vector; a plane with one direction, or a quarter, is too few.
            if used <= max(means.shape[1] // 4, min(means.shape[1] - 1, 1)):
                self.warn_once(
                    "dimensions_collapsed",
                    f"Of the {means.shape[1]} latent dimensions {used} are used: along the others the pictures "
                    "hardly differ, or differ as they do along the first. Train longer, lower beta, or choose a "
                    "smaller latent_dim.",
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
        return picture_grid(pictures * 255, GRID_SIDE)

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
            "active_dimensions": used_dimensions(means),
            "steps": self.step,
        }


class CompiledVae:
    """The steps of a training, many in one compiled call."""

    def __init__(self, vae: keras.Model, params: VaeTrainParams) -> None:
        self.vae, self.params = vae, params
        self.encoder = vae.get_layer("encoder")
        self.logits = decoder_logits(vae.get_layer("decoder"))
        self.optimizer = LocalAdam(params.learning_rate)
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
        """The noise (batch, d) of a step."""
        return stateless_normal(
            (tf.shape(batch)[0], self.params.latent_dim), self.params.seed or 0, stream, step
        )

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
