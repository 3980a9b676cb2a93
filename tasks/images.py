"""Pictures in and out: any file to sRGB values, sizes, and values back to PNG or JPEG.

Everywhere an image is an array (height, width, 3) or, grey, (height, width), of uint8 or of floats in 0..255.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image, ImageChops, ImageCms, ImageFile

from shared.errors import Diverged
from shared.pictures import PictureSource, load, open_picture, orientation

# Whatever is done to a picture's pixels is done to strips of about this many, so that a picture of 100
# megapixels takes its own memory and the result's (measured: 680 MiB), not that of every step between.
_STRIP_PIXELS = 1_000_000

# The uint8 values of a strip (rows, width, 3) from its Pillow image.
_Conversion = Callable[[Image.Image], np.ndarray]

# For each EXIF orientation the view of the upright array in which the pixels lie as they are stored.
_AS_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),  # is shown turned clockwise, so is stored turned back
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}


def decode(source: PictureSource, *, max_pixels: int, ground: int = 255) -> np.ndarray:
    """Read a picture as everybody sees it: (height, width, 3) uint8 sRGB, upright, on white.

    Transparency is laid on white, or on another grey `ground` (0..255); a colour profile is converted to sRGB
    (relative colorimetric, a broken one is ignored). Pictures with more than 8 bits of grey, or floats, are
    stretched from their own lowest to their highest value, and their profile is left aside: the stretch has
    replaced their tones. Of 16-bit colours the upper 8 bits are kept. Of an animation or a file of many pages it
    is the first picture.

    Raises:
        InvalidInput: whatever `shared.pictures.inspect_picture` refuses.
    """
    with open_picture(source, max_pixels=max_pixels) as picture:
        key = _take_transparent_color(picture)
        load(picture)
        turn = orientation(picture)
        deep = picture.mode == "F" or picture.mode.startswith("I")
        convert = _stretch(picture, key, ground) if deep else _to_srgb(picture, key, ground)
        width, height = picture.size
        upright = np.empty((height, width, 3) if turn < 5 else (width, height, 3), np.uint8)
        stored = _AS_STORED[turn](upright)
        for top, strip in _strips(picture):
            stored[top : top + strip.height] = convert(strip)
    return upright


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image (height, width[, channels]) to `size` = (height, width), as float32.

    Linear interpolation; when it shrinks, the triangle is widened over the source's pixels, so that fine
    patterns fade instead of turning into coarse ones (as tf.image.resize does with antialias=True). Linear and
    not cubic or Lanczos, because it never leaves the range of its input: rings around edges are what a dream
    would amplify.
    """
    image = np.asarray(image, np.float32)
    height, width = size
    if image.shape[:2] == (height, width):
        return image.copy()
    channels = image[..., np.newaxis] if image.ndim == 2 else image
    resized = np.empty((height, width, channels.shape[2]), np.float32)
    for channel in range(channels.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(channels[..., channel]))
        resized[..., channel] = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))
    return resized[..., 0] if image.ndim == 2 else resized


def nearest(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(height, width) -> `shape`, each value that of the nearest pixel."""
    rows, columns = (
        np.minimum((np.arange(wanted) + 0.5) * side / wanted, side - 1).astype(int)
        for wanted, side in zip(shape, image.shape, strict=True)
    )
    return image[np.ix_(rows, columns)]


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Clip values to 0..255 and round them half to even: any shape, as uint8.

    Raises:
        Diverged: a value is NaN or infinite.
    """
    image = np.asarray(image)
    if image.dtype == np.uint8:
        return image
    flat = image.reshape(-1)
    values = np.empty(flat.shape, np.uint8)
    for start in range(0, flat.size, _STRIP_PIXELS):
        piece = flat[start : start + _STRIP_PIXELS].astype(np.float64)
        if not np.isfinite(piece).all():
            raise Diverged("The picture holds values that are no numbers (NaN or infinite).")
        values[start : start + piece.size] = np.rint(np.clip(piece, 0, 255))
    return values.reshape(image.shape)


def encode_png(image: np.ndarray) -> bytes:
    """Write an image (height, width, 3), (height, width, 1) or (height, width) as PNG, without any metadata.

    Raises:
        Diverged: a value is NaN or infinite.
    """
    # Measured on 12 megapixels: a third of the time of zlib's usual level 6, for a tenth more bytes
    return _encode(image, "PNG", compress_level=4)


def encode_jpeg(image: np.ndarray, quality: int = 92) -> bytes:
    """Write an image as JPEG with full-resolution colour, without any metadata.

    Raises:
        Diverged: a value is NaN or infinite.
    """
    return _encode(image, "JPEG", quality=quality, subsampling="4:4:4")


def thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink an image to fit into a square of `side` px, as uint8; a smaller one keeps its size."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(_pillow(image).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))


def contact_sheet(
    images: np.ndarray | Sequence[np.ndarray], columns: int, *, margin_px: int = 2, background: float = 255
) -> np.ndarray:
    """Lay images of one size out in rows of `columns`, with a margin between and around them.

    (n, height, width[, channels]) -> (rows * (height + margin_px) + margin_px, columns * (width + margin_px) +
    margin_px[, channels]) of the same type; cells left over in the last row show the background.
    """
    tiles = np.asarray(images)
    count, height, width = tiles.shape[:3]
    rows = -(-count // columns)
    sheet_size = (rows * (height + margin_px) + margin_px, columns * (width + margin_px) + margin_px)
    sheet = np.full(sheet_size + tiles.shape[3:], background, tiles.dtype)
    for index, tile in enumerate(tiles):
        top = margin_px + index // columns * (height + margin_px)
        left = margin_px + index % columns * (width + margin_px)
        sheet[top : top + height, left : left + width] = tile
    return sheet


def _encode(image: np.ndarray, file_format: str, **options: int | str) -> bytes:
    file = io.BytesIO()
    _pillow(image).save(file, file_format, **options)
    return file.getvalue()


def _pillow(image: np.ndarray) -> Image.Image:
    values = to_uint8(image)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    return Image.fromarray(np.ascontiguousarray(values))


def _strips(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Cut a loaded picture into (top row, strip of full width)."""
    rows = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _take_transparent_color(picture: ImageFile.ImageFile) -> tuple[int, ...] | None:
    """Take away the one colour that stands for transparent in a picture without palette, in pixel units.

    Pillow leaves a PNG's value as the file has it while it scales the pixels: 2 and 4 bits up to 8, 16-bit
    colours down to 8.
    """
    if picture.mode in ("P", "PA") or (stated := picture.info.pop("transparency", None)) is None:
        return None
    raw_mode = str(picture.tile[0][3]) if picture.format == "PNG" else ""
    numerator, denominator = {"L;2": (255, 3), "L;4": (255, 15), "RGB;16B": (1, 256)}.get(raw_mode, (1, 1))
    color = stated if isinstance(stated, tuple) else (stated,)
    return tuple(value * numerator // denominator for value in color)


def _laid_on(ground: int, colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay colours (rows, width, 3) with their alpha (rows, width), uint8, on a grey: exact to half a level."""
    opacity = alpha[..., np.newaxis].astype(np.uint16)
    return ((colors * opacity + ground * (255 - opacity) + 127) // 255).astype(np.uint8)


def _is_color(strip: Image.Image, color: tuple[int, ...] | None) -> np.ndarray | None:
    """Where a strip has exactly this colour: (rows, width) bool; None without a colour."""
    if color is None:
        return None
    values = np.asarray(strip.convert("L") if strip.mode == "1" else strip)
    return (values.reshape(*values.shape[:2], -1) == color).all(axis=-1)


def _to_srgb(picture: Image.Image, key: tuple[int, ...] | None, ground: int) -> _Conversion:
    """The conversion of an 8-bit picture of any mode; `key` is the colour that stands for transparent."""
    from_profile = _profile_conversion(picture)
    # By libjpeg's own convention 0 is no ink; Adobe writes the opposite and marks its files. Pillow takes all
    # for Adobe's.
    plain_cmyk = picture.mode == "CMYK" and picture.format in ("JPEG", "MPO") and "adobe" not in picture.info
    translucent = picture.has_transparency_data

    def convert(strip: Image.Image) -> np.ndarray:
        cleared = _is_color(strip, key)
        if plain_cmyk:
            strip = ImageChops.invert(strip)
        if translucent:
            strip = strip.convert("RGBA")
        colors = np.asarray(from_profile(strip) if from_profile else strip.convert("RGB"))
        if translucent:
            colors = _laid_on(ground, colors, np.asarray(strip.getchannel("A")))
        if cleared is not None:
            colors = np.where(cleared[..., np.newaxis], np.uint8(ground), colors)
        return colors

    return convert


def _profile_conversion(picture: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """From the picture's colour profile to sRGB; None where there is none, or none that fits and works."""
    profile = picture.info.get("icc_profile")
    if not isinstance(profile, bytes) or picture.mode == "LAB":
        return None
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]
        if (mode == "CMYK") != (picture.mode == "CMYK") or (
            mode == "L" and picture.mode not in ("1", "L", "LA")
        ):
            return None
        transform = ImageCms.buildTransform(
            opened,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode != "CMYK" and _changes_nothing(transform, mode):
            return None
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError, TypeError):
        return None
    return lambda strip: transform.apply(strip.convert(mode))


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether no colour moves by more than one level: sRGB by another name, best left alone."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    axes = [levels] * len(mode)
    colors = (
        np.stack(np.meshgrid(*axes), axis=-1).reshape(1, -1, len(mode)).squeeze(-1 if mode == "L" else ())
    )
    before = Image.fromarray(colors)
    after = np.asarray(transform.apply(before), np.int16)
    return bool(np.abs(after - np.asarray(before.convert("RGB"), np.int16)).max() <= 1)


def _stretch(picture: ImageFile.ImageFile, key: tuple[int, ...] | None, ground: int) -> _Conversion:
    """The conversion of a grey picture of more than 8 bits: its lowest value becomes 0, its highest 255.

    One that has a single value keeps its brightness on the scale that such files use: 65535, or 1 for floats.
    """
    tags = getattr(picture, "tag_v2", {})  # of a TIFF
    unsigned = (
        picture.mode == "I" and tags.get(339, (1,)) == (1,) and tags.get(258) == (32,)
    )  # read as signed
    white_is_zero = tags.get(262) == 0

    def values(strip: Image.Image) -> np.ndarray:
        raw = np.asarray(strip)
        return raw.view(np.uint32) if unsigned else raw

    lowest, highest = _range(values(strip) for _, strip in _strips(picture))
    if lowest == highest:
        lowest, highest = 0.0, 1.0 if picture.mode == "F" else 65535.0

    def convert(strip: Image.Image) -> np.ndarray:
        raw = values(strip).astype(np.float64)
        within = np.clip(np.where(np.isnan(raw), lowest, raw), lowest, highest)
        grey = np.rint((within - lowest) * (255 / (highest - lowest))).astype(np.uint8)
        if white_is_zero:
            grey = 255 - grey
        if (cleared := _is_color(strip, key)) is not None:
            grey[cleared] = ground
        return np.broadcast_to(grey[..., np.newaxis], (*grey.shape, 3))

    return convert


def _range(pieces: Iterable[np.ndarray]) -> tuple[float, float]:
    """The lowest and the highest finite value, or zeros when there is none."""
    lowest, highest = np.inf, -np.inf
    for piece in pieces:
        finite = piece[np.isfinite(piece)] if piece.dtype.kind == "f" else piece
        if finite.size:
            lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
    return (lowest, highest) if lowest <= highest else (0.0, 0.0)
