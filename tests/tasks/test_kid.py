"""The kernel inception distance against hand-made numbers, and on real pictures."""

import numpy as np
import pytest

from tasks.built_in_sets import load_built_in
from tasks.images import decode
from tasks.kid import KidReference, kernel_distance, mean_pairwise_distance


def test_the_distance_of_two_points_is_what_the_kernel_says():
    # One feature: k(0,0) = 1, k(1,1) = (1 + 1)^3 = 8, k(0,1) = 1. Unbiased: 1 + 8 - 2 * 1 = 7.
    assert kernel_distance(np.zeros((2, 1)), np.ones((3, 1))) == 7


def test_samples_of_one_distribution_are_0_apart_on_average():
    rng = np.random.default_rng(0)
    distances = [kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(30, 4))) for _ in range(400)]

    # Unbiased even for 20 pictures: the mean of 400 lies within three of its standard errors.
    assert abs(np.mean(distances)) < 3 * np.std(distances) / np.sqrt(400)
    assert min(distances) < 0


def test_a_share_of_bad_pictures_costs_its_square():
    # A squared distance of mean embeddings: with a share s elsewhere the means are s times as far apart.
    # docs/training-pictures.md takes its bound from that.
    rng = np.random.default_rng(0)
    good, more, bad = rng.normal(size=(2000, 4)), rng.normal(size=(2000, 4)), rng.normal(2, 1, size=(2000, 4))

    all_bad, half_bad = (
        kernel_distance(good, other) for other in (bad, np.concatenate([more[:1000], bad[:1000]]))
    )

    assert half_bad / all_bad == pytest.approx(1 / 4, rel=0.05)


def test_pictures_differ_by_their_root_mean_square_difference():
    # Three pictures of 2 pixels: black, white, black and white. Pairs: 255, 255 / sqrt 2, 255 / sqrt 2.
    pictures = np.array([[0, 0], [255, 255], [0, 255]])

    assert mean_pairwise_distance(pictures) == pytest.approx(255 * (1 + 2 / np.sqrt(2)) / 3)


def test_digits_are_nearer_to_digits_than_to_their_negatives(settings):
    digits = load_built_in("digits", settings.weights_dir, lambda done, total: None).train.pictures
    reference = KidReference("squeezenet", digits[:100], weights_dir=settings.weights_dir)

    same, negative = reference.distance(digits[100:200]), reference.distance(255 - digits[100:200])

    assert abs(same) < 0.05
    assert negative > 20 * abs(same)
    assert np.mean(reference.real**2) == pytest.approx(1)


def test_grey_and_colour_have_the_same_features(settings, china):
    picture = decode(china, max_pixels=10**7)[::4, ::4][:96, :96]
    grey = picture[..., :1]
    reference = KidReference("squeezenet", picture[np.newaxis], weights_dir=settings.weights_dir)

    assert np.allclose(
        reference.features(grey[np.newaxis]), reference.features(np.repeat(grey, 3, axis=2)[np.newaxis])
    )
