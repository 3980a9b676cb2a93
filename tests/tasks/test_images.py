"""Pictures in and out of the tasks: every sort of file to the right colours, and values back to files."""

import io
import random
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from shared.errors import Diverged, InvalidInput
from shared.pictures import inspect_picture
from tasks import images
from tasks.images import contact_sheet, decode, encode_jpeg, encode_png, resize, thumbnail, to_uint8
from tests.pictures import ACCEPTED, MAX_PIXELS, QUARTERS, REFUSED, Sample, quarters, saved
from tests.shared.test_pictures import damaged


def decoded(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    return decode(io.BytesIO(data), max_pixels=max_pixels)


def assert_colors(image: np.ndarray, sample: Sample) -> None:
    seen = {(x, y): image[y, x].tolist() for x, y in sample.colors}
    for point, color in sample.colors.items():
        assert np.abs(np.subtract(seen[point], color)).max() <= sample.tolerance, (point, seen, sample.colors)


@pytest.mark.parametrize("sample", ACCEPTED.values(), ids=ACCEPTED)
def test_a_picture_is_decoded_as_everybody_sees_it(sample: Sample):
    image = decoded(sample.data)

    assert image.shape == (sample.height, sample.width, 3)
    assert image.dtype == np.uint8
    assert_colors(image, sample)


@pytest.mark.parametrize(
    "name", ["jpeg_orientation_6", "grey_16_bit_orientation_8", "rgba", "words", "cmyk_jpeg"]
)
def test_a_picture_decoded_in_many_strips_is_the_same(monkeypatch, name: str):
    whole = decoded(ACCEPTED[name].data)

    monkeypatch.setattr(images, "_STRIP_PIXELS", 100)  # three to six rows of these pictures

    np.testing.assert_array_equal(decoded(ACCEPTED[name].data), whole)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
@pytest.mark.parametrize("sample", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_at_submit_is_not_decoded_either(sample):
    with pytest.raises(InvalidInput):
        decoded(sample.data)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_admitted_at_submit_can_be_decoded_with_the_size_that_was_told(name: str):
    data, chance = ACCEPTED[name].data, random.Random(name)
    for _ in range(40):
        file = io.BytesIO(damaged(data, chance))
        try:
            info = inspect_picture(file, max_pixels=1_000_000)
        except InvalidInput:
            continue
        assert decode(file, max_pixels=1_000_000).shape == (info.height, info.width, 3)


def test_a_picture_is_decoded_in_the_memory_of_its_result():
    width, height = 2000, 1500
    data = saved(Image.linear_gradient("L").resize((width, height)).convert("RGBA"), "PNG", compress_level=1)

    tracemalloc.start()
    decoded(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    # Seen here is numpy's memory: the result's 3 bytes a pixel, and per pixel of a strip of at most a million
    # the alpha and its products, 3 * 2 bytes each of three, and 3 + 4 bytes of its colours.
    assert peak < 3 * width * height + 40 * 1_000_000


def test_resizing_keeps_what_is_constant_and_never_leaves_the_range():
    image = np.random.default_rng(0).uniform(0, 255, (37, 53, 3)).astype(np.float32)

    assert resize(np.full((20, 30, 3), 7.25), (13, 41)).tolist() == np.full((13, 41, 3), 7.25).tolist()
    for size in [(100, 80), (12, 17), (37, 9)]:
        resized = resize(image, size)
        assert resized.shape == (*size, 3)
        assert resized.dtype == np.float32
        assert resized.min() >= image.min() - 1e-3
        assert resized.max() <= image.max() + 1e-3


def test_resizing_to_the_same_size_changes_nothing_and_gives_a_copy():
    image = np.random.default_rng(0).normal(size=(5, 7, 2)).astype(np.float32)

    same = resize(image, (5, 7))

    np.testing.assert_array_equal(same, image)
    assert not np.shares_memory(same, image)


def test_resizing_is_linear_between_pixel_centres():
    # Twice as wide: the new centres lie at -0.25, 0.25, 0.75 and 1.25 of the old ones, held within 0..1
    np.testing.assert_allclose(resize(np.array([[0.0, 8.0]]), (1, 4)), [[0, 2, 6, 8]], atol=1e-5)


def test_shrinking_averages_fine_stripes_away():
    stripes = np.tile(np.array([0, 255], np.float32), 64)[np.newaxis].repeat(128, axis=0)  # one pixel each

    # A triangle over 8 pixels of alternating 0 and 255 gives 127.5; without antialiasing there'd be stripes
    np.testing.assert_allclose(resize(stripes, (32, 32))[4:-4, 4:-4], 127.5, atol=1)


def test_resizing_grey_and_more_channels_keeps_the_axes():
    assert resize(np.zeros((4, 6)), (8, 3)).shape == (8, 3)
    assert resize(np.zeros((4, 6, 1)), (8, 3)).shape == (8, 3, 1)
    assert resize(np.zeros((4, 6, 64)), (8, 3)).shape == (8, 3, 64)


def test_values_are_clipped_and_rounded_half_to_even():
    values = np.array([[-3.0, 0.5, 1.5, 2.5, 254.5, 255.5, 300.0]])

    assert to_uint8(values).tolist() == [[0, 0, 2, 2, 254, 255, 255]]
    assert np.asarray(Image.open(io.BytesIO(encode_png(values)))).tolist() == [[0, 0, 2, 2, 254, 255, 255]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encode", [encode_png, encode_jpeg])
def test_a_picture_that_is_no_number_is_never_written(encode, bad: float):
    image = np.zeros((4, 4, 3), np.float32)
    image[2, 1, 0] = bad

    with pytest.raises(Diverged):
        encode(image)


@pytest.mark.parametrize("shape", [(9, 5), (9, 5, 1), (9, 5, 3)])
def test_a_png_gives_back_exactly_what_was_written(shape: tuple[int, ...]):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    back = np.asarray(Image.open(io.BytesIO(encode_png(image))))

    np.testing.assert_array_equal(back, image.squeeze())


def test_a_view_turned_and_cut_is_written_as_it_looks():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)

    back = decoded(encode_png(np.rot90(image)[1:, ::2]))

    np.testing.assert_array_equal(back, np.rot90(image)[1:, ::2])


def test_a_jpeg_keeps_the_colours_sharp():
    image = np.asarray(quarters())
    image = decoded(encode_jpeg(image.astype(np.float32)))

    for (x, y), color in QUARTERS.items():
        assert (
            np.abs(image[y, x] - np.array(color)).max() <= 3
        )  # quality 92: flat 8 px blocks to a few levels


@pytest.mark.parametrize("encode", [encode_png, encode_jpeg])
def test_a_written_picture_says_nothing_about_where_it_came_from(encode):
    source = ACCEPTED["jpeg_orientation_6"].data
    assert b"a camera" in source

    written = encode(decoded(source))

    assert not Image.open(io.BytesIO(written)).getexif()
    assert all(name not in written for name in (b"a camera", b"Exif", b"eXIf", b"ICC", b"xmp", b"tEXt"))


def test_a_thumbnail_fits_its_square_and_keeps_its_shape():
    assert thumbnail(np.zeros((300, 500, 3), np.uint8), 100).shape == (60, 100, 3)
    assert thumbnail(np.zeros((500, 300)), 100).shape == (100, 60)
    assert thumbnail(np.zeros((2000, 3, 3), np.uint8), 100).shape == (100, 1, 3)
    assert thumbnail(np.full((20, 30, 3), 9.6), 100).tolist() == np.full((20, 30, 3), 10).tolist()


def test_a_contact_sheet_has_every_image_in_its_place():
    tiles = np.arange(5, dtype=np.float32)[:, None, None, None] * np.ones((5, 4, 6, 3), np.float32)

    sheet = contact_sheet(tiles, columns=3, margin_px=2, background=255)

    assert sheet.shape == (2 * (4 + 2) + 2, 3 * (6 + 2) + 2, 3)
    assert sheet.dtype == np.float32
    # Row 1 starts at 2 + (4 + 2) = 8, column 1 at 2 + (6 + 2) = 10
    assert sheet[2:6, 10:16].tolist() == np.full((4, 6, 3), 1).tolist()
    assert sheet[8:12, 10:16].tolist() == np.full((4, 6, 3), 4).tolist()
    assert (sheet[:2] == 255).all()
    assert (sheet[:, 8:10] == 255).all()
    assert (sheet[8:, 18:] == 255).all()  # the cell that is left over


def test_a_contact_sheet_of_grey_images_is_grey():
    assert contact_sheet([np.zeros((4, 4), np.uint8)] * 2, columns=2, margin_px=0).shape == (4, 8)
