"""What the trainings on pictures are worth: against the recipes that people type in, and in themselves.

    python -m tests.benchmarks.vae_gan [--only a,b,c,d,e] [--pictures FOLDER]

Prints (a) VAE pictures per second at 28 px, batch 128, against keras.io's recipe under `fit`; (b) DCGAN pictures per
second at 64 px against the two-pass step under `fit`, and leaves sample grids of both forms side by side; (c) the
negative bound in nats per picture of Fashion-MNIST's test part after 10 epochs, latent 16; (d) the KID of a GAN on
Fashion-MNIST after 6,000 steps, beside real pictures and an untrained generator, and the bound that follows;
(e) memory after each of 30 trainings in one process. (c) and (d) take minutes; (b) to (d) need Fashion-MNIST.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import psutil
import tensorflow as tf
from PIL import Image

from shared.job import Job
from shared.kinds.gan_train import GanTrainParams
from shared.kinds.vae_train import VaeTrainParams
from shared.queue import Queue
from shared.settings import Settings
from tasks.built_in_sets import load_built_in
from tasks.datasets import fit_all
from tasks.gan_train import CompiledGan, latent_vectors
from tasks.kid import KidReference
from tasks.networks.gan import GanConfig, build_discriminator, build_generator, generate
from tasks.networks.vae import VaeConfig, build_vae
from tasks.vae_train import CompiledVae
from tests.archives import blobs, npz_of
from workers.redis_server import RedisServer

ROUNDS = 5
VAE_BATCH, VAE_STEPS = 128, 60
GAN_BATCH, GAN_STEPS = 32, 6
GAN_CHANNELS = 32
KID_STEPS, KID_PICTURES = 6_000, 500
TRAININGS = 30


class KerasIoVae(keras.Model):
    """keras.io's example "Variational AutoEncoder", as a reader types it in."""

    def __init__(self) -> None:
        super().__init__()
        layers = keras.layers
        picture = keras.Input((28, 28, 1))
        x = layers.Conv2D(32, 3, activation="relu", strides=2, padding="same")(picture)
        x = layers.Conv2D(64, 3, activation="relu", strides=2, padding="same")(x)
        x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
        self.encoder = keras.Model(picture, [layers.Dense(2)(x), layers.Dense(2)(x)])
        latent = keras.Input((2,))
        x = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(latent))
        x = layers.Conv2DTranspose(64, 3, activation="relu", strides=2, padding="same")(x)
        x = layers.Conv2DTranspose(32, 3, activation="relu", strides=2, padding="same")(x)
        x = layers.Conv2DTranspose(1, 3, activation="sigmoid", padding="same")(x)
        self.decoder = keras.Model(latent, x)
        self.noise = keras.random.SeedGenerator(1)
        self.tracker = keras.metrics.Mean(name="loss")

    def train_step(self, data):
        """One step of Adam on reconstruction and KL loss."""
        with tf.GradientTape() as tape:
            mean, log_var = self.encoder(data)
            latent = mean + tf.exp(0.5 * log_var) * keras.random.normal(tf.shape(mean), seed=self.noise)
            cross_entropy = keras.losses.binary_crossentropy(data, self.decoder(latent))
            reconstruction = tf.reduce_mean(tf.reduce_sum(cross_entropy, axis=(1, 2)))
            kl = -0.5 * (1 + log_var - tf.square(mean) - tf.exp(log_var))
            loss = reconstruction + tf.reduce_mean(tf.reduce_sum(kl, axis=1))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


class KerasIoGan(keras.Model):
    """The train step of keras.io's example "DCGAN to generate face images", on our two networks."""

    def __init__(self, generator: keras.Model, discriminator: keras.Model, latent_dim: int) -> None:
        super().__init__()
        self.generator, self.discriminator, self.latent_dim = generator, discriminator, latent_dim
        self.noise = keras.random.SeedGenerator(1)
        self.discriminator_optimizer = keras.optimizers.Adam(0.0002, beta_1=0.5)
        self.generator_optimizer = keras.optimizers.Adam(0.0002, beta_1=0.5)
        self.cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def train_step(self, real):
        """Update the discriminator on real and generated pictures at once, the generator on new ones."""
        count = tf.shape(real)[0]
        fake = self.generator(keras.random.normal((count, self.latent_dim), seed=self.noise), training=True)
        labels = tf.concat([tf.ones((count, 1)), tf.zeros((count, 1))], axis=0)
        labels += 0.05 * keras.random.uniform(tf.shape(labels), seed=self.noise)
        with tf.GradientTape() as tape:
            logits = self.discriminator(tf.concat([real, fake], axis=0), training=True)
            discriminator_loss = self.cross_entropy(labels, logits)
        variables = self.discriminator.trainable_weights
        self.discriminator_optimizer.apply(tape.gradient(discriminator_loss, variables), variables)
        latent = keras.random.normal((count, self.latent_dim), seed=self.noise)
        with tf.GradientTape() as tape:
            logits = self.discriminator(self.generator(latent, training=True), training=True)
            generator_loss = self.cross_entropy(tf.ones((count, 1)), logits)
        variables = self.generator.trainable_weights
        self.generator_optimizer.apply(tape.gradient(generator_loss, variables), variables)
        return {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}


def medians(works: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median time of each (s), measured in turns so that a busy moment of the machine meets all."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()  # compiles
    for _ in range(ROUNDS):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(found) for name, found in times.items()}


def compare_vae() -> None:
    """(a) VAE pictures per second."""
    count = VAE_BATCH * VAE_STEPS
    pictures = np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    floats = pictures.astype("float32") / 255
    recipe = KerasIoVae()
    recipe.compile(optimizer=keras.optimizers.Adam())
    config = VaeConfig(height=28, width=28, channels=1, latent_dim=2, architecture="book", fit="crop")
    ours = CompiledVae(build_vae(config), VaeTrainParams(dataset="fashion_mnist", seed=1))
    kept, batches = tf.constant(pictures), np.arange(count, dtype=np.int32).reshape(VAE_STEPS, VAE_BATCH)
    times = medians(
        {
            "keras.io": lambda: recipe.fit(floats, batch_size=VAE_BATCH, epochs=1, verbose=0),
            "ours": lambda: ours.train(kept, tf.constant(batches), tf.constant(0)).numpy(),
        }
    )
    report("(a) VAE, 28 px, batch 128", times, count)


def compare_gan() -> None:
    """(b) DCGAN pictures per second, with the generator's batch normalization and without."""
    count = GAN_BATCH * GAN_STEPS
    pictures = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    floats = pictures.astype("float32") / 127.5 - 1
    kept, batches = tf.constant(pictures), np.arange(count, dtype=np.int32).reshape(GAN_STEPS, GAN_BATCH)
    for batch_norm in (False, True):
        config = GanConfig(
            image_size=64, channels=3, latent_dim=128, base_channels=GAN_CHANNELS, batch_norm=batch_norm, dropout=0.2
        )  # fmt: skip
        recipe = KerasIoGan(build_generator(config), build_discriminator(config), 128)
        recipe.compile()
        works = {
            "two passes under fit": lambda recipe=recipe: recipe.fit(floats, batch_size=GAN_BATCH, verbose=0)
        }
        for name, two_passes in (("our two passes", True), ("ours", False)):
            params = GanTrainParams(dataset="fashion_mnist", seed=1, two_passes=two_passes)
            form = CompiledGan(build_generator(config), build_discriminator(config), params)
            works[name] = lambda form=form: form.train(kept, tf.constant(batches), tf.constant(0)).numpy()
        label = "with batch norm" if batch_norm else "without batch norm"
        report(f"(b) DCGAN, 64 px, {GAN_CHANNELS} channels, batch 32, {label}", medians(works), count)


def report(what: str, times: dict[str, float], count: int) -> None:
    """Print pictures per second of each, and how many times as fast ours are."""
    speeds = {name: count / took for name, took in times.items()}
    told = [f"{name} {speed:,.1f}/s" for name, speed in speeds.items() if name != "ours"]
    baseline = next(iter(speeds.values()))
    print(
        f"{what}: ours {speeds['ours']:,.1f}/s, {', '.join(told)}: {speeds['ours'] / baseline:.2f} times",
        flush=True,
    )


def show_both_forms(queue: Queue, folder: Path) -> None:
    """(b) the samples of one pass and of two passes after equally many steps, side by side."""
    grids = []
    for two_passes in (False, True):
        job = train(
            queue, "gan_train", dataset="fashion_mnist", steps=600, base_channels=16, image_size=64, seed=1,
            batch_size=32, two_passes=two_passes, kid_pictures=300,
        )  # fmt: skip
        grids.append(last_samples(queue, job))
        print(f"    two_passes={two_passes}: KID {job.summary['kid']:.3f} after 600 steps", flush=True)
    path = folder / "gan-one-pass-and-two-passes.png"
    Image.fromarray(np.concatenate(grids, axis=1)).save(path)
    print(f"    one pass to the left, two to the right: {path}", flush=True)


def judge_vae(queue: Queue, folder: Path) -> None:
    """(c) the negative bound on Fashion-MNIST's test part."""
    started = time.perf_counter()
    job = train(queue, "vae_train", dataset="fashion_mnist", latent_dim=16, epochs=10, seed=1)
    found = job.summary
    print(
        f"(c) VAE, fashion_mnist, latent 16, 10 epochs: {found['held_out_bound']:.2f} nats per test picture "
        f"(reconstruction {found['held_out_reconstruction']:.2f}, KL {found['held_out_kl']:.2f}) "
        f"in {time.perf_counter() - started:.0f} s",
        flush=True,
    )
    (folder / "vae-fashion.png").write_bytes(queue.open_artifact(job.id, "reconstructions.png").read())


def judge_gan(queue: Queue, folder: Path) -> None:
    """(d) the KID on Fashion-MNIST, and the bound below which a generator counts as trained."""
    started = time.perf_counter()
    show_kid_bound(queue.settings)
    job = train(
        queue, "gan_train", dataset="fashion_mnist", steps=KID_STEPS, base_channels=GAN_CHANNELS, seed=1
    )
    took = time.perf_counter() - started
    print(
        f"(d) GAN, fashion_mnist, {GAN_CHANNELS} channels, {KID_STEPS} steps: KID {job.summary['kid']:.3f} "
        f"(best {job.summary['best_kid']:.3f} at step {job.summary['best_step']}) in {took:.0f} s",
        flush=True,
    )
    Image.fromarray(last_samples(queue, job)).save(folder / "gan-fashion.png")


def show_kid_bound(settings: Settings) -> None:
    """Print what the bound of docs/training-pictures.md is made of: KIDs of `gan_train`'s own judge."""
    dataset = load_built_in("fashion_mnist", settings.weights_dir / "datasets", lambda done, total: None)
    assert dataset.held_out is not None
    assert dataset.train.labels is not None
    first = KID_PICTURES * len(dataset.label_names) * 2  # enough of them for every class to have so many
    train, labels = fit_all(dataset.train.pictures[:first], (32, 32), "crop"), dataset.train.labels[:first]
    held_out = fit_all(dataset.held_out.pictures[:KID_PICTURES], (32, 32), "crop")
    reference = KidReference("squeezenet", held_out, weights_dir=settings.weights_dir)
    starts = range(0, first, KID_PICTURES)
    real = [reference.distance(train[start : start + KID_PICTURES]) for start in starts]
    classes = {
        name: reference.distance(train[labels == index][:KID_PICTURES])
        for index, name in enumerate(dataset.label_names)
    }
    keras.utils.set_random_seed(1)
    config = GanConfig(
        image_size=32, channels=1, latent_dim=128, base_channels=GAN_CHANNELS, batch_norm=True, dropout=0.3
    )
    made = generate(build_generator(config), latent_vectors(0, 1, KID_PICTURES, 128))
    untrained, half = (
        reference.distance(pictures)
        for pictures in (made, np.concatenate([made[::2], train[: KID_PICTURES // 2]]))
    )
    alike, least = min(classes.items(), key=lambda item: item[1])
    print(
        f"(d) KID of real pictures: {statistics.mean(real):.3f} on average, {max(real):.3f} at most; of an untrained "
        f"generator {untrained:.3f}; of half and half {half:.3f}; of one class alone {least:.3f} ({alike}) at least. "
        f"The bound: {min(untrained / 4, least):.3f}",
        flush=True,
    )


def watch_memory(queue: Queue) -> None:
    """(e) memory after each of 30 trainings in this one process."""
    small = queue.upload(npz_of(images=blobs(200, 28))).id
    process, sizes = psutil.Process(), []
    for number in range(TRAININGS):
        if number % 2:
            train(queue, "gan_train", dataset=small, steps=10, base_channels=16, seed=number, kid_pictures=50)
        else:
            train(queue, "vae_train", dataset=small, epochs=3, batch_size=32, seed=number)
        sizes.append(process.memory_info().rss / 2**20)
    early, late = statistics.median(sizes[4:10]), statistics.median(sizes[-6:])
    print(
        f"(e) memory over {TRAININGS} trainings: {early:.0f} MiB early, {late:.0f} late ({late / early - 1:+.1%})"
    )
    print(f"    after each: {', '.join(f'{size:.0f}' for size in sizes)}", flush=True)


def train(queue: Queue, kind: str, **params: object) -> Job:
    """Run a job in this process, through the task that a worker would run."""
    from workers.run_job import run_job  # reads the environment

    job = queue.submit(kind, params)
    run_job(job.id)
    ended = queue.get(job.id)
    assert ended.status == "succeeded", ended.error
    return ended


def last_samples(queue: Queue, job: Job) -> np.ndarray:
    """The last grid of samples that a GAN's training left."""
    name = max(artifact.name for artifact in job.artifacts if artifact.name.startswith("samples-epoch-"))
    return np.asarray(Image.open(io.BytesIO(queue.open_artifact(job.id, name).read())).convert("RGB"))


def main() -> None:
    """Measure what is asked for, on a Redis and a storage of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="a,b,c,d,e")
    parser.add_argument("--pictures", type=Path, default=Path("benchmark-pictures"))
    asked = parser.parse_args()
    parts = set(asked.only.split(","))
    asked.pictures.mkdir(exist_ok=True, parents=True)
    if "a" in parts:
        compare_vae()
    if "b" in parts:
        compare_gan()
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder, "redis"))
        server.start()
        try:
            measure_jobs(parts, queue_on(server, Path(folder)), asked.pictures)
        finally:
            server.stop()


def queue_on(server: RedisServer, folder: Path) -> Queue:
    """A queue whose settings are the environment's too, where `run_job` looks."""
    settings = Settings(
        redis_url=server.url, storage_url=str(folder / "storage"), weights_dir=folder / "weights"
    )
    os.environ.update(settings.environment())
    return Queue.from_settings(settings)


def measure_jobs(parts: set[str], queue: Queue, pictures: Path) -> None:
    """The parts that run whole jobs."""
    if "b" in parts:
        show_both_forms(queue, pictures)
    if "c" in parts:
        judge_vae(queue, pictures)
    if "d" in parts:
        judge_gan(queue, pictures)
    if "e" in parts:
        watch_memory(queue)


if __name__ == "__main__":
    main()
