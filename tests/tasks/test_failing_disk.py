"""A file that the operating system will not read is never told as a damaged one."""

import builtins
import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import keras
import pytest

from shared.datasets import inspect_dataset
from shared.errors import StorageUnavailable, WeightsUnavailable
from shared.pictures import inspect_picture
from tasks.model_file import load_arrays
from tasks.networks.pretrained import load
from tasks.weights_file import read_arrays

BAD_DISK = "/proc/self/mem"
"""A read at the beginning of this file is an input/output error, for h5py too, which reads by itself."""


class Unreadable(io.FileIO):
    """A file on a bad disk, as Python's own readers see it."""

    def seek(self, *_: Any) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    read = seek


def network() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "an array file of a user": ("model.npz", lambda path: read_arrays(path, field="weights")),
    "weights of a user": ("model.weights.h5", lambda path: read_arrays(path, field="weights")),
    "a model of a user": ("model.keras", lambda path: read_arrays(path, field="weights")),
    "a model of ours": ("model.keras", lambda path: load_arrays(network(), path)),
    "a picture": ("picture.png", lambda path: inspect_picture(path, max_pixels=1000)),
    "an archive": ("data", lambda path: inspect_dataset(path, max_pixels=1000)),
}


@pytest.mark.parametrize(("name", "read"), READERS.values(), ids=READERS)
def test_a_bad_disk_is_not_told_as_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, read: Callable[[Path], Any]
):
    path = tmp_path / name
    path.symlink_to(BAD_DISK)
    for place in (io, builtins):
        monkeypatch.setattr(place, "open", lambda file, *_: Unreadable(file))

    with pytest.raises(StorageUnavailable, match="Input/output error"):
        read(path)


@pytest.mark.parametrize(("name", "read"), READERS.values(), ids=READERS)
def test_a_folder_in_a_files_place_is_not_told_as_a_damaged_file(
    tmp_path: Path, name: str, read: Callable[[Path], Any]
):
    path = tmp_path / name
    path.mkdir()

    with pytest.raises(StorageUnavailable, match="Is a directory"):
        read(path)


def test_weights_on_a_bad_disk_are_not_told_as_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "squeezenet.weights.h5"
    path.touch()
    monkeypatch.setattr(io, "open", lambda file, *_: Unreadable(file))

    with pytest.raises(WeightsUnavailable, match=r"cannot be read: Input/output error"):
        load("squeezenet", ["fire2"], weights_dir=tmp_path)
