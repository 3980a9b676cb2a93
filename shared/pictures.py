"""What a picture file is, judged without TensorFlow: format, size, whether it is whole."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import BinaryIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from shared.errors import InvalidInput
from shared.storage import blame_file_system

PictureSource = str | os.PathLike[str] | BinaryIO
"""A path, or a binary file that can seek."""

MAX_SIDE_PX = 65_535
"""The longest side that is admitted (JPEG's own limit): no photo is longer, and 100,000,000 x 1 is none."""
MAX_SLOW_PIXELS = 4_000_000
"""The largest picture of a variety that Pillow decodes in Python, at about a microsecond per value."""
MAX_SCANS = 64
"""The most passes a JPEG may make over the picture; cameras and editors use up to about 14."""

_LARGE_PIXELS = 16_000_000
_METADATA_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class PictureInfo:
    """A picture as it will be seen, after its orientation is applied."""

    width: int
    height: int
    format: str


class _Tiff(TiffImagePlugin.TiffImageFile):
    """Pillow's TIFF reader without its own pixel limit, which is one number for the whole process."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size, None).im
        ImageFile.ImageFile.load_prepare(self)


# The readers are called by themselves, not through Image.open: that one warns and refuses by a limit of the
# whole process (Image.MAX_IMAGE_PIXELS), which is not ours to change in programs that import us, and it tries
# formats that run other programs (EPS). The list is what people send: each reader is one more to be attacked.
_READERS = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.jpeg_factory,  # MPO too: a JPEG followed by more of them
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": _Tiff,
    "BMP": BmpImagePlugin.BmpImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,  # PBM, PGM, PNM, PFM too
    "AVIF": AvifImagePlugin.AvifImageFile,
}
_READABLE = "PNG, JPEG, WebP, GIF, TIFF, BMP, PPM or AVIF"

# What people send by mistake, by a pattern at the start of the file.
_OTHERS = {
    "a HEIC photo": rb"....ftyp(hei|hev|mif1|msf1)",
    "a video": rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ",
    "a JPEG XL picture": rb"\xff\x0a|....JXL ",
    "a JPEG 2000 picture": rb"....jP  |\xff\x4f\xff\x51",
    "a Photoshop document": rb"8BPS",
    "a PDF": rb"%PDF",
    "PostScript": rb"%!PS",
    "an SVG drawing": rb"(\xef\xbb\xbf)?\s*<(svg\b|(\?xml|!--|!doctype svg).*<svg\b)",
    "a web page": rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body)\b",
    "a ZIP archive": rb"PK\x03\x04|PK\x05\x06",
    "a gzip archive": rb"\x1f\x8b",
    "an icon file": rb"\x00\x00\x01\x00",
}

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")

# One large picture is decoded at a time, so that a burst of submits cannot take the memory of them all.
_large_turn = threading.Lock()


def inspect_picture(source: PictureSource, *, max_pixels: int) -> PictureInfo:
    """Check a picture file whole: its format by its content, its size by its header, then all its pixels.

    Of an animated or many-paged file only the first picture is looked at.

    Raises:
        InvalidInput: the file is no picture that `tasks.images.decode` can read, or larger than `max_pixels`.
    """
    with open_picture(source, max_pixels=max_pixels) as picture:
        width, height = picture.size
        with _large_turn if width * height > _LARGE_PIXELS else nullcontext():
            if isinstance(picture, JpegImagePlugin.JpegImageFile):
                # Decoded at an eighth of its size: every byte is read and judged all the same, in a
                # fraction of the time and memory.
                picture.draft(None, (1, 1))
                load(picture)
            else:
                load(picture)
                width, height = picture.size  # a TIFF is turned upright as it is loaded
        if orientation(picture) >= 5:
            width, height = height, width
        return PictureInfo(width=width, height=height, format=format_name(picture))


def is_black(source: PictureSource, *, max_pixels: int) -> bool:
    """Whether a picture is black or transparent all over.

    Raises:
        InvalidInput: as `inspect_picture` does.
    """
    with open_picture(source, max_pixels=max_pixels) as picture:
        width, height = picture.size
        with _large_turn if width * height > _LARGE_PIXELS else nullcontext():
            load(picture)
            return _on_black(picture).getbbox() is None


def _on_black(picture: Image.Image) -> Image.Image:
    """A loaded picture, in a mode in which 0 is black, as it is seen on a black ground."""
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "black"), seen).convert("RGB")
    if picture.mode in ("1", "L", "RGB", "I", "F", "I;16"):
        return picture
    return picture.convert("I" if picture.mode.startswith("I;") else "RGB")


@contextmanager
def open_picture(source: PictureSource, *, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """Open a picture whose header is in order; its pixels are still to be loaded, with `load`.

    Raises:
        InvalidInput: what is wrong with the file, and what to do.
        StorageUnavailable: the file system fails, whatever the file holds.
    """
    with ExitStack() as opened:
        with _reading():
            file = (
                opened.enter_context(open(source, "rb")) if isinstance(source, str | os.PathLike) else source
            )
            _check_bytes(file, max_pixels)
            picture = _open(file)
            _check_size(picture, max_pixels)
            if isinstance(picture, JpegImagePlugin.JpegImageFile):
                _check_scans(file)
            if isinstance(picture, PngImagePlugin.PngImageFile):
                _check_sums(file)
        yield picture


@contextmanager
def _reading() -> Iterator[None]:
    """Tell a file that is there and cannot be read as what it is: trouble with the storage."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        blame_file_system(error)
        raise


def load(picture: ImageFile.ImageFile) -> None:
    """Decode the first picture of an opened file.

    Raises:
        InvalidInput: it is cut short or broken.
    """
    with _pillow_errors(format_name(picture)):
        picture.load()


def orientation(picture: ImageFile.ImageFile) -> int:
    """How a loaded picture is yet to be turned: EXIF's 1 (upright) to 8.

    Asked after loading, because a PNG may say it behind its pixels and a TIFF has been turned by then.
    """
    try:
        stated = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow has no one error for broken EXIF, and it is no reason to refuse the picture
        return 1
    return stated if isinstance(stated, int) and 1 <= stated <= 8 else 1


def format_name(picture: ImageFile.ImageFile) -> str:
    """The format as people name it; an MPO is a JPEG with more of them behind."""
    name = picture.format or ""
    return "JPEG" if name == "MPO" else name


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    start = _start(file)
    for name, reader in _READERS.items():
        accepts = Image.OPEN[name][1]
        if (
            accepts is None or accepts(start[:16]) is not True
        ):  # a text says what this Pillow was built without
            continue
        if name == "AVIF" and (other := _other_name(start)) == "a HEIC photo" and b"avif" not in start[:64]:
            raise _not_a_picture(other)
        with _pillow_errors(name):
            file.seek(0)
            return reader(file, "")
    raise _not_a_picture(_other_name(start))


def _start(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(1024)


def _other_name(start: bytes) -> str | None:
    for name, pattern in _OTHERS.items():
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            return name
    return None


def _not_a_picture(looks_like: str | None) -> InvalidInput:
    found = f"This is {looks_like}, not a picture" if looks_like else "This is not a picture"
    return InvalidInput(f"{found} that can be read here. Send it as {_READABLE}.")


def _check_bytes(file: BinaryIO, max_pixels: int) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        raise InvalidInput("The file is empty. Upload it again.")
    # Some readers take the whole file into memory. No picture needs more than 8 bytes a pixel (16-bit RGBA).
    limit = 8 * max_pixels + _METADATA_BYTES
    if size > limit:
        raise InvalidInput(
            f"The file has {size:,} bytes; a picture of {max_pixels:,} pixels, the most that are taken, "
            f"needs at most {limit:,}. Save its picture alone, compressed."
        )


def _check_size(picture: ImageFile.ImageFile, max_pixels: int) -> None:
    width, height = picture.size
    if width < 1 or height < 1 or max(width, height) > MAX_SIDE_PX:
        raise InvalidInput(
            f"The picture says that it is {width} x {height} px; a side has 1 to {MAX_SIDE_PX:,} px. "
            "Crop it, or save it again if that is not its size."
        )
    if width * height > max_pixels:
        raise InvalidInput(
            f"The picture has {width} x {height} = {width * height:,} pixels; "
            f"at most {max_pixels:,} are taken. Make it smaller."
        )
    # Pillow decodes the plain and odd-ranged PPMs and the run-length BMPs in Python, holding up all else.
    in_python = any(tile[0] in Image.DECODERS for tile in picture.tile)
    if in_python and width * height > MAX_SLOW_PIXELS:
        raise InvalidInput(
            f"The picture has {width * height:,} pixels; at most {MAX_SLOW_PIXELS:,} are taken in this "
            f"variety of {format_name(picture)}. Save it as PNG."
        )


def _check_scans(file: BinaryIO) -> None:
    """Refuse a JPEG that paints its picture over and over: 7 kB more can cost minutes (measured: 0.14 s a pass)."""
    file.seek(0)
    scans = _scans(file.read())
    if scans > MAX_SCANS:
        raise InvalidInput(
            f"The JPEG file makes {scans} passes over its picture; at most {MAX_SCANS} are taken. "
            "Save it again."
        )


def _scans(jpeg: bytes) -> int:
    """Count the scans of the first picture, marker by marker up to its end.

    Within a scan 0xFF stands only before 0 (a stuffed byte), a restart marker or the next segment's marker.
    """
    scans, at = 0, 2
    while (marker := _MARKER.search(jpeg, at)) and marker[0] != b"\xff\xd9":
        scans += marker[0] == b"\xff\xda"
        at = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2])
    return scans


def _check_sums(file: BinaryIO) -> None:
    """Compare every chunk of a PNG with its checksum, which Pillow's decoder leaves out for the pixels."""
    with _pillow_errors("PNG"):
        file.seek(0)
        PngImagePlugin.PngImageFile(file, "").verify()


@contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises over a file into `InvalidInput`.

    Pillow's readers raise whatever the bytes led them into (SyntaxError, struct.error, OverflowError, ...), and
    nothing narrower than Exception is safe.
    """
    try:
        yield
    except Exception as error:
        blame_file_system(error)
        reason = str(error)[:200] or type(error).__name__
        raise InvalidInput(
            f"The {name} file is broken, cut short or of a variety that cannot be read ({reason}). "
            "Send it again, or save it anew as PNG."
        ) from error
