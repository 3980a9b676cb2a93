"""All that is needed to resume, as one file: named arrays, and plain values beside them."""

import io
import json
import zipfile
from typing import Any

import numpy as np

_VALUES = "__values__"


def encode(state: dict[str, Any]) -> bytes:
    """A state of arrays and JSON values as the bytes of an `.npz`.

    Raises:
        TypeError: a value is neither an array nor JSON (nothing is ever pickled).
    """
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    values = {name: value for name, value in state.items() if name not in arrays}
    plain = json.dumps(values, default=_number).encode()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{_VALUES: np.frombuffer(plain, np.uint8)})
    return buffer.getvalue()


def decode(data: bytes) -> dict[str, Any]:
    """The state that `encode` was given.

    Raises:
        ValueError: these bytes are no checkpoint.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"not a checkpoint: {error}") from error
    values = json.loads(arrays.pop(_VALUES).tobytes())
    return {**arrays, **values}


def _number(value: Any) -> Any:
    """NumPy's scalars are numbers too."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a checkpoint holds arrays and JSON values, not {type(value).__name__}")
