"""Brightness of one picture, colours of another."""

import numpy as np
import pytest

from tasks.colors import keep_colors, luminance

RANDOM = np.random.default_rng(0)


def test_luminance_is_that_of_bt_601():
    # 0.299 * 100 + 0.587 * 200 + 0.114 * 50 = 29.9 + 117.4 + 5.7 = 153
    assert luminance(np.array([[[100, 200, 50]]], np.uint8)) == pytest.approx(153, abs=1e-4)


def test_the_luminance_stays_that_of_the_result_even_where_colours_must_give_way():
    result, content = RANDOM.uniform(0, 255, (2, 31, 47, 3))

    merged = keep_colors(result, content)

    np.testing.assert_allclose(luminance(merged), luminance(result), atol=1e-3)
    assert merged.min() >= -1e-3
    assert merged.max() <= 255 + 1e-3


def test_where_there_is_room_the_chroma_is_that_of_the_content():
    # The content's luminance is 0.299 * 140 + 0.587 * 100 + 0.114 * 120 = 114.24; its chroma on a grey of 128
    merged = keep_colors(np.full((1, 1, 3), 128.0), np.array([[[140.0, 100.0, 120.0]]]))

    np.testing.assert_allclose(merged, [[[128 + 25.76, 128 - 14.24, 128 + 5.76]]], atol=1e-3)


def test_a_grey_content_gives_a_grey_image_of_the_results_size():
    result = RANDOM.uniform(0, 255, (33, 21, 3))
    content = np.repeat(RANDOM.uniform(0, 255, (50, 40, 1)), 3, axis=2)

    merged = keep_colors(result, content)

    assert merged.shape == (33, 21, 3)
    np.testing.assert_allclose(merged, luminance(result)[..., None].repeat(3, axis=2), atol=1e-3)


def test_a_picture_keeps_itself():
    image = RANDOM.uniform(0, 255, (9, 9, 3))

    np.testing.assert_allclose(keep_colors(image, image), image, atol=1e-3)


def test_black_and_white_have_room_for_no_colour():
    content = np.full((1, 2, 3), [250.0, 10.0, 10.0])

    merged = keep_colors(np.array([[[0.0] * 3, [255.0] * 3]]), content)

    np.testing.assert_allclose(merged, [[[0] * 3, [255] * 3]], atol=1e-3)
