"""The built-in sets of pictures: where their files lie, where they come from, how they are read."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.datasets import BUILT_IN
from shared.errors import DataUnavailable
from tasks.dataset import Dataset, LabelledPictures
from tasks.download import DownloadFailed, download

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's `dataset-fashion-mnist` puts its files."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of a set as its authors or Keras publish it."""

    name: str
    url: str
    sha256: str


# Fashion-MNIST's sums are of the unpacked files: Debian packed them anew. They were taken from Debian's package
# 0.0~git20200523; MNIST's is the one in keras.datasets; CIFAR-10's is that of the binary version, which needs no
# unpickling (its authors publish the MD5 c32a1d4ab5d03f1284b67883e8d87530 of the same file).
_FASHION_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
_MNIST = SourceFile(
    name="mnist.npz",
    url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    sha256="731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
)
_CIFAR10 = SourceFile(
    name="cifar-10-binary.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def load_built_in(name: str, folder: Path) -> Dataset:
    """Read a built-in set at its own size; files that are not here are fetched to `folder` and kept.

    Raises:
        DataUnavailable: a file is neither here nor to be had; the message says where to put it.
    """
    train, held_out = _LOADERS[name](folder)
    return Dataset(train=train, held_out=held_out, label_names=BUILT_IN[name].classes)


def _load_digits(folder: Path) -> tuple[LabelledPictures, None]:
    from sklearn.datasets import load_digits  # slow to import, and most jobs need none of it

    digits = load_digits()
    pictures = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # published as 0 to 16
    return LabelledPictures(pictures=pictures[..., np.newaxis], labels=digits.target), None


def _load_fashion_mnist(folder: Path) -> tuple[LabelledPictures, LabelledPictures]:
    def part(prefix: str) -> LabelledPictures:
        pictures = _fashion_file(folder, f"{prefix}-images-idx3-ubyte.gz", header_bytes=16)
        labels = _fashion_file(folder, f"{prefix}-labels-idx1-ubyte.gz", header_bytes=8)
        return LabelledPictures(pictures=pictures.reshape(-1, 28, 28, 1), labels=labels.astype(np.int64))

    return part("train"), part("t10k")


def _fashion_file(folder: Path, name: str, *, header_bytes: int) -> np.ndarray:
    path = DEBIAN_FASHION_MNIST / name
    if not path.exists():
        path = folder / "fashion-mnist" / name
        # Compared after unpacking, below, since the sums are of the unpacked files.
        _obtain(SourceFile(name=name, url=_FASHION_URL + name, sha256=""), path)
    try:
        unpacked = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataUnavailable(f"{path} is no gzip file. Put {_FASHION_URL}{name} there.") from error
    if hashlib.sha256(unpacked).hexdigest() != _FASHION_SHA256[name]:
        raise DataUnavailable(f"{path} is not the published file. Put {_FASHION_URL}{name} there.")
    return np.frombuffer(unpacked, np.uint8, offset=header_bytes)


def _load_mnist(folder: Path) -> tuple[LabelledPictures, LabelledPictures]:
    path = folder / _MNIST.name
    _obtain(_MNIST, path)
    with np.load(path, allow_pickle=False) as arrays:
        return tuple(
            LabelledPictures(pictures=arrays[f"x_{part}"][..., np.newaxis], labels=arrays[f"y_{part}"].astype(np.int64))
            for part in ("train", "test")
        )


def _load_cifar10(folder: Path) -> tuple[LabelledPictures, LabelledPictures]:
    path = folder / _CIFAR10.name
    _obtain(_CIFAR10, path)
    with tarfile.open(path) as archive:
        read = {
            Path(member.name).name: archive.extractfile(member).read()
            for member in archive
            if member.name.endswith("_batch.bin") or "data_batch_" in member.name
        }
    train = b"".join(read[f"data_batch_{number}.bin"] for number in range(1, 6))
    return _cifar_records(train), _cifar_records(read["test_batch.bin"])


def _cifar_records(records: bytes) -> LabelledPictures:
    """Records of a label byte and 3 x 32 x 32 values, all red ones first."""
    rows = np.frombuffer(records, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    pictures = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return LabelledPictures(pictures=np.ascontiguousarray(pictures), labels=rows[:, 0].astype(np.int64))


def _obtain(source: SourceFile, path: Path) -> None:
    """Have the file at `path`, fetched if need be, with the published sum."""
    try:
        download(source.url, path, sha256=source.sha256)
    except DownloadFailed as error:
        sum_ = f" (sha256 {source.sha256})" if source.sha256 else ""
        raise DataUnavailable(
            f"{source.name} is not here and cannot be fetched ({error}). Put the file of {source.url}{sum_} at {path}."
        ) from error


_LOADERS: dict[str, Callable[[Path], tuple[LabelledPictures, LabelledPictures | None]]] = {
    "digits": _load_digits,
    "fashion_mnist": _load_fashion_mnist,
    "mnist": _load_mnist,
    "cifar10": _load_cifar10,
}
