"""The VAE: its mathematics against known numbers, and trainings that can be trusted."""

import csv
import io
import time

import keras
import numpy as np
import pytest
from PIL import Image

from shared.errors import InvalidInput, JobCancelled
from shared.job import JobStatus
from shared.kinds.training_pictures import enough_epochs
from shared.kinds.vae_train import VaeTrainParams
from tasks import vae_train
from tasks.networks.vae import (
    LOG_VAR_BOUND,
    VaeConfig,
    build_vae,
    decoder_logits,
    kl_divergence,
    reconstruction_loss,
    sample_latent,
)
from tasks.training import CALL_S, Pace
from tests.archives import blobs, folder_of, npz_of, zip_of
from tests.tasks.attempts import finish, interrupt


def config_of(height=8, width=8, channels=1, latent_dim=2, architecture="book") -> VaeConfig:
    return VaeConfig(
        height=height,
        width=width,
        channels=channels,
        latent_dim=latent_dim,
        architecture=architecture,
        fit="crop",
    )


@pytest.fixture
def dataset(queue) -> str:
    """100 small pictures with two labels: 11 batches of 8 to an epoch."""
    images = blobs(100)
    labels = (images[:, :, :6].sum(axis=(1, 2)) > images[:, :, 6:].sum(axis=(1, 2))).astype(int)
    return queue.upload(npz_of(images=images, labels=labels)).id


def rows_of(queue, job) -> list[dict[str, float]]:
    text = queue.open_artifact(job.id, "history.csv").read().decode()
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]


def image_of(queue, job, name) -> np.ndarray:
    return np.asarray(Image.open(queue.open_artifact(job.id, name)))


def test_the_kl_divergence_has_its_known_values():
    # -1/2 sum(1 + log_var - mean^2 - var) = 1/2 (0.25 + (1 + 4 - 1 - ln 4)) = 1.43185281944...
    mean, log_var = np.array([[0.5, -1.0], [0.0, 0.0]]), np.array([[0.0, np.log(4)], [0.0, 0.0]])

    assert np.allclose(kl_divergence(mean, log_var), [1.4318528194400546, 0.0], rtol=1e-12, atol=0)


def test_noise_is_scaled_by_the_standard_deviation():
    # log_var = ln 9 is a variance of 9, a standard deviation of 3.
    assert np.allclose(sample_latent(np.array([[1.0]]), np.log([[9.0]]), np.array([[2.0]])), [[7.0]])


def test_log_var_is_bounded_whatever_the_weights():
    vae = build_vae(config_of())
    vae.set_weights([weight * 1e6 for weight in vae.get_weights()])

    _, log_var, _ = vae(np.random.default_rng(0).random((4, 8, 8, 1), np.float32))

    assert np.isfinite(log_var).all()
    assert np.abs(log_var).max() <= LOG_VAR_BOUND


def test_bce_is_the_cross_entropy_summed_over_the_picture():
    rng = np.random.default_rng(0)
    pictures, logits = rng.random((2, 3, 4, 1)), rng.normal(size=(2, 3, 4, 1))
    probability = 1 / (1 + np.exp(-logits))
    values = -(pictures * np.log(probability) + (1 - pictures) * np.log(1 - probability))

    assert np.allclose(reconstruction_loss(pictures, logits, "bce"), values.sum(axis=(1, 2, 3)))
    # A logit of -10,000 where the picture is white costs 10,000 nats, not infinitely many.
    assert np.allclose(reconstruction_loss(np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), -1e4), "bce"), [1e4])


def test_mse_is_the_squared_difference_summed_over_the_picture():
    # A logit of 0 is grey, 1/2 away from each of the 12 black pixels.
    assert np.allclose(reconstruction_loss(np.zeros((1, 3, 4, 1)), np.zeros((1, 3, 4, 1)), "mse"), [3.0])


@pytest.mark.parametrize("architecture", ["book", "deep"])
@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 1), (28, 28, 1), (7, 33, 3), (64, 50, 3)])
def test_a_picture_of_any_size_comes_back_in_its_size(architecture, height, width, channels):
    vae = build_vae(config_of(height, width, channels, 3, architecture))

    mean, log_var, reconstruction = vae(np.zeros((2, height, width, channels), np.float32))

    assert mean.shape == log_var.shape == (2, 3)
    assert reconstruction.shape == (2, height, width, channels)


def test_the_logits_are_what_the_sigmoid_is_taken_of():
    decoder = build_vae(config_of()).get_layer("decoder")
    vectors = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)

    logits = decoder_logits(decoder)(vectors).numpy()

    assert np.allclose(decoder(vectors), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_a_training_leaves_a_model_that_keras_loads_in_safe_mode(queue, run, tmp_path, dataset):
    job = run("vae_train", dataset=dataset, epochs=2, batch_size=8, seed=1)

    assert job.status == JobStatus.SUCCEEDED, job.error
    assert {artifact.name for artifact in job.artifacts} == {
        "model.keras", "model.json", "latents.npz", "history.csv", "latent-grid-epoch-0001.png",
        "latent-grid-epoch-0002.png", "latent-grid.png", "reconstructions.png", "latents.png",
    }  # fmt: skip
    path = tmp_path / "model.keras"
    path.write_bytes(queue.open_artifact(job.id, "model.keras").read())
    vae = keras.saving.load_model(path, safe_mode=True)
    grid = image_of(queue, job, "latent-grid.png")
    # The middle of the grid's 15 x 15 pictures, 12 px each twice enlarged, with margins of 2 px, is the latent 0.
    middle = vae.get_layer("decoder")(np.zeros((1, 2), np.float32)).numpy()[0, ..., 0]
    assert grid.shape == (15 * 26 + 2, 15 * 26 + 2)
    assert np.abs(grid[184:208:2, 184:208:2] - 255 * middle).max() <= 1
    rows = rows_of(queue, job)
    assert [row["step"] for row in rows] == [11, 22]
    assert rows[1]["held_out_bound"] < rows[0]["held_out_bound"]
    assert job.summary["held_out_bound"] == rows[1]["held_out_reconstruction"] + rows[1]["held_out_kl"]


def test_color_of_any_proportions_is_trained_on_and_comes_back(queue, run):
    images = np.repeat(blobs(20, channels=3), 2, axis=2)[:, :11, :17]

    job = run(
        "vae_train", dataset=queue.upload(npz_of(images=images)).id, epochs=1, batch_size=16, latent_dim=3,
        reconstruction="mse",
    )  # fmt: skip

    assert job.status == JobStatus.SUCCEEDED, job.error
    # Two held-out pictures side by side, three times enlarged, reconstructions below, margins of 2 px.
    assert image_of(queue, job, "reconstructions.png").shape == (2 * 22 + 6, 2 * 34 + 6, 3)
    assert not [
        artifact for artifact in job.artifacts if artifact.name == "latents.png"
    ]  # there are no labels


def test_one_latent_dimension_is_shown_as_a_strip(queue, run, dataset):
    job = run("vae_train", dataset=dataset, epochs=1, batch_size=30, latent_dim=1)

    assert image_of(queue, job, "latent-grid.png").shape == (26 + 2, 15 * 26 + 2)
    assert job.artifact("latents.png")  # a row for each label


def test_from_64_px_on_the_deeper_architecture_is_taken_unless_one_is_named():
    params = VaeTrainParams(dataset="digits")

    assert [params.chosen_architecture(64, side) for side in (63, 64, 500)] == ["book", "deep", "deep"]
    assert VaeTrainParams(dataset="digits", architecture="book").chosen_architecture(64, 64) == "book"


def test_a_call_of_many_steps_lasts_no_longer_than_a_cancel_may_wait():
    pace = Pace()
    with pace.timed(1):
        pass
    assert 1 <= pace.steps <= 8  # the first call says little, so it grows by degrees
    with pace.timed(8):
        time.sleep(0.4)
    assert 1 <= pace.steps <= 8 * CALL_S / 0.4  # 50 ms for each step, or more on a busy machine
    with pace.timed(1):
        time.sleep(2 * CALL_S)
    assert pace.steps == 1


def test_the_same_job_gives_the_same_bytes_in_a_warm_process(run, dataset):
    first, second = (run("vae_train", dataset=dataset, epochs=1, batch_size=8, seed=5) for _ in range(2))

    assert {a.name: a.sha256 for a in first.artifacts} == {a.name: a.sha256 for a in second.artifacts}


def test_a_resumed_training_equals_an_unbroken_one(queue, run, dataset):
    params = {"dataset": dataset, "epochs": 3, "batch_size": 8, "seed": 5}
    unbroken = run("vae_train", **params)
    broken = queue.submit("vae_train", params).id

    interrupt(queue, broken, vae_train.run, stop_at=5)  # within the first epoch
    interrupt(queue, broken, vae_train.run, stop_at=22)  # between the second epoch's last step and its end
    resumed = finish(queue, broken)

    assert resumed.summary["resumed_from_step"] == 22
    assert {a.name: a.sha256 for a in unbroken.artifacts} == {a.name: a.sha256 for a in resumed.artifacts}


def test_a_cancelled_training_leaves_a_model_that_can_be_used(queue, run, dataset):
    job_id = queue.submit("vae_train", {"dataset": dataset, "epochs": 50, "batch_size": 8}).id

    stopped = interrupt(queue, job_id, vae_train.run, stop_at=1, reason="user")

    assert isinstance(stopped, JobCancelled)
    sample = run("vae_sample", model_job=job_id, count=4)
    assert sample.status == JobStatus.SUCCEEDED, sample.error


def test_a_training_that_diverges_ends_on_its_last_good_model(queue, run, dataset):
    # Steps of a thousand in every weight: squares of the means overflow within a few.
    job = run("vae_train", dataset=dataset, epochs=5, batch_size=8, learning_rate=1000.0)

    assert (job.status, job.error.code) == (JobStatus.FAILED, "diverged")
    assert "What is left is the model of step" in job.error.message
    assert job.checkpoints[0].step == job.summary["last_good_step"]
    assert run("vae_sample", model_job=job.id, count=4).status == JobStatus.SUCCEEDED


def test_a_latent_space_that_collapses_is_warned_of(run, dataset):
    job = run("vae_train", dataset=dataset, epochs=4, batch_size=8, beta=1000.0, learning_rate=0.01)

    assert "kl_collapsed" in [warning.code for warning in job.warnings]
    assert job.summary["held_out_kl"] < 0.1


def test_a_latent_space_of_which_much_is_unused_is_warned_of(queue, run):
    # Black or white: one bit, for which one of four dimensions is enough.
    images = np.repeat([[[0]], [[255]]], 50, axis=0).astype(np.uint8) * np.ones((1, 8, 8), np.uint8)
    dataset = queue.upload(npz_of(images=images)).id

    job = run("vae_train", dataset=dataset, epochs=40, batch_size=30, latent_dim=4, seed=1)

    assert [warning.code for warning in job.warnings] == ["dimensions_collapsed"]
    assert job.summary["active_dimensions"] == 1


def test_left_open_a_small_set_gets_as_many_steps_as_a_network_needs():
    assert enough_epochs(468) == 30  # Fashion-MNIST in batches of 128: 14,040 steps
    assert enough_epochs(12) == 250  # the digits: 3,000 steps
    assert enough_epochs(7) * 7 >= 3000
    assert enough_epochs(1) == 1000


def test_beta_weighs_the_kl_loss_and_leaves_the_numbers_as_they_are(queue, run, dataset):
    # After one step from the same weights, the losses of that step were taken before beta could matter.
    weighed = [
        rows_of(queue, run("vae_train", dataset=dataset, epochs=1, batch_size=90, seed=1, beta=beta))[0]
        for beta in (0.0, 1.0)
    ]

    assert weighed[0]["step"] == 1
    assert (weighed[0]["reconstruction"], weighed[0]["kl"]) == (
        weighed[1]["reconstruction"],
        weighed[1]["kl"],
    )
    assert weighed[0]["held_out_kl"] > weighed[1]["held_out_kl"]


def test_a_set_smaller_than_a_batch_shrinks_the_batch_and_says_so(queue, run):
    job = run("vae_train", dataset=queue.upload(npz_of(images=blobs(10))).id, epochs=2)

    assert job.status == JobStatus.SUCCEEDED, job.error
    assert [warning.code for warning in job.warnings if warning.code != "kl_collapsed"] == ["batch_shrunk"]
    assert job.summary["steps"] == 2


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"dataset": "digits", "classes": ["ten"]}, "classes"),
        ({"dataset": "imagenet"}, "dataset"),
        ({"dataset": "digits", "latent_dim": 0}, "latent_dim"),
        ({"dataset": "digits", "beta": -1}, "beta"),
        ({"dataset": "digits", "learning_rate": 0}, "learning_rate"),
        ({"dataset": "digits", "image_size": 1024}, "image_size"),
        ({"dataset": "digits", "epoch": 3}, "epoch"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(queue, params, field):
    with pytest.raises(InvalidInput) as refused:
        queue.submit("vae_train", params)
    assert refused.value.field == field


def test_an_unsafe_archive_is_refused_at_submit(queue):
    upload = queue.upload(zip_of(folder_of(blobs(3)) | {"../evil.png": b""})).id

    with pytest.raises(InvalidInput, match="leaves the archive") as refused:
        queue.submit("vae_train", {"dataset": upload})
    assert refused.value.field == "dataset"


def test_a_training_that_fits_into_no_worker_is_refused_with_the_batch_that_fits(queue):
    queue.registry.announce("w", {"name": "w", "memory_bytes": 2 * 2**30}, ttl_ms=60_000)

    with pytest.raises(InvalidInput, match="A batch_size of 64 would fit") as refused:
        queue.submit(
            "vae_train", {"dataset": "cifar10", "image_size": 128, "batch_size": 1024, "classes": ["frog"]}
        )
    assert refused.value.field == "batch_size"
