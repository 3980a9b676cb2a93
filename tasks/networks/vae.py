"""A convolutional variational autoencoder (Kingma and Welling, 2013, arXiv 1312.6114), of built-in layers alone."""

from typing import Any, Literal

import keras
from keras import layers, ops
from pydantic import BaseModel, ConfigDict

LOG_VAR_BOUND = 10.0
"""log_var stays between minus and plus this, so that exp(log_var) can neither overflow nor vanish."""

_FILTERS = {"book": (32, 64), "deep": (32, 64, 128, 256)}
_DENSE = {"book": 16, "deep": 256}


class VaeConfig(BaseModel):
    """All that is needed to build the network again, and to prepare pictures for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int
    width: int
    channels: Literal[1, 3]
    latent_dim: int
    architecture: Literal["book", "deep"]
    fit: Literal["crop", "pad"]
    label_names: tuple[str, ...] = ()

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a picture, in and out."""
        return self.height, self.width, self.channels


def build_vae(config: VaeConfig) -> keras.Model:
    """Pictures (batch, height, width, channels) in [0, 1] -> [mean, log_var, reconstruction of the mean].

    Its layers "encoder" (pictures -> mean, log_var) and "decoder" (latent vectors -> pictures in [0, 1]) are
    networks of their own. Every layer has a name, so that a process which has built others before writes the same
    file. The last layer of the decoder is its sigmoid; `decoder_logits` is what lies before it.
    """
    encoder, decoder = build_encoder(config), build_decoder(config)
    picture = keras.Input(config.picture_shape, name="picture")
    mean, log_var = encoder(picture)
    return keras.Model(picture, [mean, log_var, decoder(mean)], name="vae")


def build_encoder(config: VaeConfig) -> keras.Model:
    """Pictures (batch, height, width, channels) in [0, 1] -> mean, log_var, each (batch, latent_dim)."""
    picture = keras.Input(config.picture_shape, name="picture")
    x = layers.ZeroPadding2D(_padding(config), name="padding")(picture)
    for number, count in enumerate(_FILTERS[config.architecture], start=1):
        x = layers.Conv2D(count, 3, strides=2, padding="same", activation="relu", name=f"conv{number}")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(_dense_units(config), activation="relu", name="dense")(x)
    mean = layers.Dense(config.latent_dim, name="mean")(x)
    log_var = layers.Dense(config.latent_dim, name="free_log_var")(x)
    # Bounded smoothly, so that a log_var at its bound still has a gradient back; around 0 it is left as it is.
    log_var = layers.Rescaling(1 / LOG_VAR_BOUND, name="scaled_log_var")(log_var)
    log_var = layers.Activation("tanh", name="bounded_log_var")(log_var)
    log_var = layers.Rescaling(LOG_VAR_BOUND, name="log_var")(log_var)
    return keras.Model(picture, [mean, log_var], name="encoder")


def build_decoder(config: VaeConfig) -> keras.Model:
    """Latent vectors (batch, latent_dim) -> pictures (batch, height, width, channels) in [0, 1]."""
    filters = _FILTERS[config.architecture]
    stride = 2 ** len(filters)
    rows, columns = -(-config.height // stride), -(-config.width // stride)
    latent = keras.Input((config.latent_dim,), name="latent")
    x = layers.Dense(rows * columns * filters[-1], activation="relu", name="dense")(latent)
    x = layers.Reshape((rows, columns, filters[-1]), name="planes")(x)
    for number, count in enumerate(reversed(filters), start=1):
        x = layers.Conv2DTranspose(
            count, 3, strides=2, padding="same", activation="relu", name=f"upconv{number}"
        )(x)
    x = layers.Conv2DTranspose(config.channels, 3, padding="same", name="uncropped_logits")(x)
    x = layers.Cropping2D(_padding(config), name="logits")(x)
    return keras.Model(latent, layers.Activation("sigmoid", name="pixels")(x), name="decoder")


def decoder_logits(decoder: keras.Model) -> keras.Model:
    """The decoder without its sigmoid: latent vectors -> logits, from which the loss stays finite."""
    return keras.Model(decoder.input, decoder.get_layer("logits").output, name="decoder_logits")


def _padding(config: VaeConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns to put around a picture so that each halving finds an even number."""
    stride = 2 ** len(_FILTERS[config.architecture])
    rows, columns = -config.height % stride, -config.width % stride
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def _dense_units(config: VaeConfig) -> int:
    # The book's 16 would be a narrower neck than a latent vector of more.
    return max(_DENSE[config.architecture], 4 * config.latent_dim)


def kl_divergence(mean: Any, log_var: Any) -> Any:
    """KL(N(mean, exp(log_var)) || N(0, 1)) in nats, summed over the latent vector: (batch, d) -> (batch,)."""
    return -0.5 * ops.sum(1 + log_var - ops.square(mean) - ops.exp(log_var), axis=-1)


def sample_latent(mean: Any, log_var: Any, noise: Any) -> Any:
    """z = mean + standard deviation * noise; log_var is the logarithm of the variance, hence the half."""
    return mean + ops.exp(0.5 * log_var) * noise


def reconstruction_loss(pictures: Any, logits: Any, form: str) -> Any:
    """What a reconstruction costs, summed over the picture: (batch, h, w, c) twice -> (batch,).

    `bce` is the cross-entropy of each value, taken as a probability, in nats. `mse` sums squared differences: up to
    a constant the nats of a Gaussian with variance 1/2.
    """
    if form == "bce":
        # max(l, 0) - l x + log(1 + exp(-|l|)): exact and finite for every logit.
        values = ops.relu(logits) - logits * pictures + ops.softplus(-ops.abs(logits))
    else:
        values = ops.square(pictures - ops.sigmoid(logits))
    return ops.sum(values, axis=(1, 2, 3))
