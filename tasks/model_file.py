"""Networks as `.keras` files: the same weights give the same bytes, and nothing of a file but its arrays is used."""

import io
import json
import re
import tempfile
import warnings
import zipfile
from pathlib import Path

import keras

from shared.errors import InvalidInput
from shared.storage import blame_file_system

_SHARED = re.compile(rb'("shared_object_id": )(\d+)')
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold


def model_bytes(model: keras.Model) -> bytes:
    """A network of built-in layers as a `.keras` file, without the time of writing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        written = io.BytesIO()
        with zipfile.ZipFile(path) as dated, zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as undated:
            for name in sorted(dated.namelist()):
                undated.writestr(zipfile.ZipInfo(name, _EPOCH), _repeatable(name, dated.read(name)))
    return written.getvalue()


def _repeatable(name: str, content: bytes) -> bytes:
    """A file of the archive without the time of writing, and without places in this process' memory."""
    if name == "metadata.json":
        return json.dumps(json.loads(content) | {"date_saved": ""}).encode()
    if name == "config.json":
        # Keras tells objects that several layers share (an LSTM and its cell: the initializers) by their address.
        numbers: dict[bytes, int] = {}
        return _SHARED.sub(
            lambda found: found[1] + b"%d" % numbers.setdefault(found[2], len(numbers)), content
        )
    return content


def load_arrays(model: keras.Model, path: Path) -> None:
    """Give a network that we have built the arrays of a `.keras` file; the network in the file is not looked at.

    Raises:
        InvalidInput: the file holds another network's arrays, or none.
        StorageUnavailable: the file system fails, whatever the file holds.
    """
    try:
        with warnings.catch_warnings():
            # Keras warns of containers of its own that hold no arrays.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            model.load_weights(path)
    # h5py and Keras raise nearly anything for a file that is cut off or belongs to another network.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        blame_file_system(error)
        raise InvalidInput(
            f"{path.name} does not hold the arrays of this network.", field="model_job"
        ) from error
