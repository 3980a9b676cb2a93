"""ImageNet networks by name: truncated, frozen, with real weights, and kept for the next job of this process."""

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from shared.errors import WeightsUnavailable
from shared.networks import NETWORKS
from tasks.download import OnFetched
from tasks.networks import weights
from tasks.networks.pooling import BinomialPooling, BlockMaxPooling
from tasks.networks.squeezenet import build_squeezenet, set_packaged_weights

Pooling = Literal["max", "average"]

_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)
"""Mean colour of ImageNet, which the networks that came from Caffe take off."""


@dataclass(frozen=True, eq=False)
class PretrainedNetwork:
    """A frozen network up to the last layer that is asked for; shared by all jobs of the process."""

    name: str
    layers: tuple[str, ...]
    """In the order in which a picture passes them."""
    model: keras.Model
    """Preprocessed pictures (batch, height, width, 3) -> {layer: (batch, height, width, channels)}."""
    weights_sha256: str

    def activations(self, pictures: Any) -> dict[str, Any]:
        """RGB pictures in 0..255 (batch, height, width, 3) -> each layer's activations; differentiable."""
        return self.model(preprocess(self.name, pictures), training=False)

    @cached_property
    def written_for_xla(self) -> "PretrainedNetwork":
        """The same layers and weights, in the form that is the faster one where XLA compiles for a CPU."""
        model = keras.models.clone_model(self.model, clone_function=_with_block_max_pooling)
        return replace(self, model=model)


def load(
    name: str,
    layers: Iterable[str],
    *,
    weights_dir: Path,
    pooling: Pooling = "max",
    on_fetched: OnFetched | None = None,
) -> PretrainedNetwork:
    """Network `name` down to the last of `layers`, with its ImageNet weights.

    `pooling="average"` replaces each max-pooling, as Gatys et al. (2015) found to give smoother pictures.
    The same arguments give the same object as long as the weights file stays the same.

    Raises:
        WeightsUnavailable: the weights are not to be had, or their file is damaged.
    """
    path = weights.find(name, weights_dir, on_fetched)
    version = path.stat().st_mtime_ns
    return _truncated(name, NETWORKS[name].in_order(layers), pooling, path.absolute(), version)


def preprocess(name: str, pictures: Any) -> Any:
    """RGB in 0..255 (..., 3) -> the values and channel order that the network was trained on."""
    if NETWORKS[name].preprocessing == "tf":
        return pictures / 127.5 - 1.0
    return pictures[..., ::-1] - _MEAN_BGR


def deprocess(name: str, values: Any) -> Any:
    """The inverse of `preprocess`; not clipped, not rounded."""
    if NETWORKS[name].preprocessing == "tf":
        return (values + 1.0) * 127.5
    return (values + _MEAN_BGR)[..., ::-1]


# `version` is the weights file's time: a file that an operator replaces is read again.
@lru_cache(maxsize=16)
def _truncated(
    name: str, layers: tuple[str, ...], pooling: Pooling, path: Path, version: int
) -> PretrainedNetwork:
    whole, sha256 = _whole(name, pooling, path, version)
    # A dict, since Keras may return a bare tensor for a list of one output.
    outputs = {layer: whole.get_layer(layer).output for layer in layers}
    return PretrainedNetwork(name, layers, keras.Model(whole.input, outputs), sha256)


@lru_cache(maxsize=4)
def _whole(name: str, pooling: Pooling, path: Path, version: int) -> tuple[keras.Model, str]:
    """The network without its classifier, and the SHA-256 of its weights file."""
    model = build(name)
    sha256 = _read_weights(model, name, path)
    if pooling == "average":
        average = keras.models.clone_model(model, clone_function=_with_average_pooling)
        average.set_weights(model.get_weights())
        model = average
    model.trainable = False
    return model, sha256


def build(name: str) -> keras.Model:
    """The network without its classifier, for pictures of any size, with random weights."""
    if name == "squeezenet":
        return build_squeezenet()
    builders = {
        "inception_v3": keras.applications.InceptionV3,
        "vgg16": keras.applications.VGG16,
        "vgg19": keras.applications.VGG19,
    }
    return builders[name](include_top=False, weights=None, input_shape=(None, None, 3))


def _read_weights(model: keras.Model, name: str, path: Path) -> str:
    """Give `model` the weights in `path`; returns the file's SHA-256."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsUnavailable(f"{path} cannot be read: {error.strerror}") from error
    try:
        if path.suffix == ".pkl":
            set_packaged_weights(model, content)
        else:
            with warnings.catch_warnings():
                # Layers that the file has nothing for would keep their random weights, with a warning only.
                warnings.simplefilter("error", UserWarning)
                model.load_weights(path)
    # h5py and Keras raise nearly anything for a file that is cut off or belongs to another network.
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, UserWarning) as error:
        raise WeightsUnavailable(
            f"{path} does not hold the weights of {name} without its classifier, or is damaged "
            f"({_first_line(error)}). Delete it, and put {name}.weights.h5 in its place."
        ) from error
    return hashlib.sha256(content).hexdigest()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _with_average_pooling(layer: keras.Layer) -> keras.Layer:
    config = layer.get_config()
    if isinstance(layer, keras.layers.MaxPooling2D):
        overlaps = tuple(layer.pool_size) == (3, 3) and tuple(layer.strides) == (2, 2)
        return (BinomialPooling if overlaps else keras.layers.AveragePooling2D).from_config(config)
    return type(layer).from_config(config)


def _with_block_max_pooling(layer: keras.Layer) -> keras.Layer:
    # Any other layer is the same object in both models, and its weights are there once.
    return BlockMaxPooling.from_config(layer.get_config()) if BlockMaxPooling.suits(layer) else layer
