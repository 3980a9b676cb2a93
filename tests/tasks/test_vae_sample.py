"""A trained VAE at work: every mode, and concept vectors that mean what they say."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from shared.errors import InvalidInput
from shared.job import JobStatus
from tasks.vae_sample import balanced_difference
from tests.archives import blobs, folder_of, npz_of, png, zip_of
from tests.tasks.trained import trained_once


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the model waits for the next test."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def model_job(queue, run, settings, kept) -> str:
    """A VAE of spots to the left and to the right; its latent space is hardly formed, and that is no matter here."""
    images = blobs(64)
    labels = np.where(images[:, :, :6].sum(axis=(1, 2)) > images[:, :, 6:].sum(axis=(1, 2)), "left", "right")
    dataset = queue.upload(npz_of(images=images, labels=labels)).id
    return trained_once(
        kept, settings, lambda: run("vae_train", dataset=dataset, epochs=1, batch_size=8, seed=1)
    )


@pytest.fixture
def pictures(queue) -> list[str]:
    """A grey picture of the training's size, and a larger one in colour."""
    return [queue.upload(png(blobs(1, seed=9)[0])).id, queue.upload(png(blobs(1, 30, 3, seed=8)[0])).id]


@pytest.fixture
def sample(run, model_job):
    def run_sample(**params):
        job = run("vae_sample", model_job=model_job, seed=3, **params)
        assert job.status == JobStatus.SUCCEEDED, job.error
        return job

    return run_sample


@pytest.fixture
def image(queue):
    return lambda job, name="result.png": np.asarray(Image.open(queue.open_artifact(job.id, name)))


@pytest.fixture
def array(queue):
    return lambda job, name: np.load(io.BytesIO(queue.open_artifact(job.id, name).read()))


def test_each_mode_shows_what_it_made(sample, image, array, pictures):
    # Pictures of 12 px are shown twice enlarged, with margins of 2 px.
    assert image(sample(mode="random", count=5)).shape == (2 * 26 + 2, 3 * 26 + 2)
    assert image(sample(mode="grid", grid_side=4)).shape == (4 * 26 + 2, 4 * 26 + 2)
    reconstruct = sample(mode="reconstruct", pictures=pictures)
    assert image(reconstruct).shape == (2 * 26 + 2, 2 * 26 + 2)
    assert image(reconstruct, "reconstruction-02.png").shape == (12, 12)
    between = sample(mode="interpolate", pictures=pictures, steps=5)
    ends = array(reconstruct, "latents.npy")
    assert np.allclose(array(between, "latents.npy"), np.linspace(ends[0], ends[1], 5), atol=1e-6)
    assert between.artifact("result.webp").media_type == "image/webp"
    given = sample(mode="interpolate", latents=[[0, 0], [1, 0], [1, 2]], steps=3)
    assert array(given, "latents.npy").tolist() == [[0, 0], [0.5, 0], [1, 0], [1, 1], [1, 2]]


def test_the_strip_of_a_concept_starts_from_the_plain_reconstruction(sample, image, array, pictures):
    plain = sample(mode="reconstruct", pictures=pictures)
    strengths = [-2.0, 0.0, 2.0]

    edited = sample(mode="concept", pictures=pictures, positive_labels=["left"], strengths=strengths)

    # Pictures of 12 px are shown five times enlarged, with margins of 2 px.
    assert image(edited).shape == (2 * 62 + 2, 3 * 62 + 2)
    strip = image(edited, "strip-02.png")
    assert (strip[2:62:5, 64:124:5] == image(plain, "reconstruction-02.png")).all()
    assert (strip[2:62, 2:62] != strip[2:62, 126:186]).any()
    # Adding the vector and taking it away again: the edits of -s and s lie evenly around the mean.
    assert np.linalg.norm(array(edited, "concept.npy")) == pytest.approx(edited.summary["concept_length"])


def test_a_concept_and_its_opposite_are_each_others_negative(sample, array, pictures):
    one, other = (
        array(sample(mode="concept", pictures=pictures[:1], positive_labels=[label]), "concept.npy")
        for label in ("left", "right")
    )

    assert np.allclose(one, -other)
    assert np.linalg.norm(one) > 0


def test_a_concept_of_two_sets_is_kept_and_used_again(queue, sample, image, array, pictures):
    sides = [np.zeros((6, 12, 12), np.uint8) for _ in range(2)]
    sides[0][:, :, :6], sides[1][:, :, 6:] = 255, 255
    uploads = [queue.upload(zip_of(folder_of(side))).id for side in sides]
    first = sample(mode="concept", pictures=pictures, positive_set=uploads[0], negative_set=uploads[1])

    again = sample(mode="concept", pictures=pictures, concept_job=first.id)

    assert (array(again, "concept.npy") == array(first, "concept.npy")).all()
    assert (image(again) == image(first)).all()


def test_sides_that_differ_in_nothing_are_refused(queue, run, model_job, pictures):
    same = blobs(4)
    uploads = [queue.upload(zip_of({**folder_of(same), ".note": note})).id for note in (b"a", b"b")]

    job = run(
        "vae_sample", model_job=model_job, mode="concept", pictures=pictures, positive_set=uploads[0],
        negative_set=uploads[1],
    )  # fmt: skip

    assert (job.status, job.error.code) == (JobStatus.FAILED, "invalid_input")
    assert "the two sides are the same" in job.error.message


def test_what_both_sides_have_in_common_does_not_count():
    # Smiling women and men against serious men alone: the difference is the smile (1), not the women (10).
    smiling = {None: np.array([6.0]), "women": np.array([11.0]), "men": np.array([1.0])}
    serious = {None: np.array([0.0]), "men": np.array([0.0])}

    assert balanced_difference(smiling, serious).tolist() == [1.0]
    assert balanced_difference({None: np.array([6.0])}, serious).tolist() == [6.0]


def test_what_does_not_fit_the_model_or_the_mode_is_refused_by_name(queue, run, model_job, pictures):
    upload = queue.upload(zip_of(folder_of(blobs(3)))).id
    empty = queue.upload(zip_of({".hidden": b""})).id
    concept = {"mode": "concept", "pictures": pictures}
    refused = [
        ({"mode": "interpolate", "latents": [[0, 0], [1, 2, 3]]}, "latents"),
        ({"mode": "interpolate", "latents": [[0, 0], [1e300, 0]]}, "latents"),
        ({"mode": "interpolate", "pictures": pictures[:1]}, "pictures"),
        ({"mode": "interpolate", "pictures": pictures, "latents": [[0, 0], [1, 1]]}, "latents"),
        ({"mode": "reconstruct"}, "pictures"),
        ({"mode": "random", "pictures": pictures}, "pictures"),
        ({"mode": "grid", "count": 5}, "count"),
        (concept, "positive_labels"),
        ({**concept, "positive_labels": ["left"], "strengths": []}, "strengths"),
        ({**concept, "positive_labels": ["left"], "strengths": [math.nan]}, "strengths"),
        ({**concept, "positive_labels": ["left"], "strengths": [1e300]}, "strengths"),
        ({**concept, "positive_labels": ["up"]}, "positive_labels"),
        ({**concept, "positive_labels": ["left", "right"]}, "positive_labels"),
        ({**concept, "positive_labels": ["left"], "negative_labels": ["left"]}, "negative_labels"),
        ({**concept, "positive_set": upload}, "negative_set"),
        ({**concept, "positive_set": upload, "negative_set": upload}, "negative_set"),
        ({**concept, "positive_set": empty, "negative_set": upload}, "positive_set"),
        ({**concept, "positive_set": upload, "positive_labels": ["left"]}, "positive_set"),
        ({**concept, "concept_job": model_job}, "concept_job"),
        ({"mode": "random", "model_job": "0" * 26}, "model_job"),
    ]
    for params, field in refused:
        with pytest.raises(InvalidInput) as error:
            queue.submit("vae_sample", {"model_job": model_job, **params})
        assert error.value.field.split(".")[0] == field, params


def test_a_sample_may_wait_for_its_training(queue, run):
    training = queue.submit("vae_train", {"dataset": queue.upload(npz_of(images=blobs(16))).id, "epochs": 1})

    waiting = queue.submit("vae_sample", {"model_job": training.id}, depends_on=[training.id])

    assert waiting.status == JobStatus.WAITING
