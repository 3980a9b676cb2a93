"""Train a generative adversarial network, and show from the same latent vectors how it learns."""

import math
from collections import deque
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from shared.errors import Diverged, JobCancelled, WeightsUnavailable
from shared.kinds.gan_train import GanTrainParams
from tasks.dataset import Dataset
from tasks.datasets import fitting_batch, load_dataset
from tasks.images import encode_png, to_uint8
from tasks.job_context import JobContext
from tasks.kid import KidReference, mean_pairwise_distance
from tasks.model_file import model_bytes
from tasks.networks.gan import (
    GanConfig,
    build_discriminator,
    build_generator,
    cross_entropy,
    generate,
    noisy_targets,
)
from tasks.optimizers import LocalAdam
from tasks.picture_grids import animation, picture_grid
from tasks.training import State, Training, stateless_normal, stateless_uniform

WON_BELOW, WON_FOR = 0.01, 200
"""The discriminator has won when its loss stays, on average over so many steps, this close above its least."""
COLLAPSED_BELOW = 0.3
"""Generated pictures that differ less from each other than this share of what real ones do are all alike."""
HARDLY_TRAINED_STEPS = 1_000
"""In so many steps all generators make much the same of everything."""

_GRID_PX, _MOST_COLUMNS = 512, 8
_LEAST_STEPS_APART, _MOST_LOOKS, _MOST_KEPT = 100, 100, 10
_SHOWN, _JUDGED = 0x5A3, 0x1D6E  # tell the latent vectors of one seed apart
_LATENT, _LATENT_AGAIN, _REAL_NOISE, _FAKE_NOISE = 0, 1, 2, 3
_JUDGED_AT_LEAST = 64


def run(params: GanTrainParams, job: JobContext) -> None:
    """Train, and leave the generator as `model.keras`, the best one, the discriminator, and how they came about."""
    dataset = load_dataset(params, job, (params.image_size, params.image_size))
    training = GanTraining(params, job, dataset)
    try:
        training.run()
    except (JobCancelled, Diverged):
        training.save_models()
        raise
    training.save_models()
    training.sum_up()


class GanTraining(Training):
    """One training of a GAN: both networks, their optimizers, and how far they are."""

    losses = ("discriminator_loss", "generator_loss", "discriminator_accuracy")

    def __init__(self, params: GanTrainParams, job: JobContext, dataset: Dataset) -> None:
        batch_size = fitting_batch(params.batch_size, len(dataset.train), job)
        seed = params.seed or 0
        super().__init__(
            job, dataset, seed=seed, batch_size=batch_size, epochs=params.epochs, steps=params.steps
        )
        self.params = params
        self.look_every = look_every(self.steps_per_epoch, self.total)
        self.config = GanConfig(
            image_size=params.image_size,
            channels=dataset.train.pictures.shape[3],
            latent_dim=params.latent_dim,
            base_channels=params.base_channels,
            batch_norm=params.batch_norm,
            dropout=params.dropout,
            label_names=dataset.label_names,
        )
        self.generator, self.discriminator = build_generator(self.config), build_discriminator(self.config)
        self.steps = CompiledGan(self.generator, self.discriminator, params)
        self.judge = GanJudge(params, job, dataset)
        self.recent = deque[float](maxlen=WON_FOR)  # discriminator losses
        self.frames: list[np.ndarray] = []  # sample grids as the bytes of PNG files
        job.provenance |= {
            "network": self.config.model_dump(),
            "parameters": {
                "generator": self.generator.count_params(),
                "discriminator": self.discriminator.count_params(),
            },
        }

    def variables(self) -> dict[str, Sequence[Any]]:
        # The discriminator's include the state of its dropout.
        return {
            "generator": self.generator.variables,
            "kept": self.steps.kept.variables,
            "discriminator": self.discriminator.variables,
            "generator_optimizer": self.steps.generator_optimizer.variables,
            "discriminator_optimizer": self.steps.discriminator_optimizer.variables,
        }

    def train(self, pictures: tf.Tensor, batches: tf.Tensor, first_step: tf.Tensor) -> tf.Tensor:
        return self.steps.train(pictures, batches, first_step)

    def add_losses(self, losses: np.ndarray) -> None:
        super().add_losses(losses)
        self.recent.extend(losses[:, 0].tolist())
        excess = np.mean(self.recent) - least_discriminator_loss(self.params)
        if len(self.recent) == WON_FOR and excess < WON_BELOW:
            self.warn_once(
                "discriminator_wins",
                f"Over the {WON_FOR} steps up to {self.step} the discriminator's loss was {excess:.4f} above its "
                "least: it tells all pictures apart, and the generator learns nothing from it. Raise dropout or "
                "label_noise, or lower discriminator_learning_rate.",
            )

    def look(self) -> None:
        """Show the pictures of the same latent vectors as ever, and judge those of others."""
        self.save_samples()
        kid, diversity = self.judge(self.steps.kept)
        row = {
            "epoch": self.epoch,
            "step": self.step,
            **self.mean_losses(),
            "kid": kid,
            "diversity": diversity,
        }
        best = min((known["kid"] for known in self.history if known["kid"] is not None), default=math.inf)
        self.history.append(row)
        if kid is not None and kid < best:
            self.job.save_artifact("best.keras", model_bytes(self.steps.kept))
        if self.step in kept_steps(self.look_every, self.total):
            self.job.save_artifact(f"generator-step-{self.step:08d}.keras", model_bytes(self.steps.kept))
        early = self.step < min(HARDLY_TRAINED_STEPS, self.total)
        if diversity is not None and diversity < COLLAPSED_BELOW and not early:
            self.warn_once(
                "diversity_collapsed",
                f"At step {self.step} the generated pictures differ {diversity:.2f} times as much from each other as "
                "real ones do. Go back to a generator of an earlier step (`step` of gan_sample).",
            )

    def save_samples(self) -> None:
        """Leave the grid of samples, and keep it for the animation."""
        columns = min(_MOST_COLUMNS, _GRID_PX // self.config.image_size)
        vectors = latent_vectors(_SHOWN, self.seed, columns**2, self.config.latent_dim)
        grid = picture_grid(generate(self.steps.kept, vectors), columns)
        png = encode_png(grid)
        self.job.save_artifact(f"samples-epoch-{self.epoch:04d}.png", png)
        self.frames.append(np.frombuffer(png, np.uint8))

    def state(self) -> State:
        frames = {f"frame.{index:04d}": frame for index, frame in enumerate(self.frames)}
        return {**super().state(), **frames, "frames": len(self.frames), "recent": list(self.recent)}

    def restore(self, state: State) -> None:
        super().restore(state)
        self.frames = [state[f"frame.{index:04d}"] for index in range(state["frames"])]
        self.recent = deque(state["recent"], maxlen=WON_FOR)

    def save_models(self) -> None:
        """Leave both networks, what is needed to build them again, and the animation."""
        if self.step < HARDLY_TRAINED_STEPS:
            self.warn_once(
                "hardly_trained",
                f"The generator has been trained for {self.step} steps; pictures that look like something take "
                f"{HARDLY_TRAINED_STEPS:,} and more. Give more steps or epochs.",
            )
        self.job.save_artifact("model.keras", model_bytes(self.steps.kept))
        self.job.save_artifact("discriminator.keras", model_bytes(self.discriminator))
        self.job.save_artifact("model.json", self.config.model_dump_json(indent=1).encode())
        if self.frames:
            frames = [np.asarray(Image.open(BytesIO(frame.tobytes()))) for frame in self.frames]
            self.job.save_artifact("samples.webp", animation(frames))
        self.job.summary |= {
            "kept_steps": [row["step"] for row in self.history if row["step"] in self.kept_steps()]
        }

    def kept_steps(self) -> set[int]:
        return kept_steps(self.look_every, self.total)

    def sum_up(self) -> None:
        """Say how good the last generator is, and at which step it was best."""
        judged = [row for row in self.history if row["kid"] is not None]
        best = min(judged, key=lambda row: row["kid"], default=None)
        last = self.history[-1]
        self.job.summary |= {
            "steps": self.step,
            "kid": last["kid"],
            "diversity": last["diversity"],
            "best_step": best and best["step"],
            "best_kid": best and best["kid"],
        }
        if self.judge.floor is not None:
            self.job.summary["kid_of_training_pictures"] = self.judge.floor


class GanJudge:
    """Compares a generator's pictures with held-out ones: KID, and how much they differ among themselves."""

    def __init__(self, params: GanTrainParams, job: JobContext, dataset: Dataset) -> None:
        real = dataset.held_out.pictures[: max(params.kid_pictures, _JUDGED_AT_LEAST)]
        self.real_distance = mean_pairwise_distance(real) if len(real) > 1 else 0.0
        count = params.kid_pictures or _JUDGED_AT_LEAST
        self.vectors = latent_vectors(_JUDGED, params.seed or 0, count, params.latent_dim)
        self.reference: KidReference | None = None
        self.floor: float | None = None
        """KID of as many training pictures: what a perfect generator would have."""
        if params.kid_pictures == 0 or len(real) < 2:
            return
        try:
            job.report(0, 1, "reading the network for the KID")
            self.reference = KidReference(
                params.kid_network, real[: params.kid_pictures], weights_dir=job.settings.weights_dir
            )
        except WeightsUnavailable as error:
            job.warn("kid_left_out", f"No KID: {error.message}")
            return
        job.provenance["kid"] = {
            "network": params.kid_network,
            "weights_sha256": self.reference.weights_sha256,
        }
        self.floor = self.reference.distance(dataset.train.pictures[: params.kid_pictures])

    def __call__(self, generator: keras.Model) -> tuple[float | None, float | None]:
        """KID (None without a network) and diversity: the mean distance of two pictures, that of real ones being 1."""
        pictures = to_uint8(generate(generator, self.vectors))
        kid = self.reference.distance(pictures) if self.reference else None
        diversity = mean_pairwise_distance(pictures) / self.real_distance if self.real_distance else None
        return kid, diversity


class CompiledGan:
    """The steps of a training, many in one compiled call."""

    def __init__(self, generator: keras.Model, discriminator: keras.Model, params: GanTrainParams) -> None:
        self.generator, self.discriminator, self.params = generator, discriminator, params
        self.seed = params.seed or 0
        self.kept = keras.models.clone_model(generator)
        self.kept.set_weights(generator.get_weights())
        self.generator_optimizer = LocalAdam(params.generator_learning_rate, beta_1=params.beta_1)
        self.discriminator_optimizer = LocalAdam(params.discriminator_learning_rate, beta_1=params.beta_1)
        self.generator_optimizer.build(generator.trainable_variables)
        self.discriminator_optimizer.build(discriminator.trainable_variables)
        uint8_pictures = tf.TensorSpec((None, *discriminator.input_shape[1:]), tf.uint8)
        signature = [uint8_pictures, tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((), tf.int32)]
        self.train = tf.function(self._train, signature)

    def _train(self, pictures: tf.Tensor, batches: tf.Tensor, first_step: tf.Tensor) -> tf.Tensor:
        """Take one step for each row of indices (steps, batch); both losses and the accuracy, (steps, 3)."""
        steps = tf.shape(batches)[0]
        told = tf.TensorArray(tf.float32, steps, element_shape=(3,))
        for index in tf.range(steps):
            real = tf.cast(tf.gather(pictures, batches[index]), tf.float32) / 127.5 - 1
            update = self._two_passes if self.params.two_passes else self._one_pass
            told = told.write(index, tf.stack(update(real, first_step + index)))
            self._follow(first_step + index)
        return told.stack()

    def _one_pass(self, real: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Update both networks from the same generated pictures, each as the other was before."""
        with tf.GradientTape() as making:
            fake = self.generator(self._latent(real, _LATENT, step), training=True)
        with tf.GradientTape(persistent=True) as judging:
            judging.watch(fake)
            real_logits, fake_logits = self._judge(real), self._judge(fake)
            discriminator_loss = self._discriminator_loss(real_logits, fake_logits, step)
            generator_loss = self._generator_loss(fake_logits)
        self._update_discriminator(
            judging.gradient(discriminator_loss, self.discriminator.trainable_variables)
        )
        # The chain rule in two parts, so that the generated pictures pass the generator once.
        wished = judging.gradient(generator_loss, fake)
        variables = self.generator.trainable_variables
        self.generator_optimizer.apply(making.gradient(fake, variables, output_gradients=wished), variables)
        return discriminator_loss, generator_loss, accuracy(real_logits, fake_logits)

    def _two_passes(self, real: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Update the discriminator, then the generator from other pictures: the form of Goodfellow et al. (2014)."""
        fake = self.generator(self._latent(real, _LATENT, step), training=True)
        with tf.GradientTape() as judging:
            real_logits, fake_logits = self._judge(real), self._judge(fake)
            discriminator_loss = self._discriminator_loss(real_logits, fake_logits, step)
        self._update_discriminator(
            judging.gradient(discriminator_loss, self.discriminator.trainable_variables)
        )
        with tf.GradientTape() as making:
            fooled = self._judge(self.generator(self._latent(real, _LATENT_AGAIN, step), training=True))
            generator_loss = self._generator_loss(fooled)
        variables = self.generator.trainable_variables
        self.generator_optimizer.apply(making.gradient(generator_loss, variables), variables)
        return discriminator_loss, generator_loss, accuracy(real_logits, fake_logits)

    def _judge(self, pictures: tf.Tensor) -> tf.Tensor:
        # Said aloud, because without it Keras drops nothing here.
        return self.discriminator(pictures, training=True)

    def _latent(self, real: tf.Tensor, stream: int, step: tf.Tensor) -> tf.Tensor:
        return stateless_normal((tf.shape(real)[0], self.params.latent_dim), self.seed, stream, step)

    def _discriminator_loss(
        self, real_logits: tf.Tensor, fake_logits: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        shape, smoothing = (
            tf.shape(real_logits),
            {"real_label": self.params.real_label, "label_noise": self.params.label_noise},
        )
        real = noisy_targets(stateless_uniform(shape, self.seed, _REAL_NOISE, step), real=True, **smoothing)
        fake = noisy_targets(stateless_uniform(shape, self.seed, _FAKE_NOISE, step), real=False, **smoothing)
        return tf.reduce_mean(cross_entropy(real, real_logits)) + tf.reduce_mean(
            cross_entropy(fake, fake_logits)
        )

    def _generator_loss(self, fake_logits: tf.Tensor) -> tf.Tensor:
        """Non-saturating: the generator wants its pictures called real, whatever smoothing the real ones have."""
        return tf.reduce_mean(cross_entropy(1.0, fake_logits))

    def _update_discriminator(self, gradients: list[tf.Tensor]) -> None:
        self.discriminator_optimizer.apply(gradients, self.discriminator.trainable_variables)

    def _follow(self, step: tf.Tensor) -> None:
        """Move the generator that is kept towards the trained one: an average over the last steps."""
        done = tf.cast(step, tf.float32)
        # Faster at the start, so that the first, untrained weights are soon forgotten.
        decay = tf.minimum(self.params.ema, (1 + done) / (10 + done))
        for kept, trained in zip(self.kept.variables, self.generator.variables, strict=True):
            kept.assign(decay * kept + (1 - decay) * trained)


def accuracy(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """The share of pictures that the discriminator puts on the right side."""
    right = tf.concat([real_logits > 0, fake_logits < 0], axis=0)
    return tf.reduce_mean(tf.cast(right, tf.float32))


def least_discriminator_loss(params: GanTrainParams) -> float:
    """The loss of a discriminator that knows which pictures are real and predicts each side's mean label."""
    uniform = (np.arange(1000) + 0.5) / 1000
    loss = 0.0
    for real in (True, False):
        target = noisy_targets(
            uniform, real=real, real_label=params.real_label, label_noise=params.label_noise
        )
        mean = float(np.mean(np.asarray(target)))
        loss -= sum(share * math.log(share) for share in (mean, 1 - mean) if share > 0)
    return loss


def look_every(steps_per_epoch: int, total: int) -> int:
    """Steps from one look to the next: whole epochs, at least a hundred steps, at most a hundred looks."""
    least = max(_LEAST_STEPS_APART, total / _MOST_LOOKS)
    return steps_per_epoch * math.ceil(least / steps_per_epoch)


def kept_steps(look_every: int, total: int) -> set[int]:
    """The steps whose generators are kept, so that one can go back: some looks evenly apart, and the last."""
    looks = total // look_every
    apart = look_every * max(1, math.ceil(looks / (_MOST_KEPT - 1)))
    return {*range(apart, total + 1, apart), total}


def latent_vectors(stream: int, seed: int, count: int, latent_dim: int) -> np.ndarray:
    """Draws from the prior (count, latent_dim) that depend on stream and seed alone."""
    return np.random.default_rng([stream, seed]).standard_normal((count, latent_dim), dtype=np.float32)
