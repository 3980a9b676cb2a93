"""A deep convolutional GAN (Radford et al., 2015, arXiv 1511.06434), of built-in layers alone."""

from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops
from pydantic import BaseModel, ConfigDict

KERNEL, STRIDE = 4, 2
"""The kernel is a multiple of the stride, so that every pixel is reached equally often: no checkerboard."""
SLOPE = 0.2
MOST_DOUBLINGS = 3
"""Channels double with each halving of the picture up to base_channels * 2**3."""

_INITIALIZER_STD = 0.02  # Radford et al. (2015), section 4


class GanConfig(BaseModel):
    """All that is needed to build both networks again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: Literal[32, 64, 96, 128]
    channels: Literal[1, 3]
    latent_dim: int
    base_channels: int
    batch_norm: bool
    dropout: float
    label_names: tuple[str, ...] = ()

    @property
    def halvings(self) -> int:
        """How often the discriminator halves a picture, to 4 px (6 px for 96)."""
        return {32: 3, 64: 4, 96: 4, 128: 5}[self.image_size]

    @property
    def filters(self) -> list[int]:
        """Channels of the discriminator's layers; the generator's in reverse."""
        return [self.base_channels * 2 ** min(index, MOST_DOUBLINGS) for index in range(self.halvings)]


def build_generator(config: GanConfig) -> keras.Model:
    """Latent vectors (batch, latent_dim) -> pictures (batch, image_size, image_size, channels) in [-1, 1]."""
    filters = config.filters[::-1]
    side = config.image_size // 2**config.halvings
    latent = keras.Input((config.latent_dim,), name="latent")
    use_bias = not config.batch_norm  # which has one of its own
    x = layers.Dense(
        side * side * filters[0], use_bias=use_bias, kernel_initializer=_initializer(), name="dense"
    )(latent)
    x = layers.Reshape((side, side, filters[0]), name="planes")(x)
    x = _activate(x, config, 0)
    for number, count in enumerate(filters[1:], start=1):
        x = _activate(_upscale(x, count, number, use_bias=use_bias), config, number)
    x = _upscale(x, config.channels, len(filters), use_bias=True)
    return keras.Model(latent, layers.Activation("tanh", dtype="float32", name="pixels")(x), name="generator")


def build_discriminator(config: GanConfig) -> keras.Model:
    """Pictures (batch, image_size, image_size, channels) in [-1, 1] -> logits (batch, 1), above 0 for real ones.

    It has no batch normalization: each picture is judged by itself.
    """
    picture = keras.Input((config.image_size, config.image_size, config.channels), name="picture")
    x = picture
    for number, count in enumerate(config.filters, start=1):
        x = layers.Conv2D(
            count, KERNEL, STRIDE, padding="same", kernel_initializer=_initializer(), name=f"conv{number}"
        )(x)
        x = layers.LeakyReLU(negative_slope=SLOPE, name=f"relu{number}")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    return keras.Model(picture, layers.Dense(1, dtype="float32", name="logits")(x), name="discriminator")


def _upscale(x: Any, channels: int, number: int, *, use_bias: bool) -> Any:
    return layers.Conv2DTranspose(
        channels,
        KERNEL,
        STRIDE,
        padding="same",
        use_bias=use_bias,
        kernel_initializer=_initializer(),
        name=f"upconv{number}",
    )(x)


def _activate(x: Any, config: GanConfig, number: int) -> Any:
    if config.batch_norm:
        x = layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(x)
    return layers.LeakyReLU(negative_slope=SLOPE, name=f"relu{number}")(x)


def _initializer() -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=_INITIALIZER_STD)


def generate(generator: keras.Model, vectors: np.ndarray, batch: int = 100) -> np.ndarray:
    """Latent vectors (n, d) -> pictures (n, side, side, channels) in 0..255."""
    batches = [vectors[first : first + batch].astype(np.float32) for first in range(0, len(vectors), batch)]
    return (np.concatenate([generator(part, training=False).numpy() for part in batches]) + 1) * 127.5


def cross_entropy(targets: Any, logits: Any) -> Any:
    """Binary cross-entropy of each logit (batch, 1) against a target in [0, 1]; finite for every logit."""
    return ops.relu(logits) - logits * targets + ops.softplus(-ops.abs(logits))


def noisy_targets(uniform: Any, *, real: bool, real_label: float, label_noise: float) -> Any:
    """What the discriminator should say: a little noise, always towards the other side, and never outside [0, 1].

    Outside, the cross-entropy would have no lower bound. Only real pictures' labels are smoothed: a smoothed label of
    a generated picture would reward what it already looks like (Salimans et al., 2016, arXiv 1606.03498).
    """
    target = real_label - label_noise * uniform if real else label_noise * uniform
    return ops.clip(target, 0.0, 1.0)
