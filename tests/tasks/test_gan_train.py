"""The GAN: each trick of the trade is really on, and trainings that can be trusted."""

import csv
import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from shared.errors import InvalidInput
from shared.job import JobStatus
from shared.kinds.gan_train import GanTrainParams
from tasks import gan_train
from tasks.gan_train import (
    _SHOWN,
    CompiledGan,
    kept_steps,
    latent_vectors,
    least_discriminator_loss,
    look_every,
)
from tasks.networks.gan import (
    GanConfig,
    build_discriminator,
    build_generator,
    cross_entropy,
    generate,
    noisy_targets,
)
from tasks.picture_grids import picture_grid
from tests.archives import blobs, npz_of
from tests.tasks.attempts import finish, interrupt

TINY = {"base_channels": 4, "latent_dim": 8, "batch_size": 8, "seed": 1, "kid_pictures": 0}


def config_of(image_size=32, channels=1, dropout=0.3, batch_norm=True) -> GanConfig:
    return GanConfig(
        image_size=image_size,
        channels=channels,
        latent_dim=8,
        base_channels=4,
        batch_norm=batch_norm,
        dropout=dropout,
    )


def compiled(**params) -> CompiledGan:
    chosen = GanTrainParams(dataset="digits", **{**TINY, **params})
    config = config_of(dropout=chosen.dropout, batch_norm=chosen.batch_norm)
    return CompiledGan(build_generator(config), build_discriminator(config), chosen)


@pytest.fixture
def dataset(queue) -> str:
    """100 small pictures: 11 batches of 8 to an epoch."""
    return queue.upload(npz_of(images=blobs(100, 32))).id


def rows_of(queue, job) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(queue.open_artifact(job.id, "history.csv").read().decode())))


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("real_label", [0.9, 1.0])
def test_noisy_labels_stay_within_0_and_1_and_on_their_side_of_the_truth(noise, real_label):
    uniform = np.linspace(0, 1, 101)

    real = np.asarray(noisy_targets(uniform, real=True, real_label=real_label, label_noise=noise))
    fake = np.asarray(noisy_targets(uniform, real=False, real_label=real_label, label_noise=noise))

    assert real.min() >= 0
    assert real.max() == real_label
    assert (fake.min(), fake.max()) == (0, noise)  # one-sided: smoothing leaves these alone


def test_the_cross_entropy_has_its_textbook_values_and_is_never_negative():
    logits = np.array([-200.0, -1.0, 0.0, 1.0, 200.0])
    probability = 1 / (1 + np.exp(-logits[1:4]))

    for target in (0.0, 0.05, 0.9, 1.0):
        textbook = -(target * np.log(probability) + (1 - target) * np.log(1 - probability))
        loss = np.asarray(cross_entropy(target, logits))
        assert np.allclose(loss[1:4], textbook)
        assert (loss >= 0).all()
        # At a logit of 200 the wrong side costs 200 nats for each unit of the target's distance.
        assert np.allclose(loss[[0, 4]], [200 * target, 200 * (1 - target)])


@pytest.mark.parametrize("image_size", [32, 64, 96, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_generator_and_discriminator_agree_on_each_size(image_size, channels):
    config = config_of(image_size, channels)
    generator, discriminator = build_generator(config), build_discriminator(config)

    pictures = generator(100 * np.ones((2, 8), np.float32))

    assert pictures.shape == (2, image_size, image_size, channels)
    assert -1 <= np.min(pictures) <= np.max(pictures) <= 1
    assert discriminator(pictures).shape == (2, 1)


def test_the_chapters_tricks_are_the_defaults():
    params = GanTrainParams(dataset="digits")
    generator, discriminator = build_generator(config_of()), build_discriminator(config_of())
    layers = [*generator.layers, *discriminator.layers]
    convolutions = [layer for layer in layers if "Conv" in type(layer).__name__]

    assert generator.layers[-1].activation is keras.activations.tanh
    assert {layer.negative_slope for layer in layers if isinstance(layer, keras.layers.LeakyReLU)} == {0.2}
    assert all(
        side % stride == 0
        for layer in convolutions
        for side, stride in zip(layer.kernel_size, layer.strides, strict=True)
    )
    assert {layer.strides for layer in convolutions} == {(2, 2)}  # and nothing is pooled:
    assert not [layer for layer in layers if "Pooling" in type(layer).__name__]
    assert (params.dropout, params.label_noise, params.real_label, params.two_passes) == (
        0.3,
        0.05,
        0.9,
        False,
    )


def test_a_training_that_fits_into_no_worker_is_refused_with_the_batch_that_fits(queue):
    queue.registry.announce("w", {"name": "w", "memory_bytes": 4 * 2**30}, ttl_ms=60_000)

    with pytest.raises(InvalidInput, match=r"A batch_size of \d+ would fit") as refused:
        queue.submit("gan_train", {"dataset": "digits", "image_size": 128, "batch_size": 4096})
    assert refused.value.field == "batch_size"


def test_generated_values_are_brought_from_tanh_to_pixels():
    generator = build_generator(config_of())
    generator.set_weights([weight * 1e3 for weight in generator.get_weights()])

    pictures = generate(generator, np.random.default_rng(0).normal(size=(5, 8)))

    assert (round(pictures.min()), round(pictures.max())) == (0, 255)


def test_real_pictures_are_shown_in_the_generators_range():
    steps, seen = compiled(), []
    steps._one_pass = lambda real, step: (seen.append(real), (0.0, 0.0, 0.0))[1]  # looked over the shoulder

    steps._train(tf.constant([[[[0], [255]]]], tf.uint8), tf.constant([[0]]), tf.constant(0))

    assert seen[0].numpy().ravel().tolist() == [-1, 1]


def test_dropout_is_on_in_training():
    dropping, keeping = compiled(dropout=0.5), compiled(dropout=0.0)
    pictures = tf.constant(np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 1)), tf.float32)

    assert not np.allclose(dropping._judge(pictures), dropping._judge(pictures))
    assert np.allclose(keeping._judge(pictures), keeping._judge(pictures))


def test_one_pass_gives_each_network_the_gradient_it_would_have_by_itself():
    # With steps of plain gradient descent the change of the weights is the gradient.
    steps = compiled(dropout=0.0, batch_norm=False)
    for name, variables in (("generator", steps.generator), ("discriminator", steps.discriminator)):
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build(variables.trainable_variables)
        setattr(steps, f"{name}_optimizer", optimizer)
    real = tf.constant(np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 1)), tf.float32)
    step = tf.constant(3)
    with tf.GradientTape() as tape:
        fake = steps.generator(steps._latent(real, 0, step), training=True)
        loss = steps._generator_loss(steps._judge(fake))
    expected = tape.gradient(loss, steps.generator.trainable_variables)
    before = [variable.numpy() for variable in steps.generator.trainable_variables]

    steps._one_pass(real, step)

    for old, new, gradient in zip(before, steps.generator.trainable_variables, expected, strict=True):
        assert np.allclose(old - new.numpy(), gradient, rtol=1e-3, atol=1e-6)


def test_the_generator_that_is_kept_follows_slowly():
    steps = compiled(ema=0.99)
    for variable in steps.generator.variables:
        variable.assign(tf.ones_like(variable))
    for variable in steps.kept.variables:
        variable.assign(tf.zeros_like(variable))

    steps._follow(tf.constant(100_000))

    assert np.allclose(steps.kept.variables[0], 0.01)


def test_looks_are_whole_epochs_apart_and_not_too_many():
    assert look_every(937, 3000) == 937
    assert look_every(12, 6000) == 108  # nine epochs: a hundred steps at least
    assert look_every(1000, 1_000_000) == 10_000
    assert kept_steps(937, 3000) == {937, 1874, 2811, 3000}
    assert len(kept_steps(100, 10_000)) <= 10


def test_a_training_leaves_a_generator_that_keras_loads_in_safe_mode(queue, run, tmp_path, dataset):
    job = run("gan_train", dataset=dataset, steps=24, **{**TINY, "kid_pictures": 10})

    assert job.status == JobStatus.SUCCEEDED, job.error
    assert {artifact.name for artifact in job.artifacts} == {
        "model.keras", "model.json", "discriminator.keras", "best.keras", "generator-step-00000024.keras",
        "history.csv", "samples-epoch-0003.png", "samples.webp",
    }  # fmt: skip
    path = tmp_path / "model.keras"
    path.write_bytes(queue.open_artifact(job.id, "model.keras").read())
    generator = keras.saving.load_model(path, safe_mode=True)
    # Whatever the epoch, the grid shows the same latent vectors.
    grid = picture_grid(generate(generator, latent_vectors(_SHOWN, 1, 64, 8)), 8)
    samples = np.asarray(Image.open(queue.open_artifact(job.id, "samples-epoch-0003.png")))
    assert np.abs(samples.astype(int) - grid.reshape(samples.shape)).max() <= 1
    row = rows_of(queue, job)[-1]
    assert (job.summary["best_step"], job.summary["best_kid"]) == (24, float(row["kid"]))
    # Noise is far from spots, other spots are near: the distance knows real from generated.
    assert job.summary["kid"] > 10 * abs(job.summary["kid_of_training_pictures"])
    assert samples.shape == (274, 274)


@pytest.mark.parametrize("two_passes", [False, True])
def test_a_resumed_training_equals_an_unbroken_one(queue, run, dataset, two_passes):
    params = {"dataset": dataset, "steps": 30, "two_passes": two_passes, **TINY}
    unbroken = run("gan_train", **params)
    broken = queue.submit("gan_train", params).id

    interrupt(queue, broken, gan_train.run, stop_at=2)
    resumed = finish(queue, broken)

    assert 2 <= resumed.summary["resumed_from_step"] < 30
    assert {a.name: a.sha256 for a in unbroken.artifacts} == {a.name: a.sha256 for a in resumed.artifacts}


def test_a_cancelled_training_leaves_a_generator_that_can_be_used(queue, run, dataset):
    job_id = queue.submit("gan_train", {"dataset": dataset, "epochs": 100, **TINY}).id

    interrupt(queue, job_id, gan_train.run, stop_at=1, reason="user")

    assert run("gan_sample", model_job=job_id, count=4).status == JobStatus.SUCCEEDED


def test_a_training_that_diverges_ends_on_its_last_good_generator(queue, run, dataset):
    # Weights of a thousand million in each of four layers: the logits overflow after the first step.
    job = run("gan_train", dataset=dataset, steps=100, **TINY, discriminator_learning_rate=1e9)

    assert (job.status, job.error.code) == (JobStatus.FAILED, "diverged")
    assert run("gan_sample", model_job=job.id, count=4).status == JobStatus.SUCCEEDED


def test_a_discriminator_that_wins_is_warned_of_and_the_training_goes_on(queue, run):
    # Black pictures, and a generator that cannot learn: the easiest of all tasks.
    black = queue.upload(npz_of(images=np.zeros((40, 32, 32), np.uint8))).id

    job = run(
        "gan_train", dataset=black, steps=400, **TINY, generator_learning_rate=1e-9,
        discriminator_learning_rate=0.002, dropout=0.0, label_noise=0.0,
    )  # fmt: skip

    assert job.status == JobStatus.SUCCEEDED, job.error
    assert "discriminator_wins" in [warning.code for warning in job.warnings]
    assert all(np.isfinite(float(row["generator_loss"])) for row in rows_of(queue, job))
    assert job.artifact("samples-epoch-0100.png")


def test_the_least_loss_is_that_of_knowing_the_labels_but_not_their_noise():
    # Without noise and smoothing it is 0; a label of 0.9 alone costs its entropy, 0.325083.
    exact = GanTrainParams(dataset="digits", real_label=1.0, label_noise=0.0)
    smoothed = GanTrainParams(dataset="digits", real_label=0.9, label_noise=0.0)

    assert least_discriminator_loss(exact) == pytest.approx(0, abs=1e-9)
    assert least_discriminator_loss(smoothed) == pytest.approx(0.325083, abs=1e-6)


def test_pictures_that_are_all_alike_are_warned_of(queue, run, dataset):
    # A generator that never learns makes nearly the same grey of every latent vector.
    job = run("gan_train", dataset=dataset, steps=11, **TINY, generator_learning_rate=1e-9, batch_norm=False)

    assert "diversity_collapsed" in [warning.code for warning in job.warnings]


@pytest.mark.parametrize(
    ("params", "because"),
    [
        ({"image_size": 33}, "32, 64, 96 or 128"),
        ({"image_size": 48}, "32, 64, 96 or 128"),
        ({"image_size": 1024}, "32, 64, 96 or 128"),
        ({"kid_pictures": 1}, "at least 2"),
        ({"label_noise": 1.5}, "less than or equal to 1"),
        ({"real_label": 1.2}, "less than or equal to 1"),
        ({"dropout": 1.0}, "less than 1"),
        ({"steps": 1, "epochs": 1}, "not both"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(queue, params, because):
    with pytest.raises(InvalidInput, match=because) as refused:
        queue.submit("gan_train", {"dataset": "digits", **params})
    assert refused.value.field == next(iter(params))
