"""Sets of training pictures, judged without TensorFlow: what is built in, what an archive holds, what is refused."""

import ast
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import PurePosixPath

from shared.errors import InvalidInput
from shared.pictures import open_picture
from shared.storage import blame_file_system

MAX_MEMBERS = 500_000
"""The most files in one archive."""
MAX_MEMBER_BYTES = 256 * 2**20
"""The largest single file in an archive of pictures, unpacked."""
MAX_BROKEN_SHARE = 0.1
"""How many of an archive's files may be no pictures; they are skipped and listed."""
UNLABELLED = "unlabelled"
"""The label of pictures that lie beside the folders of an archive that has some."""

UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError)
"""What reading a broken file of an archive raises."""

_CHECKED_AT_SUBMIT = 1_000
_MAX_RATIO, _ALWAYS_ADMITTED_BYTES = 100, 256 * 2**20
_MAX_ARRAY_BYTES = 64 * 2**30
_MAX_NPY_HEADER_BYTES = 2**16
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A well-known set of square pictures that a job may name instead of an upload."""

    classes: tuple[str, ...]
    side_px: int
    channels: int
    pictures: int
    """All of them, held-out ones included."""


_DIGITS = tuple("0123456789")
BUILT_IN: dict[str, BuiltIn] = {
    "digits": BuiltIn(classes=_DIGITS, side_px=8, channels=1, pictures=1_797),
    "fashion_mnist": BuiltIn(
        classes=(
            "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
        ),
        side_px=28, channels=1, pictures=70_000,
    ),
    "mnist": BuiltIn(classes=_DIGITS, side_px=28, channels=1, pictures=70_000),
    "cifar10": BuiltIn(
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        side_px=32, channels=3, pictures=60_000,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a set of pictures before any is decoded."""

    pictures: int
    """How many there are, broken ones still counted."""
    classes: tuple[str, ...]
    """The names of the labels in order; empty without labels."""
    height: int | None = None
    width: int | None = None
    channels: int | None = None
    """1 or 3; None where the pictures of an archive may differ."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of an archive that should be a picture."""

    name: str
    label: str | None
    info: zipfile.ZipInfo


@dataclass(frozen=True, kw_only=True)
class ArrayHeader:
    """What the header of a `.npy` file says."""

    dtype: str
    shape: tuple[int, ...]
    fortran_order: bool

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        kind, size = self.dtype[1], int(self.dtype[2:])
        return 4 * size if kind == "U" else size


def describe_dataset(path: str | os.PathLike[str]) -> DatasetInfo:
    """What the listing of an uploaded archive says: a zip of pictures, or an `.npz` of arrays.

    Raises:
        InvalidInput: what is wrong with the archive, and what would do.
    """
    with open_archive(path) as archive:
        if holds_arrays(archive):
            return inspect_arrays(archive)
        members = picture_members(archive)
        return DatasetInfo(pictures=len(members), classes=label_names(members))


def inspect_dataset(path: str | os.PathLike[str], *, max_pixels: int) -> DatasetInfo:
    """Describe an uploaded archive and open its pictures, nothing of which is unpacked to disk.

    Of a large zip a thousand pictures, evenly spread, are opened; the job that trains looks at all of them.

    Raises:
        InvalidInput: what is wrong with the archive, and what would do.
    """
    info = describe_dataset(path)
    if info.height is None:
        with open_archive(path) as archive:
            members = picture_members(archive)
            sample = members[:: -(-len(members) // _CHECKED_AT_SUBMIT)]
            broken = [member.name for member in sample if not _opens(archive, member, max_pixels)]
        refuse_broken(broken, len(sample))
    return info


@contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """Open a zip whose listing is safe: no way out of it, no links, no bomb, no password.

    Raises:
        InvalidInput: naming the offending file.
        StorageUnavailable: the file system fails, whatever the file holds.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        blame_file_system(error)
        raise InvalidInput(
            "A data set is a .zip of pictures, an .npz with an array `images`, or one of "
            f"{', '.join(BUILT_IN)}. This file is none of them, or is cut short."
        ) from error
    with archive:
        _check_listing(archive.infolist(), os.path.getsize(path))
        yield archive


def _check_listing(members: Sequence[zipfile.ZipInfo], archive_bytes: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise InvalidInput(f"The archive lists {len(members):,} files; at most {MAX_MEMBERS:,} are taken.")
    for member in members:
        _check_member(member)
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    # Members that share their bytes are how a small file claims petabytes.
    if packed > archive_bytes or unpacked > max(_ALWAYS_ADMITTED_BYTES, _MAX_RATIO * archive_bytes):
        raise InvalidInput(
            f"The archive has {archive_bytes:,} bytes and says that it unpacks to {unpacked:,}: that is taken for "
            "an archive bomb. Pack the pictures as PNG or JPEG."
        )


def _check_member(member: zipfile.ZipInfo) -> None:
    path = member.orig_filename.replace("\\", "/")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in path.split("/") or "\0" in path:
        raise InvalidInput(
            f"The archive's file {member.orig_filename!r} leaves the archive. Pack it again without."
        )
    mode = member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InvalidInput(f"The archive's file {path!r} is a link or a device. Pack the picture itself.")
    if member.flag_bits & 1:
        raise InvalidInput(f"The archive's file {path!r} needs a password. Pack it without.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidInput(f"The archive's file {path!r} is packed in a rare way. Use plain zip (deflate).")


def picture_members(archive: zipfile.ZipFile) -> list[Member]:
    """The files that should be pictures, sorted by name, each with its folder as its label.

    Folders that all have in common say nothing; of what remains the first folder is the label. Hidden and
    system files are passed over.

    Raises:
        InvalidInput: there is no such file, or one is too large.
    """
    files = {}
    for info in archive.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if not info.is_dir() and not _is_hidden(path):
            files[path] = info
    if not files:
        raise InvalidInput("The archive holds no pictures.")
    common = len(PurePosixPath(os.path.commonpath(["/" / path.parent for path in files])).parts) - 1
    labelled = any(len(path.parent.parts) > common for path in files)
    members = []
    for path in sorted(files):
        if files[path].file_size > MAX_MEMBER_BYTES:
            raise InvalidInput(
                f"The archive's file {str(path)!r} has {files[path].file_size:,} bytes; a picture may have "
                f"{MAX_MEMBER_BYTES:,}."
            )
        folders = path.parent.parts[common:]
        label = (folders[0] if folders else UNLABELLED) if labelled else None
        members.append(Member(name=str(path), label=label, info=files[path]))
    return members


def _is_hidden(path: PurePosixPath) -> bool:
    system = path.parts[0] == "__MACOSX" or path.name.lower() in _SYSTEM_FILES
    return system or any(part.startswith(".") for part in path.parts)


def label_names(members: Sequence[Member]) -> tuple[str, ...]:
    """The labels that occur, sorted."""
    return tuple(sorted({member.label for member in members if member.label is not None}))


def _opens(archive: zipfile.ZipFile, member: Member, max_pixels: int) -> bool:
    try:
        with open_picture(BytesIO(archive.read(member.info)), max_pixels=max_pixels):
            return True
    except (InvalidInput, *UNREADABLE) as error:
        blame_file_system(error)
        return False


def refuse_broken(broken: Sequence[str], looked_at: int) -> None:
    """Refuse an archive of which more than a tenth of the files are broken or no pictures."""
    if len(broken) <= MAX_BROKEN_SHARE * looked_at:
        return
    named = ", ".join(repr(name) for name in broken[:3]) + (", ..." if len(broken) > 3 else "")
    raise InvalidInput(
        f"{len(broken)} of {looked_at} files in the archive are broken or no pictures ({named}); "
        f"at most {MAX_BROKEN_SHARE:.0%} are skipped. Take them out."
    )


def holds_arrays(archive: zipfile.ZipFile) -> bool:
    """Whether the archive is an `.npz`: NumPy arrays and nothing else."""
    names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def inspect_arrays(archive: zipfile.ZipFile) -> DatasetInfo:
    """Read the headers of an `.npz`: `images` (n, height, width[, 1 or 3]), and `labels` (n) if there are any.

    Raises:
        InvalidInput: an array is missing, or not of a form that can be used.
    """
    names = archive.namelist()
    if "images.npy" not in names:
        found = ", ".join(sorted(name.removesuffix(".npy") for name in names))
        raise InvalidInput(
            f"The .npz needs an array named `images` (and may have `labels`); it has: {found}."
        )
    images = array_header(archive, "images.npy")
    _check_images(images)
    if "labels.npy" in names:
        labels = array_header(archive, "labels.npy")
        if labels.dtype[1] not in "iuUS" or labels.shape not in (images.shape[:1], (images.shape[0], 1)):
            raise InvalidInput(
                f"`labels` has type {labels.dtype} and shape {labels.shape}; it must hold one whole number or "
                f"string for each of the {images.shape[0]} images."
            )
    return DatasetInfo(
        pictures=images.shape[0],
        classes=(),
        height=images.shape[1],
        width=images.shape[2],
        channels=images.shape[3] if len(images.shape) == 4 else 1,
    )


def _check_images(images: ArrayHeader) -> None:
    shape = images.shape
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape:
        raise InvalidInput(
            f"`images` has the shape {shape}; it must be (n, height, width) or (n, height, width, 1 or 3)."
        )
    if images.dtype[1:] not in ("u1", "f2", "f4", "f8", "b1"):
        raise InvalidInput(
            f"`images` has the type {images.dtype}; it must be uint8 (0 to 255) or floating (0 to 1)."
        )


def array_header(archive: zipfile.ZipFile, name: str) -> ArrayHeader:
    """Read what a `.npy` member says of itself, and compare it with the member's size.

    Raises:
        InvalidInput: it is no plain array (objects would need unpickling), or its size is another.
    """
    try:
        with archive.open(name) as file:
            header, header_bytes = _npy_header(file.read(_MAX_NPY_HEADER_BYTES))
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        ValueError,
        SyntaxError,
        KeyError,
        TypeError,
        struct.error,
        RecursionError,  # these two: literals nested so deep that Python's own parser gives up
        MemoryError,
    ) as error:
        blame_file_system(error)
        raise InvalidInput(f"The archive's {name} is no NumPy array that can be read.") from error
    if not re.fullmatch(r"[<>|=][biufUS]\d{1,6}", header.dtype):
        raise InvalidInput(
            f"The archive's {name} has the type {header.dtype}; only plain numbers and strings are read."
        )
    data_bytes = prod(header.shape) * header.itemsize
    if header_bytes + data_bytes != archive.getinfo(name).file_size or data_bytes > _MAX_ARRAY_BYTES:
        raise InvalidInput(
            f"The archive's {name} says it holds {header.shape}, which its size does not match."
        )
    return header


def _npy_header(start: bytes) -> tuple[ArrayHeader, int]:
    """Parse the format of numpy.lib.format: magic, version, length, a Python literal."""
    if start[:6] != b"\x93NUMPY":
        raise ValueError("no magic")
    width = "<H" if start[6] == 1 else "<I"
    begin = 8 + struct.calcsize(width)
    (length,) = struct.unpack(width, start[8:begin])
    said = ast.literal_eval(start[begin : begin + length].decode("latin-1" if start[6] < 3 else "utf-8"))
    shape = tuple(said["shape"])
    if not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError("no shape")
    header = ArrayHeader(dtype=str(said["descr"]), shape=shape, fortran_order=bool(said["fortran_order"]))
    return header, begin + length
