"""What a picture file is, judged before anything is decoded for good."""

import contextlib
import io
import random
import subprocess
import sys
import threading
import tracemalloc

import pytest
from PIL import Image

from shared import pictures
from shared.errors import InvalidInput
from shared.pictures import PictureInfo, inspect_picture, is_black
from tests.pictures import (
    ACCEPTED,
    MAX_PIXELS,
    REFUSED,
    RefusedSample,
    Sample,
    bomb_png,
    quarters,
    saved,
    text_bomb_png,
    turned,
)


def inspect(data: bytes, max_pixels: int = MAX_PIXELS) -> PictureInfo:
    return inspect_picture(io.BytesIO(data), max_pixels=max_pixels)


@pytest.mark.parametrize("sample", ACCEPTED.values(), ids=ACCEPTED)
def test_a_picture_is_known_by_its_content_with_its_size_as_seen(sample: Sample):
    assert inspect(sample.data) == PictureInfo(width=sample.width, height=sample.height, format=sample.format)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
@pytest.mark.parametrize("sample", REFUSED.values(), ids=REFUSED)
def test_what_is_no_whole_picture_is_refused_with_the_reason_and_what_to_do(sample: RefusedSample):
    with pytest.raises(InvalidInput) as refused:
        inspect(sample.data)

    assert sample.because in refused.value.message
    assert any(
        word in refused.value.message for word in ("Send it", "Upload", "Make", "Crop", "Save", "save")
    )


def test_the_name_of_a_file_says_nothing(tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(ACCEPTED["png"].data)

    assert inspect_picture(path, max_pixels=MAX_PIXELS).format == "PNG"
    assert inspect_picture(str(path), max_pixels=MAX_PIXELS).format == "PNG"


@pytest.mark.parametrize("name", ["tiff", "tiff_lzw", "bmp", "mpo", "webp_animated"])
def test_a_file_on_disk_is_read_like_one_in_memory(tmp_path, name: str):
    path = tmp_path / "picture"
    path.write_bytes(ACCEPTED[name].data)

    assert inspect_picture(path, max_pixels=MAX_PIXELS) == inspect(ACCEPTED[name].data)


def test_a_file_that_is_not_there_is_no_fault_of_the_picture(tmp_path):
    with pytest.raises(FileNotFoundError):
        inspect_picture(tmp_path / "none.png", max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "F", "CMYK"])
def test_a_picture_is_black_until_one_pixel_is_not(mode: str):
    """All-zero values are black in each mode but CMYK, in which they are white paper."""
    picture = Image.new("RGB", (5, 3)).convert("CMYK") if mode == "CMYK" else Image.new(mode, (5, 3))
    if mode == "P":
        picture.putpalette([0, 0, 0, 255, 255, 255])
    kind = "TIFF" if mode in ("F", "I", "I;16", "CMYK") else "PNG"
    assert is_black(io.BytesIO(saved(picture, kind)), max_pixels=MAX_PIXELS)

    white = {"LA": (255, 255), "RGB": (255,) * 3, "RGBA": (255,) * 4, "CMYK": (0,) * 4}.get(mode, 1)
    picture.putpixel((2, 1), white)
    assert not is_black(io.BytesIO(saved(picture, kind)), max_pixels=MAX_PIXELS)


def test_what_is_transparent_all_over_is_black_whatever_its_colours():
    clear = Image.new("RGBA", (5, 3), (255, 255, 255, 0))
    assert is_black(io.BytesIO(saved(clear, "PNG")), max_pixels=MAX_PIXELS)

    clear.putpixel((2, 1), (0, 0, 0, 255))
    assert is_black(io.BytesIO(saved(clear, "PNG")), max_pixels=MAX_PIXELS)


def test_the_caller_keeps_its_file_open():
    file = io.BytesIO(ACCEPTED["jpeg"].data)

    inspect_picture(file, max_pixels=MAX_PIXELS)

    assert not file.closed


def test_the_pixel_limit_is_the_last_number_that_is_taken():
    data = saved(quarters(), "PNG")  # 32 x 16 = 512 pixels

    assert inspect(data, max_pixels=512).width == 32
    with pytest.raises(InvalidInput, match=r"32 x 16 = 512 pixels; at most 511"):
        inspect(data, max_pixels=511)


@pytest.mark.parametrize("data", [bomb_png(), text_bomb_png()], ids=["pixels", "text"])
def test_a_bomb_is_refused_without_unfolding_it(data: bytes):
    tracemalloc.start()
    with pytest.raises(InvalidInput):
        inspect(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # Pillow's readers take blocks and text of at most 1 MiB; unfolded, the bombs have 50 and 64 MiB
    assert peak < 8 * 2**20


def test_a_large_picture_is_whole_under_a_limit_above_the_readers_own(recwarn):
    # 13,500 ** 2 = 182 megapixels is beyond Pillow's hard limit of 2 * 89.5, at one bit a pixel quickly read
    data = saved(Image.new("1", (13_500, 13_500)), "TIFF", compression="group4")

    assert inspect(data, max_pixels=200_000_000).width == 13_500
    assert not recwarn.list
    assert Image.MAX_IMAGE_PIXELS == 1024 * 1024 * 1024 // 4 // 3


def test_a_file_larger_than_any_picture_of_the_limit_is_refused_unread(monkeypatch):
    monkeypatch.setattr(pictures, "_METADATA_BYTES", 1000)

    with pytest.raises(InvalidInput, match=r"at most 5,096\. Save its picture alone"):
        inspect(saved(quarters(), "PNG") + bytes(9000), max_pixels=512)  # 8 * 512 + 1000 = 5096


def test_width_and_height_are_swapped_once_for_a_picture_on_its_side():
    stored, exif = turned(6)

    assert stored.size == (16, 32)
    assert inspect(saved(stored, "JPEG", exif=exif)).width == 32


def test_many_threads_may_look_at_once():
    found, samples = [], [ACCEPTED[name] for name in ("jpeg", "png", "tiff_lzw", "webp_lossy", "gif")]

    def look(sample: Sample) -> None:
        found.extend((inspect(sample.data).format, sample.format) for _ in range(20))

    threads = [threading.Thread(target=look, args=(sample,)) for sample in samples]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 100
    assert all(seen == expected for seen, expected in found)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ACCEPTED)
def test_a_damaged_file_is_taken_or_refused_and_nothing_else(name: str):
    data, chance = ACCEPTED[name].data, random.Random(name)
    for _ in range(40):
        with contextlib.suppress(InvalidInput):
            inspect(damaged(data, chance), max_pixels=1_000_000)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A copy with a few bytes changed (mostly near the start, where the headers are), cut or doubled."""
    copy = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5])):
        reach = len(copy) if chance.random() < 0.3 else min(len(copy), 200)
        at = chance.randrange(max(1, reach))
        match chance.randrange(4):
            case 0:
                copy[at : at + 1] = bytes([chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])])
            case 1:
                del copy[at : at + chance.choice([1, 2, 4, 50])]
            case 2:
                copy[at:at] = copy[at : at + chance.choice([1, 4, 30])]
            case 3:
                copy[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
    return bytes(copy)


def test_judging_a_picture_loads_neither_numpy_nor_tensorflow():
    code = "import sys, shared.pictures; sys.exit(bool({'numpy', 'tensorflow', 'tasks'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
