"""A trained generator at work: every mode, and every step that was kept."""

import io

import numpy as np
import pytest
from PIL import Image

from shared.errors import InvalidInput
from shared.job import JobStatus
from tests.archives import blobs, npz_of
from tests.tasks.trained import trained_once
from workers.run_job import run_job


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Where the model waits for the next test."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def model_job(queue, run, settings, kept) -> str:
    """A GAN that has made a few steps."""
    dataset = queue.upload(npz_of(images=blobs(40, 32))).id
    tiny = {"base_channels": 4, "latent_dim": 8, "batch_size": 8, "kid_pictures": 0}
    return trained_once(kept, settings, lambda: run("gan_train", dataset=dataset, steps=4, seed=1, **tiny))


def test_each_mode_shows_what_it_made(queue, run, model_job):
    def sample(**params):
        job = run("gan_sample", model_job=model_job, seed=3, **params)
        assert job.status == JobStatus.SUCCEEDED, job.error
        # Four steps of training: what the training warned of, whoever uses its model hears again.
        assert "hardly_trained" in [warning.code for warning in job.warnings]
        vectors = np.load(io.BytesIO(queue.open_artifact(job.id, "latents.npy").read()))
        return np.asarray(Image.open(queue.open_artifact(job.id, "result.png"))), vectors

    # Pictures of 32 px with margins of 2 px; on a way twice enlarged.
    image, vectors = sample(mode="random", count=5)
    assert (image.shape, vectors.shape) == ((2 * 34 + 2, 3 * 34 + 2), (5, 8))
    again, _ = sample(mode="latents", latents=vectors.tolist())
    assert (again == image).all()
    kept, _ = sample(mode="random", count=5, step=4)
    assert (kept == image).all()  # step 4 was the last one
    image, vectors = sample(mode="grid", grid_side=3)
    assert image.shape == (3 * 34 + 2, 3 * 34 + 2)
    _, corners = sample(mode="random", count=4)
    assert np.allclose(vectors[[0, 2, 6, 8]], corners)
    image, vectors = sample(mode="interpolate", count=3, steps=4, truncation=0.7)
    # Two rows of four, which share an end.
    assert (image.shape, len(vectors)) == ((2 * 66 + 2, 4 * 66 + 2), 7)
    assert np.abs(vectors[[0, 3, 6]]).max() <= 0.7


def test_what_does_not_fit_the_model_or_the_mode_is_refused_by_name(queue, model_job):
    refused = [
        ({"mode": "latents"}, "latents"),
        ({"mode": "latents", "latents": [[0.0] * 7]}, "latents"),
        ({"mode": "latents", "latents": [[0.0] * 8], "truncation": 1.0}, "truncation"),
        ({"mode": "interpolate", "latents": [[0.0] * 8]}, "latents"),
        ({"mode": "interpolate", "count": 1}, "count"),
        ({"mode": "random", "steps": 3}, "steps"),
        ({"mode": "random", "truncation": 0}, "truncation"),
        ({"step": 3}, "step"),
        ({"step": "best"}, "step"),  # no KID was taken
        ({"model_job": "0" * 26}, "model_job"),
    ]
    for params, field in refused:
        with pytest.raises(InvalidInput) as error:
            queue.submit("gan_sample", {"model_job": model_job, **params})
        assert error.value.field.split(".")[0] == field, params


def test_a_step_that_was_not_kept_is_told_once_the_training_has_ended(queue):
    tiny = {"base_channels": 4, "latent_dim": 8, "batch_size": 8, "kid_pictures": 0}
    dataset = queue.upload(npz_of(images=blobs(20, 32))).id
    training = queue.submit("gan_train", {"dataset": dataset, "steps": 2, **tiny})
    early = queue.submit("gan_sample", {"model_job": training.id, "step": 1})  # waits: nobody knows yet
    run_job(training.id)
    run_job(early.id)

    failed = queue.get(early.id)
    assert (failed.status, failed.error.code) == (JobStatus.FAILED, "invalid_input")
    assert "generator-step-00000001.keras" in failed.error.message


def test_a_job_that_made_no_generator_is_refused_as_model_job(queue, run, model_job):
    other_kind = queue.submit("steps", {}).id
    dataset = queue.upload(npz_of(images=blobs(20), labels=np.arange(20) % 2)).id
    failed = run("gan_train", dataset=dataset, classes=["frog"])  # an .npz is read by the job alone
    assert failed.error.code == "invalid_input"

    for job_id, because in ((other_kind, "is a steps"), (failed.id, "left no model.keras")):
        with pytest.raises(InvalidInput, match=because) as refused:
            queue.submit("gan_sample", {"model_job": job_id})
        assert refused.value.field == "model_job"
    assert run("gan_sample", model_job=model_job).status == JobStatus.SUCCEEDED
