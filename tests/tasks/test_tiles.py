"""Tiles cover a picture, and what they give is blended without seams."""

import numpy as np
import pytest

from tasks.tiles import Tiles, fade, starts

SIDES = [(100, 100), (101, 100), (150, 100), (188, 100), (400, 100), (1000, 64), (65, 64)]


@pytest.mark.parametrize(("length", "tile"), SIDES)
def test_tiles_cover_a_side_from_end_to_end_and_overlap_by_an_eighth(length: int, tile: int) -> None:
    for seed in range(50):
        places = starts(length, tile, np.random.default_rng(seed))

        assert places[0] == 0
        assert places[-1] == length - tile
        assert all(0 < gap <= tile - tile // 8 for gap in np.diff(places))


def test_borders_of_tiles_lie_elsewhere_in_each_step() -> None:
    places = {starts(400, 100, np.random.default_rng(seed))[1] for seed in range(50)}

    # Four tiles reach 100 + 3 * 88 = 364 < 400; five have 52 px to spare.
    assert len(places) > 20
    assert max(places) - min(places) > 40


def test_a_picture_no_larger_than_a_tile_is_one_tile() -> None:
    tiles = Tiles((80, 100), (80, 100), np.random.default_rng(0))

    assert tiles.boxes == [(slice(0, 80), slice(0, 100))]


def test_blending_pieces_of_a_picture_gives_the_picture_back() -> None:
    picture = np.random.default_rng(0).normal(size=(150, 211, 3)).astype(np.float32)
    tiles = Tiles((150, 211), (64, 64), np.random.default_rng(1))

    blended = tiles.blend(lambda box: picture[box])

    np.testing.assert_allclose(blended, picture, atol=1e-5)


def test_tiles_that_disagree_fade_into_each_other() -> None:
    tiles = Tiles((64, 400), (64, 100), np.random.default_rng(1))

    # Each tile gives the number of its first column: hard edges would jump by up to 88 from one column to the next.
    blended = tiles.blend(lambda box: np.full((64, 100, 3), box[1].start, np.float32))

    # Across the overlap of at least 12 columns, no step is larger than 88 / (12 - 1).
    assert np.abs(np.diff(blended[0, :, 0])).max() <= 8


def test_a_tile_counts_fully_inside_and_hardly_at_its_ends() -> None:
    weights = fade(slice(10, 90))

    # 80 // 8 = 10 columns of ramp: 1/11, 2/11, ... 10/11, then 1.
    np.testing.assert_allclose(weights[:12], [*(np.arange(1, 11) / 11), 1, 1], rtol=1e-6)
    np.testing.assert_array_equal(weights, weights[::-1])
