"""DeepDream against the form of keras.io, and large pictures against small ones.

    python -m tests.benchmarks.deepdream

Prints (a) seconds per step at 400 px, and a whole job of three octaves at 300 px on a warm worker against a script that
starts cold; (d) peak memory for a picture of 4000x3000 px against one of 1000x750. All with InceptionV3 and random
weights, whose speed and memory are those of the real ones.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

LAYERS = {"mixed4": 1.0, "mixed5": 1.5, "mixed6": 2.0, "mixed7": 2.5}
"""What keras.io's example dreams on."""
STEP_PX, JOB_PX, STEPS, ROUNDS = 400, 300, 5, 5
SMALL, LARGE = (750, 1000), (3000, 4000)
TILE_PX = 512


def main() -> None:
    """Run the part that is named, or all of them, each that needs a fresh process in one."""
    parts: dict[str, Callable[..., None]] = {"keras_io": keras_io_script, "peak": print_peak}
    if len(sys.argv) > 1:
        parts[sys.argv[1]](*sys.argv[2:])
        return
    with tempfile.TemporaryDirectory(prefix="dq") as folder:
        Path(folder, "weights").mkdir()
        random_weights(Path(folder, "weights", "inception_v3.weights.h5"))
        with DreamJobs(folder) as jobs:
            compare_steps(jobs)
            compare_jobs(jobs)
        compare_peaks(folder)


# Ours


class DreamJobs:
    """Real jobs, run in this process as a worker would run them."""

    def __init__(self, folder: str) -> None:
        from workers.redis_server import RedisServer

        self.server = RedisServer(Path(folder, "redis"))
        self.settings = {"STORAGE_URL": f"{folder}/storage", "WEIGHTS_DIR": f"{folder}/weights"}

    def __enter__(self) -> "DreamJobs":
        from shared.queue import Queue
        from shared.settings import Settings

        self.server.start()
        os.environ.update(self.settings, REDIS_URL=self.server.url)
        self.queue = Queue.from_settings(Settings.from_environment())
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    def submit(self, shape: tuple[int, int], **params: Any) -> str:
        """A job on a picture of noise; returns its id."""
        picture = self.queue.upload(noise_png(shape)).id
        params = {"image": picture, "layers": LAYERS, "max_loss": None, "seed": 1, **params}
        return self.queue.submit("deepdream", params).id

    def run(self, job_id: str) -> None:
        """Run a job to its end."""
        from workers.run_job import run_job

        run_job(job_id)
        job = self.queue.get(job_id)
        assert job.status == "succeeded", job.error

    def steps(self, side_px: int) -> Callable[[], Any]:
        """Something that takes STEPS steps of a job."""
        import numpy as np

        from shared.job import new_token
        from shared.kinds.deepdream import DeepDreamParams
        from tasks.deepdream import Ascent, Dream, load_network, to_unit
        from tasks.job_context import JobContext
        from workers.identity import this_worker

        job_id = self.submit((side_px, side_px), octaves=1, iterations=STEPS)
        claim = self.queue.store.claim(job_id, token=new_token(), worker=this_worker(None))
        assert claim is not None
        job = self.queue.get(job_id)
        context, params = JobContext(self.queue, job, claim), DeepDreamParams.model_validate(job.params)
        ascent = Ascent(params, context, load_network(params, context))
        picture = to_unit(np.asarray(context.load_image(params.image)))
        return lambda: ascent.climb(Dream(picture.copy()))


def compare_steps(jobs: DreamJobs) -> None:
    """(a), first part."""
    ours, theirs = jobs.steps(STEP_PX), keras_io_steps(STEP_PX)
    ours(), theirs()  # the first calls trace
    pairs = [(seconds(ours) / STEPS, seconds(theirs) / STEPS) for _ in range(ROUNDS)]
    mine, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"(a) step at {STEP_PX} px: {mine:.3f} s, keras.io's form {other:.3f} s: {mine / other:.2f}x (goal 1.0x)"
    )


def compare_jobs(jobs: DreamJobs) -> None:
    """(a), second part."""
    jobs.run(jobs.submit((JOB_PX, JOB_PX), iterations=1))
    warm = [seconds(lambda: jobs.run(jobs.submit((JOB_PX, JOB_PX)))) for _ in range(2)]
    cold = [seconds(lambda: own_process("keras_io", str(JOB_PX))) for _ in range(2)]
    mine, other = min(warm), min(cold)
    print(
        f"(a) job at {JOB_PX} px, 3 octaves of 20 steps: {mine:.1f} s warm, {other:.1f} s as a cold script:",
        end=" ",
    )
    print(f"{other / mine:.1f}x faster (goal 5x)", flush=True)


# keras.io's form (examples/generative/deep_dream), its steps and defaults


def keras_io_steps(side_px: int) -> Callable[[], Any]:
    """Something that takes STEPS steps."""
    import tensorflow as tf

    step = keras_io_step()
    picture = tf.random.uniform((1, side_px, side_px, 3), -1, 1, seed=1)

    def take() -> None:
        moved = picture
        for _ in range(STEPS):
            loss, moved = step(moved, 0.01)
            float(loss)

    return take


def keras_io_step() -> Callable[..., Any]:
    """One step of gradient ascent on a truncated model, compiled."""
    import keras
    import tensorflow as tf

    model = keras.applications.InceptionV3(weights=None, include_top=False)
    outputs = {name: model.get_layer(name).output for name in LAYERS}
    extractor = keras.Model(model.input, outputs)

    @tf.function
    def step(picture: tf.Tensor, learning_rate: float) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(picture)
            features = extractor(picture)
            loss = tf.zeros(())
            for name, coefficient in LAYERS.items():
                loss += coefficient * tf.reduce_mean(tf.square(features[name][:, 2:-2, 2:-2, :]))
        gradient = tape.gradient(loss, picture)
        gradient /= tf.maximum(tf.reduce_mean(tf.abs(gradient)), 1e-6)
        return loss, picture + learning_rate * gradient

    return step


def keras_io_script(side: str) -> None:
    """The whole example: three octaves of 20 steps, lost detail given back."""
    import tensorflow as tf

    step = keras_io_step()
    original = tf.random.uniform((1, int(side), int(side), 3), -1, 1, seed=1)
    shapes = [(int(int(side) / 1.4**smaller),) * 2 for smaller in (2, 1, 0)]
    shrunk = picture = tf.image.resize(original, shapes[0])
    for shape in shapes:
        picture = tf.image.resize(picture, shape)
        for _ in range(20):
            loss, picture = step(picture, 0.01)
            float(loss)
        same_size = tf.image.resize(original, shape)
        picture += same_size - tf.image.resize(shrunk, shape)
        shrunk = same_size
    scaled = tf.cast(tf.clip_by_value((picture[0] + 1) * 127.5, 0, 255), tf.uint8)
    tf.io.write_file(os.devnull, tf.io.encode_png(scaled))


# Memory


def compare_peaks(folder: str) -> None:
    """(d)."""
    small, large = (int(own_process("peak", folder, *map(str, shape))) for shape in (SMALL, LARGE))
    from shared.kinds.deepdream import PICTURE_BYTES_PER_PIXEL

    pictures = PICTURE_BYTES_PER_PIXEL * (LARGE[0] * LARGE[1] - SMALL[0] * SMALL[1])
    print(
        f"(d) peak memory in tiles of {TILE_PX} px: {large / 2**20:.0f} MiB at {LARGE[1]}x{LARGE[0]},",
        end=" ",
    )
    print(f"{small / 2**20:.0f} MiB at {SMALL[1]}x{SMALL[0]}: {large / small:.2f}x;", end=" ")
    print(f"without the pictures themselves {(large - pictures) / small:.2f}x (goal under 2x)", flush=True)


def print_peak(folder: str, height: str, width: str) -> None:
    """The most memory that this process held while it ran one job (bytes)."""
    with DreamJobs(folder) as jobs:
        jobs.run(jobs.submit((int(height), int(width)), octaves=2, iterations=1, tile_px=TILE_PX))
    # Not getrusage: that counts what the parent held when it started this process.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) * 1024)


# Common to both


def seconds(act: Callable[[], Any]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def own_process(*part: str) -> str:
    """Run a part of this module in a fresh process; what it printed."""
    command = [sys.executable, "-m", "tests.benchmarks.deepdream", *part]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def random_weights(path: Path) -> None:
    import keras

    keras.utils.set_random_seed(1)
    keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(None, None, 3)).save_weights(
        path
    )


def noise_png(shape: tuple[int, int]) -> bytes:
    """A smooth random picture, as PNG."""
    import io

    import numpy as np
    from PIL import Image

    small = np.random.default_rng(0).integers(0, 256, (shape[0] // 50, shape[1] // 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
