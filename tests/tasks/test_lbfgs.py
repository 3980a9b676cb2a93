"""L-BFGS through SciPy: how far it gets, and why it stops."""

import numpy as np
import pytest

from tasks.lbfgs import lbfgs


def quadratic(curvature: np.ndarray, size: float = 1.0):
    """size * sum(curvature * x^2) / 2 and its gradient."""
    return lambda x: (size * float(curvature @ x**2) / 2, size * curvature * x)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_a_loss_is_minimised_alike_however_small_or_large_it_is(size):
    curvature = np.geomspace(1, 1e3, 200)

    stop = lbfgs(quadratic(curvature, size), np.ones(200), iterations=40)
    plain = lbfgs(quadratic(curvature), np.ones(200), iterations=40)

    # SciPy's own tolerances would end the first of these before its first step.
    assert stop.iterations == 40
    assert np.allclose(stop.point, plain.point, atol=1e-6)
    assert quadratic(curvature)(stop.point)[0] < 1e-3 * quadratic(curvature)(np.ones(200))[0]


def test_it_ends_at_once_where_the_gradient_is_zero():
    stop = lbfgs(quadratic(np.ones(5)), np.zeros(5), iterations=10)

    assert (stop.iterations, stop.evaluations, stop.at_minimum) == (0, 1, True)


def test_it_says_so_where_no_step_lowers_the_loss():
    stop = lbfgs(lambda x: (1.0, np.ones_like(x)), np.zeros(5), iterations=10)

    assert stop.iterations <= 1
    assert not stop.at_minimum
    assert stop.message


def test_one_run_with_its_memory_gets_further_than_restarts_without_it():
    curvature = np.geomspace(1, 1e6, 500)
    loss = quadratic(curvature)

    one_run = lbfgs(loss, np.ones(500), iterations=120).point
    restarted = np.ones(500)
    for _ in range(24):
        restarted = lbfgs(loss, restarted, iterations=5).point

    assert loss(one_run)[0] < loss(restarted)[0]


def test_what_a_callback_raises_comes_through():
    class Cancelled(BaseException):
        pass

    def cancel():
        raise Cancelled

    with pytest.raises(Cancelled):
        lbfgs(quadratic(np.ones(5)), np.ones(5), iterations=10, on_iteration=cancel)
