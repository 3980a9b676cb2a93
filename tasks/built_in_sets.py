"""The built-in sets of pictures: where their files lie, where they come from, how they are read."""

import gzip
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.datasets import BUILT_IN
from shared.errors import DataUnavailable
from tasks.dataset import Dataset, LabelledPictures
from tasks.download import Checksum, DownloadFailed, OnFetched, download

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's `dataset-fashion-mnist` puts its files."""

_KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"

GetFile = Callable[[str], Path]
"""Gives the local path of a published file, which is fetched if need be."""


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """One file of a set, as its authors or Keras publish it."""

    url: str
    sha256: str
    unpacked: bool = False
    """Whether the sum is of what the gzip file holds: Debian packed Fashion-MNIST anew."""
    packaged: Path | None = None
    """Where a package of the operating system has it."""


def _fashion_mnist(name: str, sha256: str) -> PublishedFile:
    packaged = DEBIAN_FASHION_MNIST / name
    return PublishedFile(url=f"{_KERAS_URL}/{name}", sha256=sha256, unpacked=True, packaged=packaged)


# The sums: Fashion-MNIST's are of Debian's package 0.0~git20200523, MNIST's is the one in keras.datasets, CIFAR-10's
# is that of the binary version, which needs no unpickling (its authors publish the MD5 of the same file,
# c32a1d4ab5d03f1284b67883e8d87530).
PUBLISHED = {
    "fashion-mnist/train-images-idx3-ubyte.gz": _fashion_mnist(
        "train-images-idx3-ubyte.gz", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "fashion-mnist/train-labels-idx1-ubyte.gz": _fashion_mnist(
        "train-labels-idx1-ubyte.gz", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "fashion-mnist/t10k-images-idx3-ubyte.gz": _fashion_mnist(
        "t10k-images-idx3-ubyte.gz", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "fashion-mnist/t10k-labels-idx1-ubyte.gz": _fashion_mnist(
        "t10k-labels-idx1-ubyte.gz", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
    "mnist.npz": PublishedFile(
        url=f"{_KERAS_URL}/mnist.npz",
        sha256="731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    ),
    "cifar-10-binary.tar.gz": PublishedFile(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
}


def load_built_in(name: str, folder: Path, on_fetched: OnFetched) -> Dataset:
    """Read a built-in set at its own size; files that are not here are fetched to `folder` and kept.

    Raises:
        DataUnavailable: a file is neither here nor to be had; the message says where to put it.
    """
    train, held_out = _LOADERS[name](lambda file: find(file, folder, on_fetched))
    return Dataset(train=train, held_out=held_out, label_names=BUILT_IN[name].classes)


def find(name: str, folder: Path, on_fetched: OnFetched) -> Path:
    """The local path of a published file, checked.

    Raises:
        DataUnavailable: it is neither here nor to be had, or another file is in its place.
    """
    file = PUBLISHED[name]
    checksum = Checksum("sha256", file.sha256, file.unpacked)
    path = file.packaged if file.packaged and file.packaged.exists() else folder / name
    try:
        download(file.url, path, checksum, on_fetched)
    except DownloadFailed as error:
        raise DataUnavailable(
            f"{name} is not here: put the file of {file.url} at {path.absolute()} (download: {error})."
        ) from error
    if not checksum.fits(path):
        raise DataUnavailable(f"{path.absolute()} is not the published file: put that of {file.url} there.")
    return path


def _load_digits(get: GetFile) -> tuple[LabelledPictures, None]:
    from sklearn.datasets import load_digits  # slow to import, and most jobs need none of it

    digits = load_digits()
    pictures = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # published as 0 to 16
    return LabelledPictures(pictures=pictures[..., np.newaxis], labels=digits.target), None


def _load_fashion_mnist(get: GetFile) -> tuple[LabelledPictures, LabelledPictures]:
    def part(prefix: str) -> LabelledPictures:
        pictures = read(f"{prefix}-images-idx3-ubyte.gz", header_bytes=16).reshape(-1, 28, 28, 1)
        labels = read(f"{prefix}-labels-idx1-ubyte.gz", header_bytes=8)
        return LabelledPictures(pictures=pictures, labels=labels.astype(np.int64))

    def read(name: str, header_bytes: int) -> np.ndarray:
        unpacked = gzip.decompress(get(f"fashion-mnist/{name}").read_bytes())
        return np.frombuffer(unpacked, np.uint8, offset=header_bytes)

    return part("train"), part("t10k")


def _load_mnist(get: GetFile) -> tuple[LabelledPictures, LabelledPictures]:
    with np.load(get("mnist.npz"), allow_pickle=False) as arrays:
        train, test = (
            LabelledPictures(
                pictures=arrays[f"x_{part}"][..., np.newaxis], labels=arrays[f"y_{part}"].astype(np.int64)
            )
            for part in ("train", "test")
        )
    return train, test


def _load_cifar10(get: GetFile) -> tuple[LabelledPictures, LabelledPictures]:
    with tarfile.open(get("cifar-10-binary.tar.gz")) as archive:
        read = {
            Path(member.name).name: archive.extractfile(member).read()
            for member in archive
            if member.isfile()
        }
    train = b"".join(read[f"data_batch_{number}.bin"] for number in range(1, 6))
    return cifar_records(train), cifar_records(read["test_batch.bin"])


def cifar_records(records: bytes) -> LabelledPictures:
    """Read records of CIFAR-10's binary version: a label byte, then 32 x 32 values of red, of green, of blue."""
    rows = np.frombuffer(records, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    pictures = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return LabelledPictures(pictures=np.ascontiguousarray(pictures), labels=rows[:, 0].astype(np.int64))


_LOADERS: dict[str, Callable[[GetFile], tuple[LabelledPictures, LabelledPictures | None]]] = {
    "digits": _load_digits,
    "fashion_mnist": _load_fashion_mnist,
    "mnist": _load_mnist,
    "cifar10": _load_cifar10,
}
