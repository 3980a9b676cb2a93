"""The losses of style transfer against numbers worked out by hand, or with NumPy in float64."""

import numpy as np
import pytest

from tasks.style_losses import (
    at_positions,
    content_loss_book,
    content_loss_gatys,
    gram_matrix,
    style_loss_book,
    style_loss_gatys,
    total_variation_loss,
)

# Two channels at four positions, as the paper writes features: (channels, positions).
PAINTED = np.array([[1, 2, 3, 4], [0, 1, 0, 1]], np.float32)
STYLE = np.array([[1, 1, 1, 1], [2, 0, 2, 0]], np.float32)


def features(channels_by_positions: np.ndarray) -> np.ndarray:
    """(channels, 4) -> (height 2, width 2, channels)."""
    return channels_by_positions.T.reshape(2, 2, -1)


def test_a_gram_matrix_holds_the_products_of_all_channels():
    # Rows times rows by hand: 1+4+9+16 = 30, 2+4 = 6, 1+1 = 2; and 4, 2+2 = 4, 4+4 = 8.
    assert np.array_equal(gram_matrix(features(PAINTED)), [[30, 6], [6, 2]])
    assert np.array_equal(gram_matrix(features(STYLE)), [[4, 4], [4, 8]])


def test_a_gram_matrix_of_half_floats_does_not_overflow():
    half = np.full((2, 2, 1), 300, np.float16)  # the sum of squares, 360,000, is beyond a half float's 65504

    assert np.array_equal(gram_matrix(half), [[360_000.0]])


def test_a_mask_leaves_its_positions_out_of_a_gram_matrix():
    mask = np.array([[0, 1], [0, 1]], np.float32)  # the second and the fourth position

    assert np.array_equal(gram_matrix(features(PAINTED), mask), [[4 + 16, 2 + 4], [2 + 4, 1 + 1]])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (style_loss_book, 720 / (4 * 3**2 * 4**2)),  # 1.25
        (style_loss_gatys, 720 / (4 * 2**2 * 4**2)),  # 2.8125
    ],
)
def test_a_style_loss_divides_by_the_constants_of_its_source(loss, expected):
    # Squared differences by hand: 26^2 + 2^2 + 2^2 + 6^2 = 720.
    painted, style = gram_matrix(features(PAINTED)), gram_matrix(features(STYLE))

    assert float(loss(painted, style, pixels=4, positions=4)) == expected


def test_the_size_is_squared_and_not_doubled_as_in_copies_of_the_chapter():
    painted, style = gram_matrix(features(PAINTED)), gram_matrix(features(STYLE))
    pixels = 400 * 400

    ours = float(style_loss_book(painted, style, pixels=pixels, positions=pixels))

    slip = 720 / (4 * 3**2 * pixels * 2)
    assert slip / ours == pytest.approx(80_000)  # pixels / 2


def test_a_picture_repeated_side_by_side_has_the_same_style():
    once = features(PAINTED)
    twice = np.concatenate([once, once], axis=1)

    compared = at_positions(gram_matrix(twice), 8, 4)

    assert np.array_equal(compared, gram_matrix(once))


def test_the_content_loss_is_the_papers_half_and_the_books_whole():
    # (0, 1, 2, 3) and (-2, 1, -2, 1) apart: 14 + 10 = 24.
    assert float(content_loss_book(features(PAINTED), features(STYLE))) == 24
    assert float(content_loss_gatys(features(PAINTED), features(STYLE))) == 12


def test_total_variation_has_the_books_value():
    # NumPy in float64: the four (down, right) differences are all (9, 3): of 3 channels and 1 x 2 places, 6 * 90^1.25.
    picture = np.arange(18, dtype=np.float32).reshape(2, 3, 3)

    assert float(total_variation_loss(picture)) == pytest.approx(1663.2379556501523, rel=1e-6)
    assert pytest.approx(1663.2379556501523, rel=1e-12) == 6 * 90**1.25


@pytest.mark.parametrize("shape", [(3, 5, 3), (5, 3, 3), (7, 2, 3)])
def test_total_variation_is_that_of_the_transposed_picture(shape):
    picture = np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)
    down = np.diff(picture.astype(np.float64), axis=0)[:, :-1]
    right = np.diff(picture.astype(np.float64), axis=1)[:-1]
    expected = np.sum((down**2 + right**2) ** 1.25)

    assert float(total_variation_loss(picture)) == pytest.approx(expected, rel=1e-5)
    assert float(total_variation_loss(picture.transpose(1, 0, 2))) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_total_variation_is_finite_in_a_flat_picture():
    import tensorflow as tf

    picture = tf.fill((4, 6, 3), 7.0)
    with tf.GradientTape() as tape:
        tape.watch(picture)
        loss = total_variation_loss(picture)

    assert np.array_equal(tape.gradient(loss, picture), np.zeros((4, 6, 3)))
