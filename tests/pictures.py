"""Picture files of every sort, built in memory: the accepted with their colours, the refused with the reason.

The base is four flat quarters, so that a few probes tell a flip, a turn, swapped channels or a wrong
inversion. They are 8 px or more each way and aligned to 8, so that a good JPEG keeps them to a few levels.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin

MAX_PIXELS = 100_000_000
"""The default of `MAX_IMAGE_PIXELS`, for which REFUSED holds."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Sample:
    """A file to be accepted: its size as seen, and (x, y) -> colour as seen, to within `tolerance` levels."""

    data: bytes
    format: str
    colors: dict[tuple[int, int], Color]
    width: int = 32
    height: int = 16
    tolerance: int = 0


@dataclass(frozen=True)
class RefusedSample:
    """A file to be refused, with a part of the message that says why."""

    data: bytes
    because: str
    name: str = field(default="cat.png")


RED, GREEN, BLUE, SAND = (200, 30, 30), (30, 160, 60), (40, 60, 190), (240, 220, 60)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
QUARTERS = {(8, 4): RED, (24, 4): GREEN, (8, 12): BLUE, (24, 12): SAND}
LEFT, RIGHT = (8, 8), (24, 8)


def quarters() -> Image.Image:
    """32 x 16 px: red, green over blue, sand."""
    picture = Image.new("RGB", (32, 16), SAND)
    picture.paste(RED, (0, 0, 16, 8))
    picture.paste(GREEN, (16, 0, 32, 8))
    picture.paste(BLUE, (0, 8, 16, 16))
    return picture


def halves(mode: str, left: float | tuple[int, ...], right: float | tuple[int, ...]) -> Image.Image:
    """32 x 16 px of two colours in the mode's own units."""
    picture = Image.new(mode, (32, 16), right)
    picture.paste(left, (0, 0, 16, 16))
    return picture


def thirds(dtype: str, left: float, middle: float, right: float) -> np.ndarray:
    """(16, 48) values: three flat thirds."""
    return np.repeat(np.array([[left, middle, right]], dtype), 16, axis=1).repeat(16, axis=0)


THIRDS = ((8, 8), (24, 8), (40, 8))


def saved(picture: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def png(
    width: int,
    height: int,
    depth: int,
    color_type: int,
    rows: Iterable[bytes],
    *chunks: tuple[bytes, bytes],
    interlaced: bool = False,
) -> bytes:
    """A PNG written by hand, for the varieties that Pillow cannot write; `chunks` go before the pixels."""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(*chunk) for chunk in [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(pixels: bytes, width: int, height: int, **tags: int | tuple[int, ...]) -> bytes:
    """An uncompressed little-endian TIFF written by hand; `tags` by TIFF 6.0's numbers, `t258=(8, 8, 8)`."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(b"II\x2a\x00\x08\x00\x00\x00")
    numbers = {int(name[1:]): value for name, value in tags.items()}
    # 256 width, 257 height, 259 compression (none), 273 where the strip starts, 278 its rows, 279 its bytes
    layout = {256: width, 257: height, 259: 1, 278: height, 279: len(pixels), 273: 0}
    for number, value in (layout | numbers).items():
        directory[number] = value
    # tobytes counts the strip's offset from the directory's end
    return b"II\x2a\x00\x08\x00\x00\x00" + directory.tobytes(8) + pixels


# --- colour profiles, as the ICC's specification 4.3 lays them out


def icc_profile(
    space: bytes, tags: dict[bytes, bytes], *, pcs: bytes = b"XYZ ", device: bytes = b"mntr"
) -> bytes:
    """A profile: header of 128 bytes, table of tags, tags on multiples of 4."""
    d50 = _s15f16(0.9642, 1.0, 0.8249)
    tags = {b"desc": _text("test"), b"cprt": _text("none"), b"wtpt": b"XYZ \0\0\0\0" + d50} | tags
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", 0, b"\0\0\0\0", 0x04300000, device, space, pcs)
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + d50
    whole = header + bytes(128 - len(header)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def _s15f16(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


# IEC 61966-2-1's curve as parametric type 3: ((a x + b) ** g, or c x below d), in the order g a b c d
_SRGB_CURVE = b"para\0\0\0\0\0\x03\0\0" + _s15f16(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_LINEAR_CURVE = b"para\0\0\0\0\0\0\0\0" + _s15f16(1.0)


def rgb_profile(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...]) -> bytes:
    """A matrix profile with sRGB's curve; the primaries are XYZ adapted to D50."""
    colorants = {b"rXYZ": red, b"gXYZ": green, b"bXYZ": blue}
    return icc_profile(
        b"RGB ",
        {name: b"XYZ \0\0\0\0" + _s15f16(*xyz) for name, xyz in colorants.items()}
        | dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"], _SRGB_CURVE),
    )


# sRGB's and Display P3's primaries, adapted to D50 by Bradford (Lindbloom's tables; they add up to D50)
_SRGB_RED, _SRGB_GREEN, _SRGB_BLUE = (
    (0.4361, 0.2225, 0.0139),
    (0.3851, 0.7169, 0.0971),
    (0.1431, 0.0606, 0.7141),
)
_P3_RED, _P3_GREEN, _P3_BLUE = (0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)

DISPLAY_P3 = rgb_profile(_P3_RED, _P3_GREEN, _P3_BLUE)
SWAPPED = rgb_profile(_SRGB_GREEN, _SRGB_RED, _SRGB_BLUE)
"""Its red is sRGB's green and the other way round: who applies it sees the two channels change places."""
LINEAR_GREY = icc_profile(b"GRAY", {b"kTRC": _LINEAR_CURVE})
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cmyk_profile(labs: dict[tuple[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """A press profile of the 16 corners of CMYK: `labs` gives some, the rest with black ink is black, else grey."""
    grid = b""
    for corner in np.ndindex(2, 2, 2, 2):  # the last ink runs fastest, as in the file
        lightness, a, b = labs.get(corner, (0, 0, 0) if corner[3] else (50, 0, 0))
        grid += bytes([round(lightness * 2.55), round(a) + 128, round(b) + 128])
    identity = bytes(range(256))
    matrix = _s15f16(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + grid + identity * 3
    return icc_profile(b"CMYK", {b"A2B0": table, b"A2B1": table}, pcs=b"Lab ", device=b"prtr")


def _linear(color: Color) -> np.ndarray:
    """The amounts of light, 0 to 1: the inverse of IEC 61966-2-1's curve, which Display P3 shares."""
    encoded = np.array(color) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab_of(color: Color) -> Color:
    """CIE Lab (D50) of an sRGB colour in 8 bits: L * 2.55, a and b plus 128 (CIE 15; TIFF 6.0, section 23)."""
    xyz = _linear(color) @ np.array([_SRGB_RED, _SRGB_GREEN, _SRGB_BLUE]) / (0.9642, 1.0, 0.8249)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return round((116 * y - 16) * 2.55), round(500 * (x - y)) + 128, round(200 * (y - z)) + 128


def srgb_of_p3(color: Color) -> Color:
    """Display P3 to sRGB by hand: the same curve, and CSS Color 4's matrices (P3 -> XYZ -> sRGB, both D65)."""
    linear = _linear(color)
    matrix = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]])
    linear = np.clip(matrix @ linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(int(value) for value in np.rint(encoded * 255))


# --- accepted


def _plain() -> dict[str, Sample]:
    picture, grey = quarters(), halves("L", 40, 200)
    greys = {LEFT: (40, 40, 40), RIGHT: (200, 200, 200)}
    bits = {LEFT: BLACK, RIGHT: WHITE}
    plain_ppm = b"P3\n# a comment\n32 16\n255\n" + " ".join(map(str, picture.tobytes())).encode()
    return {
        "png": Sample(saved(picture, "PNG"), "PNG", QUARTERS),
        "png_interlaced": Sample(_interlaced(picture), "PNG", QUARTERS),
        "jpeg": Sample(_jpeg(picture), "JPEG", QUARTERS, tolerance=3),
        "jpeg_progressive": Sample(_jpeg(picture, progressive=True), "JPEG", QUARTERS, tolerance=3),
        "jpeg_with_bytes_behind": Sample(_jpeg(picture) + b"a film" * 99, "JPEG", QUARTERS, tolerance=3),
        "webp_lossless": Sample(saved(picture, "WEBP", lossless=True), "WEBP", QUARTERS),
        # WebP halves the chroma's resolution and has its own limited range
        "webp_lossy": Sample(saved(picture, "WEBP", quality=95), "WEBP", QUARTERS, tolerance=8),
        "avif": Sample(saved(picture, "AVIF", quality=95), "AVIF", QUARTERS, tolerance=8),
        "gif": Sample(saved(picture, "GIF"), "GIF", QUARTERS),
        "bmp": Sample(saved(picture, "BMP"), "BMP", QUARTERS),
        "ppm": Sample(saved(picture, "PPM"), "PPM", QUARTERS),
        "ppm_plain": Sample(plain_ppm, "PPM", QUARTERS),
        "tiff": Sample(saved(picture, "TIFF"), "TIFF", QUARTERS),
        "tiff_lzw": Sample(saved(picture, "TIFF", compression="tiff_lzw"), "TIFF", QUARTERS),
        "tiff_jpeg": Sample(
            saved(picture, "TIFF", compression="jpeg", quality=95), "TIFF", QUARTERS, tolerance=9
        ),
        "grey": Sample(saved(grey, "PNG"), "PNG", greys),
        "grey_jpeg": Sample(_jpeg(grey), "JPEG", greys, tolerance=1),
        "bits": Sample(saved(halves("1", 0, 1), "PNG"), "PNG", bits),
        "bits_tiff_fax": Sample(saved(halves("1", 0, 1), "TIFF", compression="group4"), "TIFF", bits),
        "bits_pbm": Sample(saved(halves("1", 0, 1), "PPM"), "PPM", bits),
        "palette": Sample(saved(picture.quantize(4), "PNG"), "PNG", QUARTERS),
        "one_pixel": Sample(saved(Image.new("RGB", (1, 1), RED), "PNG"), "PNG", {(0, 0): RED}, 1, 1),
        "ycbcr_tiff": Sample(saved(picture.convert("YCbCr"), "TIFF"), "TIFF", QUARTERS, tolerance=3),
        # One step of a or b is up to three levels of a channel
        "lab_tiff": Sample(
            saved(halves("LAB", lab_of(RED), lab_of(BLUE)), "TIFF"),
            "TIFF",
            {LEFT: RED, RIGHT: BLUE},
            tolerance=3,
        ),
    }


def _interlaced(picture: Image.Image) -> bytes:
    """Adam7, the PNG specification's table 8.2: seven passes, each from (x, y) on in steps of (dx, dy)."""
    passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]
    pixels = np.asarray(picture)
    rows = [row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx]]
    return png(picture.width, picture.height, 8, 2, rows, interlaced=True)


def _jpeg(picture: Image.Image, **options: object) -> bytes:
    quality = {"quality": 95} if picture.mode in ("L", "CMYK") else {"quality": 95, "subsampling": "4:4:4"}
    return saved(picture, "JPEG", **quality | options)


def _transparent() -> dict[str, Sample]:
    # Half of 255 is not to be had in 8 bits: alpha 128 leaves (200 * 128 + 255 * 127) / 255 = 227.4 of a 200,
    # and 255 * 127 / 255 = 127 of a 0.
    veiled = {LEFT: WHITE, RIGHT: (227, 127, 127)}
    rgba = halves("RGBA", (0, 0, 0, 0), (200, 0, 0, 128))
    grey_veiled = {LEFT: WHITE, RIGHT: (227, 227, 227)}
    grey_alpha = halves("LA", (0, 0), (200, 128))
    palette = halves("P", 0, 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    hidden_black = {LEFT: WHITE, RIGHT: (200, 0, 0)}
    keyed_grey = {LEFT: WHITE, RIGHT: (85, 85, 85)}
    half_row = lambda left, right: left * 16 + right * 16  # noqa: E731
    deep = half_row(struct.pack(">4H", 0, 0, 0, 0), struct.pack(">4H", 200 * 257, 0, 0, 128 * 257))
    deep_grey = half_row(struct.pack(">2H", 0, 0), struct.pack(">2H", 200 * 257, 128 * 257))
    deep_keyed = half_row(struct.pack(">3H", 0x1234, 0, 0), struct.pack(">3H", 200 * 257, 0, 0))
    # Associated alpha: the colours are stored times alpha, 200 * 128 / 255 = 100; 100 * 255 / 128 = 199
    # again, so that 99.9 + 127 = 226.9 remain.
    premultiplied = half_row(bytes([0, 0, 0, 0]), bytes([100, 0, 0, 128])) * 16
    return {
        "rgba": Sample(saved(rgba, "PNG"), "PNG", veiled),
        "rgba_webp": Sample(saved(rgba, "WEBP", lossless=True), "WEBP", veiled),
        "rgba_tiff": Sample(saved(rgba, "TIFF"), "TIFF", veiled),
        "rgba_avif": Sample(saved(rgba, "AVIF", quality=95), "AVIF", veiled, tolerance=6),
        "rgba_16_bit": Sample(png(32, 16, 16, 6, [deep] * 16), "PNG", veiled),
        "premultiplied_tiff": Sample(
            tiff(premultiplied, 32, 16, t258=(8, 8, 8, 8), t262=2, t277=4, t338=1),
            "TIFF",
            veiled,
            tolerance=1,
        ),
        "grey_alpha": Sample(saved(grey_alpha, "PNG"), "PNG", grey_veiled),
        "grey_alpha_16_bit": Sample(png(32, 16, 16, 4, [deep_grey] * 16), "PNG", grey_veiled),
        "palette_alpha": Sample(saved(palette, "PNG", transparency=b"\x00\x80"), "PNG", veiled),
        "palette_transparent_entry": Sample(saved(palette, "PNG", transparency=0), "PNG", hidden_black),
        "gif_transparent": Sample(saved(palette, "GIF", transparency=0), "GIF", hidden_black),
        # One colour that stands for transparent (tRNS), in the depth of the file
        "rgb_key": Sample(
            saved(halves("RGB", (0, 0, 9), (200, 0, 0)), "PNG", transparency=(0, 0, 9)), "PNG", hidden_black
        ),
        "rgb_key_16_bit": Sample(
            png(32, 16, 16, 2, [deep_keyed] * 16, (b"tRNS", struct.pack(">3H", 0x1234, 0, 0))),
            "PNG",
            hidden_black,
        ),
        "grey_key": Sample(saved(halves("L", 7, 85), "PNG", transparency=7), "PNG", keyed_grey),
        # 2 bits: 1 of 0..3 is 85 of 0..255 and 2 is transparent; 4 pixels a byte
        "grey_key_2_bit": Sample(
            png(32, 16, 2, 0, [b"\xaa" * 4 + b"\x55" * 4] * 16, (b"tRNS", b"\0\x02")), "PNG", keyed_grey
        ),
        # 4 bits: 5 of 0..15 is 85 of 0..255 and 9 is transparent; 2 pixels a byte
        "grey_key_4_bit": Sample(
            png(32, 16, 4, 0, [b"\x99" * 8 + b"\x55" * 8] * 16, (b"tRNS", b"\0\x09")), "PNG", keyed_grey
        ),
        "bits_key": Sample(
            png(32, 16, 1, 0, [b"\0\0\xff\xff"] * 16, (b"tRNS", b"\0\0")), "PNG", {LEFT: WHITE, RIGHT: WHITE}
        ),
    }


def _deep() -> dict[str, Sample]:
    # From the lowest to the highest: 1000, 2000, 4000 become 0, 1000 / 3000 * 255 = 85, 255.
    stretched = dict(zip(THIRDS, [BLACK, (85, 85, 85), WHITE], strict=True))
    words = Image.fromarray(thirds("uint16", 1000, 2000, 4000))
    upside_down = dict(zip(THIRDS, [WHITE, (170, 170, 170), BLACK], strict=True))
    one_grey = dict.fromkeys(THIRDS, (64, 64, 64))
    hidden = dict(zip(THIRDS, [WHITE, (85, 85, 85), WHITE], strict=True))
    grey = {"t262": 1, "t277": 1}
    floats = thirds("float32", -0.5, 0.0, 1.0)
    holes = floats.copy()
    holes[0, 0], holes[0, 47], holes[0, 46] = np.nan, np.inf, -np.inf
    big_endian = b"".join(row.astype(">u2").tobytes() for row in thirds("uint16", 1000, 2000, 4000))
    # 0, a third and all of 32 bits without sign: two of them look negative to a reader that expects a sign
    unsigned = thirds("uint32", 0, (2**32 - 1) // 3 * 2, 2**32 - 1).tobytes()
    colors = thirds("uint16", 0, 0, 0)[..., None].repeat(3, axis=2)
    colors[:, 16:32], colors[:, 32:] = (200 * 257, 30 * 257, 30 * 257), (30 * 257, 160 * 257, 60 * 257)
    size = {"width": 48, "height": 16}

    def pgm(header: bytes) -> bytes:
        return header + big_endian

    return {
        "words": Sample(saved(words, "PNG"), "PNG", stretched, **size),
        "words_tiff": Sample(saved(words, "TIFF"), "TIFF", stretched, **size),
        "words_pgm": Sample(pgm(b"P5 48 16 65535\n"), "PPM", stretched, **size),
        # Pillow brings a range of 4000 to 65535 by rounding: the same thirds to within a level
        "words_pgm_odd_range": Sample(pgm(b"P5 48 16 4000\n"), "PPM", stretched, **size, tolerance=1),
        "words_white_is_zero": Sample(
            tiff(thirds("uint16", 1000, 2000, 4000).tobytes(), 48, 16, t258=16, t262=0, t277=1),
            "TIFF",
            upside_down,
            **size,
        ),
        "words_key": Sample(
            png(48, 16, 16, 0, [big_endian[:96]] * 16, (b"tRNS", struct.pack(">H", 1000))),
            "PNG",
            hidden,
            **size,
        ),
        # One value only: nothing to stretch, 16448 / 65535 of white
        "words_of_one_value": Sample(
            saved(Image.fromarray(thirds("uint16", 16448, 16448, 16448)), "PNG"), "PNG", one_grey, **size
        ),
        "words_signed": Sample(
            tiff(thirds("int16", -1000, 0, 2000).tobytes(), 48, 16, t258=16, t339=2, **grey),
            "TIFF",
            stretched,
            **size,
        ),
        "words_rgb": Sample(
            png(48, 16, 16, 2, [row.astype(">u2").tobytes() for row in colors]),
            "PNG",
            dict(zip(THIRDS, [BLACK, RED, GREEN], strict=True)),
            **size,
        ),
        "integers": Sample(
            saved(Image.fromarray(thirds("int32", -(10**9), 0, 2 * 10**9)), "TIFF"), "TIFF", stretched, **size
        ),
        "integers_unsigned": Sample(
            tiff(unsigned, 48, 16, t258=32, t339=1, **grey),
            "TIFF",
            dict(zip(THIRDS, [BLACK, (170, 170, 170), WHITE], strict=True)),
            **size,
        ),
        "floats": Sample(saved(Image.fromarray(floats), "TIFF"), "TIFF", stretched, **size),
        "floats_with_holes": Sample(
            saved(Image.fromarray(holes), "TIFF"),
            "TIFF",
            stretched | {(0, 0): BLACK, (47, 0): WHITE, (46, 0): BLACK},
            **size,
        ),
        "floats_all_nan": Sample(
            saved(Image.fromarray(np.full((16, 48), np.nan, np.float32)), "TIFF"),
            "TIFF",
            {(8, 8): BLACK},
            **size,
        ),
        "floats_pfm": Sample(b"Pf 48 16 -1.0\n" + floats.astype("<f4").tobytes(), "PPM", stretched, **size),
    }


def _inks() -> dict[str, Sample]:
    # Without a profile: 255 * (1 - ink) * (1 - black). Left 60 of cyan and no black: 195, 255, 255;
    # right 255 of yellow and 51 of black: 204, 204, 0. An inverted reading would be dark, bluish.
    left, right = (60, 0, 0, 0), (0, 0, 255, 51)
    seen = {LEFT: (195, 255, 255), RIGHT: (204, 204, 0)}
    picture = halves("CMYK", left, right)
    # Adobe's mark is the segment FF EE of 14 bytes. Without it a JPEG holds the inks as they are; Pillow
    # always writes them inverted, so invert them before.
    straight = _jpeg(Image.eval(picture, lambda ink: 255 - ink))
    mark = straight.index(b"\xff\xee\x00\x0eAdobe")
    unmarked = straight[:mark] + straight[mark + 16 :]
    # A press that prints cyan as sRGB 0, 158, 224 (Lab D50 60, -25, -44) and paper as white
    press = cmyk_profile({(0, 0, 0, 0): (100, 0, 0), (1, 0, 0, 0): (60, -25, -44)})
    full_cyan = halves("CMYK", (255, 0, 0, 0), (0, 0, 0, 0))
    printed = {LEFT: (0, 158, 224), RIGHT: WHITE}
    return {
        "cmyk_jpeg": Sample(_jpeg(picture), "JPEG", seen, tolerance=3),
        "cmyk_jpeg_unmarked": Sample(unmarked, "JPEG", seen, tolerance=3),
        "cmyk_tiff": Sample(saved(picture, "TIFF"), "TIFF", seen),
        "ycck_jpeg": Sample(_ycck(picture), "JPEG", seen, tolerance=4),
        "cmyk_jpeg_profile": Sample(_jpeg(full_cyan, icc_profile=press), "JPEG", printed, tolerance=6),
        "cmyk_tiff_profile": Sample(
            saved(full_cyan, "TIFF", icc_profile=press), "TIFF", printed, tolerance=6
        ),
        "cmyk_jpeg_rgb_profile": Sample(_jpeg(picture, icc_profile=SWAPPED), "JPEG", seen, tolerance=3),
        "cmyk_jpeg_broken_profile": Sample(_jpeg(picture, icc_profile=b"x" * 500), "JPEG", seen, tolerance=3),
    }


def _ycck(picture: Image.Image) -> bytes:
    """A CMYK JPEG as Photoshop writes it: inks inverted, the first three as YCbCr, Adobe's transform 2.

    libjpeg hands out 255 - RGB(YCbCr) for the three (its jdcolor.c), which must be 255 - ink: RGB is the ink.
    Black is stored as 255 - ink. Pillow stores 255 - what it is given.
    """
    *inks, black = picture.split()
    coded = Image.merge("RGB", inks).convert("YCbCr").split()
    given = [Image.eval(channel, lambda value: 255 - value) for channel in coded]
    data = _jpeg(Image.merge("CMYK", [*given, black]))
    transform = data.index(b"\xff\xee\x00\x0eAdobe") + 15
    return data[:transform] + b"\x02" + data[transform + 1 :]


def _profiled() -> dict[str, Sample]:
    picture = quarters()
    swapped = {point: (green, red, blue) for point, (red, green, blue) in QUARTERS.items()}
    in_p3 = {point: srgb_of_p3(color) for point, color in QUARTERS.items()}
    palette = picture.quantize(4)
    rgba = halves("RGBA", (0, 0, 0, 0), (200, 0, 0, 128))
    # Linear light 55 / 255 = 0.2157; sRGB's curve: 1.055 * 0.2157 ** (1 / 2.4) - 0.055 = 0.5018, and
    # 0.5018 * 255 = 128
    lit = {LEFT: (128, 128, 128), RIGHT: WHITE}
    return {
        "display_p3_png": Sample(saved(picture, "PNG", icc_profile=DISPLAY_P3), "PNG", in_p3, tolerance=2),
        "display_p3_jpeg": Sample(_jpeg(picture, icc_profile=DISPLAY_P3), "JPEG", in_p3, tolerance=5),
        "swapped_png": Sample(saved(picture, "PNG", icc_profile=SWAPPED), "PNG", swapped, tolerance=1),
        "swapped_webp": Sample(
            saved(picture, "WEBP", lossless=True, icc_profile=SWAPPED), "WEBP", swapped, tolerance=1
        ),
        "swapped_tiff": Sample(saved(picture, "TIFF", icc_profile=SWAPPED), "TIFF", swapped, tolerance=1),
        "swapped_avif": Sample(
            saved(picture, "AVIF", quality=95, icc_profile=SWAPPED), "AVIF", swapped, tolerance=8
        ),
        "swapped_palette": Sample(saved(palette, "PNG", icc_profile=SWAPPED), "PNG", swapped, tolerance=1),
        "swapped_rgba": Sample(
            saved(rgba, "PNG", icc_profile=SWAPPED), "PNG", {LEFT: WHITE, RIGHT: (127, 227, 127)}, tolerance=1
        ),
        "srgb_profile": Sample(saved(picture, "PNG", icc_profile=SRGB), "PNG", QUARTERS),
        "grey_in_linear_light": Sample(
            saved(halves("L", 55, 255), "PNG", icc_profile=LINEAR_GREY), "PNG", lit, tolerance=1
        ),
        "grey_with_rgb_profile": Sample(
            saved(halves("L", 55, 255), "PNG", icc_profile=SWAPPED),
            "PNG",
            {LEFT: (55, 55, 55), RIGHT: WHITE},
            tolerance=1,
        ),
        "rgb_with_grey_profile": Sample(saved(picture, "PNG", icc_profile=LINEAR_GREY), "PNG", QUARTERS),
        "broken_profile": Sample(saved(picture, "PNG", icc_profile=b"not a profile"), "PNG", QUARTERS),
        "cut_profile": Sample(saved(picture, "PNG", icc_profile=DISPLAY_P3[:200]), "PNG", QUARTERS),
    }


# What undoes each orientation: stored = upright transposed by this, so that turning it shows the upright one.
# EXIF 2.32, 4.6.5.1, says where row 0 and column 0 of the stored picture are seen: 6 = right side and top.
_STORED_BY = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(number: int) -> tuple[Image.Image, Image.Exif]:
    """The quarters as they are stored under an EXIF orientation, and the EXIF that says so."""
    method, exif = _STORED_BY[number], Image.Exif()
    exif[0x0112] = number
    exif[0x010F] = "a camera"
    return (quarters() if method is None else quarters().transpose(method)), exif


def _oriented() -> dict[str, Sample]:
    samples = {}
    for number in _STORED_BY:
        stored, exif = turned(number)
        samples[f"jpeg_orientation_{number}"] = Sample(
            _jpeg(stored, exif=exif), "JPEG", QUARTERS, tolerance=3
        )
        samples[f"png_orientation_{number}"] = Sample(saved(stored, "PNG", exif=exif), "PNG", QUARTERS)
        samples[f"tiff_orientation_{number}"] = Sample(saved(stored, "TIFF", exif=exif), "TIFF", QUARTERS)
    stored, exif = turned(6)
    behind = saved(stored, "PNG")[:-12] + _chunk(b"eXIf", exif.tobytes()[6:]) + _chunk(b"IEND", b"")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    nonsense = Image.Exif()
    nonsense[0x0112] = 9
    return samples | {
        "webp_orientation_6": Sample(saved(stored, "WEBP", lossless=True, exif=exif), "WEBP", QUARTERS),
        "avif_orientation_6": Sample(
            saved(stored, "AVIF", quality=95, exif=exif), "AVIF", QUARTERS, tolerance=8
        ),
        "orientation_behind_the_pixels": Sample(behind, "PNG", QUARTERS),
        "orientation_in_xmp": Sample(_jpeg(stored, xmp=xmp), "JPEG", QUARTERS, tolerance=3),
        "orientation_9": Sample(_jpeg(quarters(), exif=nonsense), "JPEG", QUARTERS, tolerance=3),
        "broken_exif": Sample(_jpeg(quarters(), exif=b"Exif\0\0nonsense"), "JPEG", QUARTERS, tolerance=3),
        "grey_16_bit_orientation_8": _deep_and_turned(),
    }


def _deep_and_turned() -> Sample:
    exif = Image.Exif()
    exif[0x0112] = 8
    words = thirds(
        "uint16", 1000, 2000, 4000
    )  # orientation 8 is shown turned back, so store it turned clockwise
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(words, -1)))
    colors = dict(zip(THIRDS, [BLACK, (85, 85, 85), WHITE], strict=True))
    return Sample(saved(stored, "PNG", exif=exif), "PNG", colors, 48, 16)


def _many() -> dict[str, Sample]:
    first, second = quarters(), Image.new("RGB", (32, 16), (1, 2, 3))
    rest = {"save_all": True, "append_images": [second]}
    return {
        "gif_animated": Sample(saved(first, "GIF", **rest), "GIF", QUARTERS),
        "apng": Sample(saved(first, "PNG", **rest), "PNG", QUARTERS),
        "webp_animated": Sample(saved(first, "WEBP", lossless=True, **rest), "WEBP", QUARTERS),
        "avif_animated": Sample(saved(first, "AVIF", quality=95, **rest), "AVIF", QUARTERS, tolerance=8),
        "tiff_pages": Sample(saved(first, "TIFF", **rest), "TIFF", QUARTERS),
        "mpo": Sample(
            saved(first, "MPO", quality=95, subsampling="4:4:4", **rest), "JPEG", QUARTERS, tolerance=3
        ),
    }


ACCEPTED: dict[str, Sample] = (
    _plain() | _transparent() | _deep() | _inks() | _profiled() | _oriented() | _many()
)


# --- refused


def bomb_png(side: int = 20_000) -> bytes:
    """A whole, valid PNG of one colour: 400 megapixels of one bit in 50 kB."""
    packer, row = zlib.compressobj(9), bytes(1 + side // 8)
    pixels = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def text_bomb_png() -> bytes:
    """A small PNG whose compressed comment unfolds to 64 MiB."""
    comment = b"Comment\0\0" + zlib.compress(bytes(64 * 2**20), 9)
    return png(1, 1, 8, 0, [b"\0"], (b"zTXt", comment))


def scan_bomb_jpeg(scans: int = 500) -> bytes:
    """A progressive JPEG that repeats its last scan; at full size each pass costs a tenth of a second."""
    data = _jpeg(quarters(), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def _header(name: str, width: int, height: int) -> bytes:
    """A file of under 100 bytes that claims a size."""
    if name == "png":
        return png(width, height, 8, 2, [])
    if name == "gif":
        frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08\x01\0\0;"
        return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + frame
    if name == "bmp":
        info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info
    return f"P6 {width} {height} 255\n".encode()


def _refused() -> dict[str, RefusedSample]:
    picture = quarters()
    whole = saved(picture.resize((320, 160)).effect_spread(9), "PNG")
    photo = _jpeg(picture.resize((320, 160)).effect_spread(9))
    progressive = _jpeg(picture.resize((320, 160)).effect_spread(9), progressive=True)
    spread = picture.resize((320, 160)).effect_spread(9)
    bad_sum = bytearray(whole)
    bad_sum[-17] ^= (
        0xFF  # the last byte of the pixels' checksum: before it come IEND's 12 bytes and its own 4
    )
    bad_header_sum = bytearray(whole)
    bad_header_sum[32] ^= 0xFF
    html = b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>"
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    noise = np.random.default_rng(1).bytes(3000)
    cut = "cut short"
    refused = {
        "empty": RefusedSample(b"", "empty"),
        "html_named_png": RefusedSample(html, "web page"),
        "svg": RefusedSample(svg, "SVG", "drawing.svg"),
        "text": RefusedSample(b"a photo of a cat\n" * 9, "not a picture", "cat.txt"),
        "zip": RefusedSample(_zip(saved(picture, "PNG")), "ZIP", "photos.zip"),
        "pdf": RefusedSample(b"%PDF-1.7\n" + bytes(99), "PDF", "scan.pdf"),
        "postscript": RefusedSample(saved(picture, "EPS"), "PostScript", "drawing.eps"),
        "heic": RefusedSample(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "HEIC", "IMG_0001.HEIC"),
        "heic_of_brand_mif1": RefusedSample(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), "HEIC"),
        "film": RefusedSample(b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(99), "video", "cat.mp4"),
        "random_bytes": RefusedSample(noise, "not a picture"),
        "one_byte": RefusedSample(b"\x89", "not a picture"),
        "signature_only": RefusedSample(whole[:8], cut),
        "png_cut": RefusedSample(whole[: len(whole) // 2], cut),
        "png_without_end": RefusedSample(whole[:-12], cut),
        "png_bad_checksum": RefusedSample(bytes(bad_sum), "checksum"),
        "png_bad_header_checksum": RefusedSample(bytes(bad_header_sum), "checksum"),
        "png_text_bomb": RefusedSample(text_bomb_png(), "too large"),
        "jpeg_cut": RefusedSample(photo[: len(photo) // 2], cut),
        "jpeg_progressive_cut": RefusedSample(progressive[: len(progressive) // 2], cut),
        "jpeg_header_only": RefusedSample(photo[:200], cut),
        "jpeg_scan_bomb": RefusedSample(scan_bomb_jpeg(), "passes"),
        "gif_cut": RefusedSample(saved(spread, "GIF")[:4000], cut),
        "webp_cut": RefusedSample(saved(spread, "WEBP")[:500], cut),
        "tiff_cut": RefusedSample(saved(spread, "TIFF")[:5000], cut),
        "tiff_lzw_cut": RefusedSample(saved(spread, "TIFF", compression="tiff_lzw")[:5000], cut),
        "bmp_cut": RefusedSample(saved(spread, "BMP")[:5000], cut),
        "ppm_cut": RefusedSample(saved(spread, "PPM")[:5000], cut),
        "avif_cut": RefusedSample(saved(spread, "AVIF")[:500], cut),
        "bomb": RefusedSample(bomb_png(), "400,000,000 pixels"),
        "plain_ppm_too_large": RefusedSample(b"P3 4001 1000 255\n0 0 0", "Save it as PNG"),
        "png_no_width": RefusedSample(_header("png", 0, 9), cut),
        "png_one_row_of_a_million": RefusedSample(_header("png", 1_000_000, 1), "1000000 x 1 px"),
    }
    for name in ("png", "gif", "bmp", "ppm"):
        refused[f"{name}_claims_millions"] = RefusedSample(
            _header(name, 60_000, 60_000), "3,600,000,000 pixels"
        )
    return refused


def _zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("cat.png", data)
    return file.getvalue()


REFUSED: dict[str, RefusedSample] = _refused()
