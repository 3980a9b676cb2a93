"""Files of weights that users bring, read as nothing but numbers."""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from shared.errors import InvalidInput
from shared.storage import blame_file_system

LARGEST_BYTES = 1 << 32
"""Of the arrays of one file; what claims to hold more is refused before it is unpacked."""

_WEIGHTS = "model.weights.h5"
_NOT_WEIGHTS = re.compile(r"(^|/)(optimizer|seed_generator|metrics?)(/|$)")


def read_arrays(path: Path, *, field: str) -> dict[str, np.ndarray]:
    """The float arrays of a `.keras`, `.weights.h5` or `.npz` file by their path in it, layers in natural order.

    No model is built and no code of the file is run; an optimizer's state is left out.

    Raises:
        InvalidInput: it is none of these, is damaged, too large, or points to other files; `field` names it.
        StorageUnavailable: the file system fails, whatever the file holds.
    """
    try:
        arrays = _read(path)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, MemoryError) as error:
        blame_file_system(error)
        raise InvalidInput(
            f"not a file of weights (.keras, .weights.h5 or .npz): {error}", field=field
        ) from error
    kept = [name for name in arrays if not _NOT_WEIGHTS.search(name) and arrays[name].dtype.kind == "f"]
    return {name: arrays[name] for name in sorted(kept, key=_natural)}


def _read(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        with h5py.File(path, "r") as file:
            return dict(_datasets(file))
    with zipfile.ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
        if claimed > LARGEST_BYTES:
            raise ValueError(f"it unpacks to {claimed} bytes")
        if _WEIGHTS in archive.namelist():
            with h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as file:
                return dict(_datasets(file))
        return {name.removesuffix(".npy"): _npy(archive, name) for name in archive.namelist()}


def _npy(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an `.npz`. Its header is believed only as far as there are bytes."""
    data = archive.read(name)
    stream = io.BytesIO(data)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read_header[np.lib.format.read_magic(stream)](stream)
    if int(np.prod(shape, dtype=object)) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"{name} does not hold what its header says")
    return np.load(io.BytesIO(data), allow_pickle=False)


def _datasets(group: h5py.Group, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays below a group. Links to other files, and data in other files, are what HDF5 could be abused for."""
    if depth > 16:
        raise ValueError("its groups are nested too deep")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{prefix}{name} is a link")
        found = group[name]
        if isinstance(found, h5py.Group):
            yield from _datasets(found, f"{prefix}{name}/", depth + 1)
        elif isinstance(found, h5py.Dataset):
            if found.external or found.is_virtual:
                raise ValueError(f"{prefix}{name} lies in another file")
            if found.nbytes > LARGEST_BYTES:
                raise ValueError(f"{prefix}{name} claims {found.nbytes} bytes")
            yield f"{prefix}{name}", found[()]


def _natural(name: str) -> list[str | int]:
    """`lstm_10` after `lstm_9`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
