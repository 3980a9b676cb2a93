"""Ways through a latent space cover what the prior covers."""

import numpy as np
import pytest

from tasks.latent_space import (
    gaussian_quantiles,
    great_circle,
    latent_grid,
    principal_plane,
    straight_line,
    through,
    used_dimensions,
)
from tasks.samples import random_latents


def test_the_grid_steps_through_equal_shares_of_the_prior():
    # Quantiles of the standard normal, from any table: 5% -1.6449, 25% -0.6745, 50% 0, 75% 0.6745, 95% 1.6449.
    assert np.allclose(gaussian_quantiles(3), [-1.6449, 0, 1.6449], atol=1e-4)
    assert np.allclose(gaussian_quantiles(19)[4], -0.6745, atol=1e-4)
    assert gaussian_quantiles(1).tolist() == [0]


def test_a_plane_grows_to_the_right_and_upwards():
    grid = latent_grid(3, np.eye(2)).reshape(3, 3, 2)

    assert (np.diff(grid[..., 0], axis=1) > 0).all()
    assert (np.diff(grid[..., 1], axis=0) < 0).all()  # rows are shown from the top


def test_one_dimension_is_a_strip():
    assert latent_grid(5, principal_plane(np.zeros((4, 1)))).shape == (5, 1)


def test_more_dimensions_are_cut_where_the_means_differ_most():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(1000, 5)) * [0.1, 3, 0.1, 2, 0.1]

    plane = principal_plane(means)

    assert np.allclose(plane @ plane.T, np.eye(2))
    assert np.allclose(plane, [[0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], atol=0.02)


def test_dimensions_that_vary_little_or_say_the_same_are_not_counted_as_used():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 1000))

    assert used_dimensions(np.stack([first, second], axis=1)) == 2
    assert used_dimensions(np.stack([first, 0.1 * second], axis=1)) == 1  # a variance of 0.01
    assert used_dimensions(np.stack([first, -first], axis=1)) == 1
    assert used_dimensions(first[:, np.newaxis]) == 1


@pytest.mark.parametrize("way", [straight_line, great_circle])
def test_a_way_begins_and_ends_at_its_ends(way):
    start, end = np.random.default_rng(0).normal(size=(2, 16))

    vectors = way(start, end, 7)

    assert vectors.shape == (7, 16)
    assert np.allclose(vectors[[0, -1]], [start, end])


def test_half_way_on_the_arc_is_as_far_from_0_as_the_ends():
    # Two draws of 100 dimensions are about 10 long and at right angles: the straight line's middle is about 7.07.
    start, end = np.random.default_rng(0).normal(size=(2, 100))

    arc, line = (np.linalg.norm(way(start, end, 3)[1]) for way in (great_circle, straight_line))

    assert abs(arc - (np.linalg.norm(start) + np.linalg.norm(end)) / 2) < 0.5
    assert line < 8 < 9 < arc


@pytest.mark.parametrize("end", [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
def test_an_arc_that_is_none_is_a_line(end):
    assert np.isfinite(great_circle(np.array([1.0, 0.0]), np.array(end), 5)).all()


def test_a_point_between_two_ways_counts_once():
    vectors = through(np.array([[0.0], [4.0], [0.0]]), 5, straight_line)

    assert vectors.ravel().tolist() == [0, 1, 2, 3, 4, 3, 2, 1, 0]


def test_truncated_draws_stay_within_and_more_draws_begin_with_the_same():
    vectors = random_latents(3, 50, 16, truncation=0.5)

    assert np.abs(vectors).max() <= 0.5
    # The density hardly changes between -0.5 and 0.5, so they are spread evenly: half of the 800 in the middle half,
    # give or take four standard deviations of 0.018.
    assert abs((np.abs(vectors) < 0.25).mean() - 0.5) < 0.08
    assert np.abs(random_latents(3, 50, 16, truncation=1e-9)).max() <= 1e-9  # and it comes back at once
    assert (random_latents(3, 10, 16, truncation=0.5) == vectors[:10]).all()
    assert (random_latents(4, 10, 16, truncation=0.5) != vectors[:10]).any()
