"""The decorrelated basis."""

import numpy as np
import pytest

from tasks.fourier import DecorrelatedBasis


@pytest.mark.parametrize("shape", [(6, 8, 3), (7, 5, 3), (1, 4, 3)])
def test_zero_is_the_origin_itself(shape):
    origin = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)

    assert np.array_equal(DecorrelatedBasis(origin).picture(np.zeros(origin.size)), origin)


@pytest.mark.parametrize("shape", [(6, 8, 3), (8, 6, 3), (7, 5, 3)])
def test_the_gradient_is_that_of_the_picture_by_the_chain_rule(shape):
    """For a linear function g . picture(z), the gradient by z times a step is the change of the function."""
    random = np.random.default_rng(0)
    basis = DecorrelatedBasis(np.zeros(shape))
    weights, step = random.normal(size=shape), random.normal(size=int(np.prod(shape)))

    change = np.sum(weights * basis.picture(step))

    assert basis.gradient(weights) @ step == pytest.approx(change, rel=1e-5)


def test_a_coarse_change_is_a_shorter_step_than_a_fine_one_of_the_same_size():
    basis = DecorrelatedBasis(np.zeros((16, 16, 1)))
    flat, checkered = np.ones((16, 16, 1)), np.indices((16, 16)).sum(axis=0)[..., None] % 2 * 2.0 - 1

    assert np.abs(basis.gradient(flat)).max() > 4 * np.abs(basis.gradient(checkered)).max()


def test_the_first_step_changes_the_pixels_by_about_a_grey_level():
    basis = DecorrelatedBasis(np.zeros((40, 60, 3)))
    direction = np.random.default_rng(0).normal(size=40 * 60 * 3)

    picture = basis.picture(direction / np.linalg.norm(direction))

    assert 0.3 < np.sqrt(np.mean(picture**2)) < 3
