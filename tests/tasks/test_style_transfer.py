"""Style transfer, from submit to the result, with SqueezeNet's real weights and with VGG16's."""

import csv
import io
import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from shared.errors import JobPreempted
from shared.job import Job, JobStatus, Worker
from shared.kinds import style_memory
from shared.kinds.style_transfer import StyleTransferParams
from tasks import job_context, style_painter, style_transfer
from tasks.colors import luminance
from tasks.images import decode, resize
from tasks.job_context import JobContext
from tasks.lbfgs import lbfgs
from tasks.networks import pretrained
from tasks.style_objective import Losses, build_objective
from tasks.style_painting import Painting, Scale
from tasks.style_pictures import StylePictures
from tasks.style_weights import scale_weights
from tests.pictures import saved
from workers.run_job import perform, run_job, write_end

WORKER = Worker(name="w@h", host="h", device="cpu", pid=1)


@pytest.fixture(scope="session")
def flower() -> Path:
    """A dahlia, orange before dark green, 640x427 (scikit-learn, CC BY 2.0, photographer named there)."""
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg"


@pytest.fixture(scope="session")
def coffee() -> Path:
    """A cup of coffee, 600x400 (scikit-image, CC0)."""
    import skimage.data

    return Path(skimage.data.__file__).parent / "coffee.png"


@pytest.fixture
def upload(queue) -> Callable[..., str]:
    """Upload a file, or a picture given as an array or as a colour."""

    def upload_any(given, size=(96, 64)) -> str:
        if isinstance(given, Path):
            return queue.upload(given).id
        image = Image.new("RGB", size, given) if isinstance(given, str) else Image.fromarray(given)
        file = io.BytesIO()
        image.save(file, "PNG")
        return queue.upload(file.getvalue()).id

    return upload_any


@pytest.fixture
def paint(run, upload, chelsea, flower) -> Callable[..., Job]:
    """Run a small job: the cat in the style of the dahlia, 96 px, a few iterations, unless told otherwise."""

    def paint_small(**params) -> Job:
        small = {"network": "squeezenet", "size_px": 96, "scales": 1, "iterations": 4, "seed": 1}
        pictures = {"content_image": upload(chelsea), "style_images": [upload(flower)]}
        return run("style_transfer", **(pictures | small | params))

    return paint_small


@pytest.fixture
def result(queue) -> Callable[..., np.ndarray]:
    """A picture that a job left, as (height, width, 3)."""

    def load(job: Job, name: str = "result.png") -> np.ndarray:
        return decode(io.BytesIO(queue.open_artifact(job.id, name).read()), max_pixels=10**7)

    return load


@pytest.fixture
def history(queue) -> Callable[[Job], list[dict[str, float]]]:
    """A job's history.csv."""

    def load(job: Job) -> list[dict[str, float]]:
        text = queue.open_artifact(job.id, "history.csv").read().decode()
        return [
            {name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))
        ]

    return load


def names(job: Job) -> set[str]:
    return {artifact.name for artifact in job.artifacts}


def bytes_of(queue, job: Job, name: str = "result.png") -> bytes:
    return queue.open_artifact(job.id, name).read()


# What it makes


def test_a_photo_takes_on_the_colours_of_the_style_and_stays_recognisable(
    paint, result, history, chelsea, flower
):
    job = paint(scales=2, iterations=30)

    painted = result(job).astype(float)
    photo = resize(decode(chelsea, max_pixels=10**7), painted.shape[:2])
    style = resize(decode(flower, max_pixels=10**7), painted.shape[:2])
    assert job.status == JobStatus.SUCCEEDED
    assert painted.shape == (64, 96, 3)
    # The spread of the colours, as covariance of the channels, has come most of the way to the dahlia's.
    to_style = np.linalg.norm(np.cov(painted.reshape(-1, 3).T) - np.cov(style.reshape(-1, 3).T))
    before = np.linalg.norm(np.cov(photo.reshape(-1, 3).T) - np.cov(style.reshape(-1, 3).T))
    assert to_style < 0.6 * before
    # The fine structure is still the cat's: what the blurred pictures leave over goes together.
    assert correlation(detail(painted), detail(photo)) > 0.3
    losses = history(job)
    assert losses[-1]["style"] < 0.1 * losses[0]["style"]


def detail(image: np.ndarray) -> np.ndarray:
    grey = luminance(image)
    return grey - resize(resize(grey, (grey.shape[0] // 4, grey.shape[1] // 4)), grey.shape)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_with_real_vgg16_a_photo_takes_on_the_style_too(
    paint, upload, settings, vgg16_weights_dir, coffee, history
):
    settings.weights_dir.mkdir(exist_ok=True)
    shutil.copy(vgg16_weights_dir / "vgg16.weights.h5", settings.weights_dir)

    job = paint(network="vgg16", style_images=[upload(coffee)], size_px=80, iterations=8)

    losses = history(job)
    assert job.status == JobStatus.SUCCEEDED
    assert losses[-1]["style"] < 0.5 * losses[0]["style"]
    assert job.provenance["network"]["weights_sha256"]


def test_every_iteration_is_told_and_kept(queue, paint, history):
    job = paint(scales=2, iterations=5)

    rows = history(job)
    assert list(rows[0]) == ["iteration", "evaluations", "content", "style", "variation", "total"]
    assert [row["iteration"] for row in rows] == list(
        range(1, 16)
    )  # 10 at the coarse size, 5 at the fine one
    assert all(
        row["total"] == pytest.approx(row["content"] + row["style"] + row["variation"]) for row in rows
    )
    assert job.summary["iterations"] == 15
    assert job.summary["evaluations"] == rows[-1]["evaluations"]
    assert job.summary["ended_by"] == "iterations"
    assert job.summary["message"]
    assert [(scale["width"], scale["iterations"]) for scale in job.summary["scales"]] == [(48, 10), (96, 5)]
    assert set(job.progress.metrics) == {"content", "style", "variation", "total"}
    assert any(name.startswith("preview-") for name in names(job))
    assert job.warnings == []


def test_the_same_job_gives_the_same_bytes_also_after_another(queue, paint):
    first = paint(init="random")
    paint(normalisation="gatys", iterations=2)
    again = paint(init="random")

    assert bytes_of(queue, first) == bytes_of(queue, again)
    assert bytes_of(queue, first, "history.csv") == bytes_of(queue, again, "history.csv")
    assert bytes_of(queue, first) != bytes_of(queue, paint(init="random", seed=2))


@pytest.mark.parametrize("size", [(51, 83), (83, 51)])
def test_the_result_has_the_contents_aspect_ratio_whatever_the_styles(paint, upload, result, size):
    """A grey style image in upright format beside a photo in either; no `size_px`, so the photo's own size."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    grey = np.random.default_rng(1).integers(0, 256, (120, 90), dtype=np.uint8)

    job = paint(content_image=upload(noise), style_images=[upload(grey)], size_px=None, iterations=2)

    assert result(job).shape == (*size, 3)


def test_original_colours_keep_the_paintings_brightness_and_the_contents_colours(
    paint, upload, result, chelsea
):
    grey = np.asarray(Image.open(chelsea).convert("L").convert("RGB"))
    painted = result(paint(size_px=81))

    kept = result(paint(size_px=81, original_colors=True))
    of_grey = result(paint(size_px=81, original_colors=True, content_image=upload(grey)))

    assert np.abs(luminance(kept) - luminance(painted)).max() <= 1  # rounding to whole levels
    assert np.ptp(of_grey, axis=-1).max() <= 1  # grey content, grey result


def test_a_style_is_painted_where_its_mask_is_white(paint, upload, result, chelsea):
    left = np.zeros((20, 30), np.uint8)  # of another size: it is brought to the result's
    left[:, :15] = 255

    painted = result(paint(masks=[upload(left)], tv_weight=0, iterations=8)).astype(float)

    photo = resize(decode(chelsea, max_pixels=10**7), painted.shape[:2])
    changed = np.abs(painted - photo).mean(axis=(0, 2))
    assert changed[:36].mean() > 3 * changed[60:].mean()  # the middle is blurred by what the layers see


def test_a_mask_may_be_drawn_by_erasing(queue, paint, upload):
    drawn = np.zeros((20, 30), np.uint8)
    drawn[:, :15] = 255
    erased = np.dstack(
        [np.full((20, 30, 3), 255, np.uint8), drawn]
    )  # white all over, the right half transparent

    assert bytes_of(queue, paint(masks=[upload(erased)])) == bytes_of(queue, paint(masks=[upload(drawn)]))


def test_two_styles_are_painted_each_in_its_own_region(paint, upload, result):
    left = np.zeros((64, 96), np.uint8)
    left[:, :48] = 255
    styles, masks = [upload("red"), upload("blue")], [upload(left), upload(255 - left)]

    painted = result(paint(style_images=styles, masks=masks, content_weight=0, iterations=15)).astype(float)

    assert painted[:, :40, 0].mean() > painted[:, 56:, 0].mean() + 30
    assert painted[:, 56:, 2].mean() > painted[:, :40, 2].mean() + 30


def test_the_style_with_the_greater_weight_gives_more_of_its_colour(paint, upload, result):
    red, blue = upload("red"), upload("blue")
    mixes = [
        result(paint(style_images=[red, blue], style_weights=weights, iterations=10))
        .astype(float)
        .mean(axis=(0, 1))
        for weights in ([3, 1], [1, 3])
    ]

    assert mixes[0][0] > mixes[1][0] + 10
    assert mixes[0][2] < mixes[1][2] - 10


WAYS = [
    {"init": "style"},
    {"init": "random"},
    {"pooling": "average"},
    {"normalisation": "gatys"},
    {"style_scale": 2},
    {"scales": 2},
]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_paint_gives_another_picture_and_lowers_the_loss(queue, paint, way):
    job = paint(**way)

    assert bytes_of(queue, job) != bytes_of(queue, paint())
    assert all(scale["loss_last"] < scale["loss_first"] for scale in job.summary["scales"])


@pytest.mark.parametrize("init", ["content", "style", "random"])
def test_the_painting_begins_with_what_was_asked(paint, result, chelsea, flower, init):
    """Nothing but a trace of smoothness is asked for, so that the picture stays nearly as it began."""
    painted = result(paint(init=init, content_weight=0, style_weight=0, tv_weight=1e-9, iterations=1))

    start = {"content": chelsea, "style": flower}.get(init)
    if start is None:
        # Noise of deviation 25 (a variance of 625) about the middle of 0..255.
        assert painted.mean() == pytest.approx(127.5, abs=2)
        assert painted.std() == pytest.approx(25, rel=0.25)
    else:
        assert np.abs(painted - resize(decode(start, max_pixels=10**7), (64, 96))).mean() < 8


def test_it_starts_from_the_init_image_that_is_given(paint, upload, result):
    job = paint(
        init_image=upload("blue"), style_weight=0, content_weight=0
    )  # a flat picture has no variation to lose

    assert job.params["init"] == "image"
    assert np.array_equal(np.unique(result(job).reshape(-1, 3), axis=0), [[0, 0, 255]])


def test_the_order_of_the_layers_does_not_matter(queue, paint):
    layers = {"conv1": 1, "fire4": 0.5, "fire2": 2}
    turned = dict(reversed(layers.items()))

    one, other = (paint(style_layers=given, content_layer="fire3") for given in (layers, turned))

    assert bytes_of(queue, one, "history.csv") == bytes_of(queue, other, "history.csv")


def test_a_layer_of_no_weight_is_as_if_it_were_not_named(queue, paint):
    named = paint(style_layers={"conv1": 1, "fire2": 1, "fire9": 0})
    left_out = paint(style_layers={"conv1": 1, "fire2": 1})

    assert bytes_of(queue, named, "history.csv") == bytes_of(queue, left_out, "history.csv")


def test_where_the_content_counts_for_nothing_the_network_ends_at_the_last_style_layer(paint, monkeypatch):
    asked: list[tuple[str, ...]] = []

    def load(name, layers, **rest):
        asked.append(tuple(layers))
        return pretrained.load(name, layers, **rest)

    monkeypatch.setattr(style_transfer, "pretrained", SimpleNamespace(load=load))

    assert paint(content_weight=0, style_layers={"conv1": 1, "fire2": 1}).status == JobStatus.SUCCEEDED
    assert paint(style_layers={"conv1": 1, "fire2": 1}).status == JobStatus.SUCCEEDED
    assert asked == [("conv1", "fire2"), ("conv1", "fire2", "fire5")]


def test_a_gpu_is_not_let_round_to_ten_bits_while_it_paints(paint, monkeypatch):
    config, seen = tf.config.experimental, []
    before = config.tensor_float_32_execution_enabled()

    def build(*args, **kwargs):
        seen.append(config.tensor_float_32_execution_enabled())
        return build_objective(*args, **kwargs)

    monkeypatch.setattr(style_painter, "build_objective", build)
    paint(iterations=1)

    assert seen == [False]
    assert config.tensor_float_32_execution_enabled() == before  # for the next job, whatever it is


# Pictures, masks and weights at the edge


def test_a_picture_in_its_own_style_is_done_at_once(paint, upload, chelsea, result, history):
    picture = upload(chelsea)
    job = paint(content_image=picture, style_images=[picture], tv_weight=0)

    assert job.status == JobStatus.SUCCEEDED
    assert job.summary["loss"] == 0
    assert job.summary["ended_by"] == "minimum"
    assert history(job) == []
    assert job.progress.step == job.progress.total  # nothing was left to do, so that all is done
    photo = resize(decode(chelsea, max_pixels=10**7), (64, 96))
    assert np.abs(result(job) - photo).max() <= 0.5


@pytest.mark.parametrize(("content", "style"), [("black", "white"), ("white", "black"), ("black", "black")])
def test_flat_pictures_are_painted_without_a_division_by_nothing(paint, upload, result, content, style):
    job = paint(content_image=upload(content), style_images=[upload(style)])

    assert job.status == JobStatus.SUCCEEDED
    assert math.isfinite(job.summary["loss"])
    assert result(job).shape == (64, 96, 3)


@pytest.mark.parametrize(
    "weights", [{"style_weight": 0}, {"content_weight": 0}, {"tv_weight": 0}, {"style_weight": 1e12}]
)
def test_weights_may_be_nothing_or_huge(paint, result, weights):
    job = paint(**weights)

    assert job.status == JobStatus.SUCCEEDED
    assert result(job).max() > 50  # not a black picture marked as done


def test_a_loss_beyond_the_numbers_ends_the_job_as_diverged_and_the_next_one_passes(paint, result, chelsea):
    job = paint(style_weight=1e38)

    assert (job.status, job.error.code) == (JobStatus.FAILED, "diverged")
    assert "result.png" not in names(job)
    photo = resize(decode(chelsea, max_pixels=10**7), (64, 96))
    assert np.abs(result(job, "partial.png") - photo).max() <= 0.5  # the best finite picture is the first
    assert paint().status == JobStatus.SUCCEEDED


def test_an_optimiser_that_stopped_far_below_what_was_asked_is_warned_of(begin):
    job = begin()
    scale = Scale(width=96, height=64, iterations=3, ended_by="no_progress", message="ABNORMAL")
    painting = Painting(np.zeros((64, 96, 3), np.float32), scales=[scale])

    style_transfer.warn_of_early_ends(painting, [60], job)

    assert [warning.code for warning in job.warnings] == ["stopped_early"]
    assert "after 3 of 60 iterations" in job.warnings[0].message


def test_a_mask_found_out_to_be_black_at_work_ends_the_job_and_the_next_one_passes(queue, paint, upload):
    below_black = queue.upload(saved(Image.new("I", (9, 9), -5), "TIFF")).id

    job = paint(masks=[below_black])

    assert job.error.code == "invalid_input"
    assert "masks: number 1 leaves nothing to paint" in job.error.message
    assert paint(masks=[upload("white")]).status == JobStatus.SUCCEEDED


@pytest.mark.parametrize("scales", [1, 2])
def test_a_mask_of_which_nothing_is_left_at_the_results_size_ends_the_job(paint, upload, scales):
    """One white pixel of a million: the nearest pixels at 96 px are all black."""
    speck = np.zeros((1000, 1000), np.uint8)
    speck[3, 3] = 255
    white = upload("white")

    job = paint(style_images=[upload("red")] * 2, masks=[white, upload(speck)], scales=scales)

    assert (job.status, job.error.code) == (JobStatus.FAILED, "invalid_input")
    assert "masks: number 2 leaves nothing to paint at 96x64 px" in job.error.message


def test_a_narrow_style_beside_a_wide_photo_is_looked_at_in_tiles_and_painted(
    paint, upload, result, monkeypatch
):
    """1 x 300 px become 15 x 4500, many times the painting; what may be done in one piece is made small here."""
    monkeypatch.setattr(style_memory, "WHOLE_BYTES", 20 * 2**20)

    job = paint(style_images=[upload("red", (300, 1))], iterations=2)

    assert job.status == JobStatus.SUCCEEDED
    assert result(job).shape == (64, 96, 3)


# Stopping and going on


@pytest.fixture
def begin(queue, upload, chelsea, flower) -> Callable[..., JobContext]:
    """Claim a new small job, or one that was given back."""

    def begin_attempt(job_id: str | None = None, context=JobContext, **params) -> JobContext:
        pictures = {"content_image": upload(chelsea), "style_images": [upload(flower)]}
        small = {"network": "squeezenet", "size_px": 96, "scales": 2, "iterations": 6, "seed": 1}
        job_id = job_id or queue.submit("style_transfer", pictures | small | params).id
        claim = queue.store.claim(job_id, token=f"token{queue.get(job_id).attempt}", worker=WORKER)
        return context(queue, queue.get(job_id), claim)

    return begin_attempt


def test_a_cancelled_job_ends_within_one_evaluation_and_leaves_what_it_has(queue, begin):
    job = begin()
    queue.cancel(job.id)

    end = perform(queue.get(job.id), job)

    assert end.status == JobStatus.CANCELLED
    assert set(job.artifacts) == {"partial.png", "history.csv"}
    assert job._progress.step == 0
    assert (job.summary["ended_by"], job.summary["iterations"]) == ("cancelled", 0)


class StoppedContext(JobContext):
    """A job that is asked to stop after so many reports."""

    left: int
    reason = "shutdown"

    def report(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            self.queue.store.request_stop(self.claim, self.reason)
        super().report(*args, **kwargs)


@pytest.mark.parametrize("reports", [9, 30])
def test_a_job_cancelled_on_its_way_keeps_what_is_painted_by_then(
    queue, begin, monkeypatch, result, history, reports
):
    """Asked to stop while it is at the coarse size, and at the fine one: what is kept has the result's size."""
    monkeypatch.setattr(job_context, "TELL_EVERY_S", 0)
    job = begin(context=StoppedContext)
    job.left, job.reason = reports, "user"

    write_end(job, perform(queue.get(job.id), job))

    ended = queue.get(job.id)
    assert ended.status == JobStatus.CANCELLED
    assert {"partial.png", "history.csv"} <= names(ended)
    assert "result.png" not in names(ended)
    assert ended.progress.step < ended.progress.total == 18
    partial, photo = result(ended, "partial.png").astype(float), job.load_image(ended.params["content_image"])
    assert partial.shape == (64, 96, 3)
    assert np.abs(partial - resize(photo, (64, 96))).mean() > 3  # painted, and not the photo as it was
    rows = history(ended)
    assert rows[-1]["total"] < rows[0]["total"]
    assert ended.summary["ended_by"] == "cancelled"
    assert ended.summary["iterations"] == len(rows) == rows[-1]["iteration"]
    assert ended.summary["loss"] == pytest.approx(rows[-1]["total"])


@pytest.mark.parametrize(
    ("reports", "where"), [(3, "style"), (10, "content"), (16, "first pass"), (22, "second pass")]
)
def test_a_cancel_is_seen_between_the_tiles_of_a_large_picture(begin, queue, monkeypatch, reports, where):
    """An evaluation of one may take minutes. 6 tiles of 32 px: of the style image, of the content, and of a first
    evaluation, which passes over them twice; what stops there has not told of an evaluation yet."""
    monkeypatch.setattr(job_context, "TELL_EVERY_S", 0)
    job = begin(context=StoppedContext, tile_px=32, scales=1)
    job.left, job.reason = reports, "user"

    assert perform(queue.get(job.id), job).status == JobStatus.CANCELLED
    assert job._progress.metrics == {}, where  # the first evaluation had not come to its end
    assert job.summary["evaluations"] == 0
    assert set(job.artifacts) == {"partial.png", "history.csv"}


@pytest.mark.parametrize("signal", ["user", "timeout"])
def test_a_stop_that_only_a_signal_could_bring_keeps_the_partial_picture(begin, queue, monkeypatch, signal):
    """A child that did not see the flag for 15 s, in the network or its compilation, is signalled: SystemExit."""
    real = build_objective
    job = begin(scales=1)

    def build(*args, **kwargs):
        evaluate, done = real(*args, **kwargs), itertools.count(1)

        def signalled(picture):
            if next(done) == 3:
                queue.store.request_stop(job.claim, signal)
                raise SystemExit
            return evaluate(picture)

        return signalled

    monkeypatch.setattr(style_painter, "build_objective", build)

    end = perform(queue.get(job.id), job)

    assert end.status == {"user": JobStatus.CANCELLED, "timeout": JobStatus.FAILED}[signal]
    assert {"partial.png", "history.csv"} <= set(job.artifacts)
    assert job.summary["evaluations"] > 0


def test_a_loss_that_leaves_the_numbers_on_the_way_keeps_the_best_picture_before(
    paint, monkeypatch, result, history, chelsea
):
    """The seventh evaluation gives what a faulty accelerator gives: NaN."""
    with monkeypatch.context() as fault:
        fault.setattr(style_painter, "build_objective", breaking_after(6))
        job = paint(iterations=20)

    assert (job.status, job.error.code) == (JobStatus.FAILED, "diverged")
    assert "result.png" not in names(job)
    partial, photo = result(job, "partial.png"), resize(decode(chelsea, max_pixels=10**7), (64, 96))
    assert np.abs(partial - photo).mean() > 3
    rows = history(job)
    assert 3 <= len(rows) <= 6
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[-1]["total"] < rows[0]["total"]
    # As good as an unbroken job of so many iterations: it takes the same steps.
    unbroken = result(paint(iterations=len(rows)))
    assert np.abs(partial.astype(float) - unbroken).max() <= 1
    assert job.warnings == []


def breaking_after(evaluations: int) -> Callable[..., Callable]:
    """The real objective, whose gradient is NaN after so many evaluations."""

    def build(*args, **kwargs):
        real, done = build_objective(*args, **kwargs), itertools.count(1)

        def evaluate(picture):
            losses, gradient = real(picture)
            return losses, gradient if next(done) <= evaluations else gradient * np.nan

        return evaluate

    return build


@pytest.mark.parametrize("reports", [9, 14, 40])
def test_a_resumed_job_equals_an_unbroken_one(queue, begin, monkeypatch, reports):
    """Stopped in the middle of a run of L-BFGS, at the coarse size and at the fine one, after its memory was
    started anew."""
    monkeypatch.setattr(job_context, "TELL_EVERY_S", 0)
    monkeypatch.setattr(style_memory, "LEAST_TRACE", 1)
    monkeypatch.setattr(style_memory, "TRACE_BYTES", 3 * 3 * 4 * 96 * 64)  # 3 gradients of the fine size
    unbroken = begin(iterations=8)  # a preview after each second of 24 steps
    run_through(queue, unbroken)
    stopped = begin(context=StoppedContext, iterations=8)
    stopped.left = reports

    interrupt(queue, stopped)
    run_job(stopped.id)

    resumed, whole = queue.get(stopped.id), queue.get(unbroken.id)
    assert resumed.status == JobStatus.SUCCEEDED
    assert resumed.summary["resumed_from_step"] > 0
    assert bytes_of(queue, resumed) == bytes_of(queue, whole)
    assert bytes_of(queue, resumed, "history.csv") == bytes_of(queue, whole, "history.csv")
    assert resumed.summary["scales"] == whole.summary["scales"]
    assert names(resumed) == names(whole)  # its previews are of the same steps
    told = [event.data for event in queue.store.events_after(resumed.id, "0") if event.type == "progress"]
    steps = [progress["step"] for progress in told]
    assert steps == sorted(steps)  # what was told before the interruption is not told again


@pytest.mark.parametrize("reports", [105, 115, 130])
def test_where_the_gradients_are_too_large_to_keep_a_resumed_job_ends_within_a_hundredth(
    queue, begin, monkeypatch, reports
):
    """Stopped at the fine size, early, in the middle and late; there L-BFGS starts its memory anew at this point only,
    and is given a few iterations more to make up for it."""
    monkeypatch.setattr(job_context, "TELL_EVERY_S", 0)
    monkeypatch.setattr(style_memory, "LEAST_TRACE", 5)
    monkeypatch.setattr(
        style_memory, "TRACE_BYTES", 5 * 3 * 4 * 48 * 32
    )  # of the coarse size, and not of the fine
    runs = []
    monkeypatch.setattr(style_painter, "lbfgs", lambda *args, **rest: runs.append(1) or lbfgs(*args, **rest))
    unbroken = begin(iterations=20)
    run_through(queue, unbroken)
    assert len(runs) == 40 // 5 + 1
    stopped = begin(context=StoppedContext, iterations=20)
    stopped.left = reports

    interrupt(queue, stopped)
    run_job(stopped.id)

    resumed, whole = queue.get(stopped.id), queue.get(unbroken.id)
    assert resumed.summary["resumed_from_step"] > 0
    assert whole.summary["iterations"] == 60  # 40 and 20
    assert resumed.summary["iterations"] == 60 + style_memory.RESTART_ITERATIONS
    assert [scale["restarts"] for scale in resumed.summary["scales"]] == [0, 1]
    assert resumed.summary["loss"] < 1.01 * whole.summary["loss"]
    assert (
        len(queue.storage.read(stopped._checkpoints[0].path)) < 4 * 96 * 64 * 3 * 3
    )  # the picture, no gradients


def test_a_size_that_had_come_to_its_end_is_not_begun_again(queue, begin, upload, chelsea, monkeypatch):
    """A picture in its own style is at the minimum: one evaluation, also where the job is then interrupted."""
    monkeypatch.setattr(job_context, "TELL_EVERY_S", 0)
    picture = upload(chelsea)
    own = {"content_image": picture, "style_images": [picture], "tv_weight": 0, "scales": 1}
    unbroken = begin(**own)
    run_through(queue, unbroken)
    stopped = begin(context=StoppedContext, **own)
    stopped.left = 5  # the beginning, both pictures seen, the evaluation, and the end

    interrupt(queue, stopped)
    run_job(stopped.id)

    scales = [queue.get(job.id).summary["scales"] for job in (stopped, unbroken)]
    assert [[scale["evaluations"] for scale in of_job] for of_job in scales] == [[1], [1]]


def test_gradients_of_other_weights_or_another_network_are_not_taken_for_these():
    """Whatever decides which points are evaluated, and what comes of it, stands in the checkpoint."""
    params = StyleTransferParams(
        content_image="a" * 64, style_images=["a" * 64], network="squeezenet", size_px=96, scales=1
    )
    origins = []
    for changed, weights_sha256 in (({}, "1"), ({"content_weight": 1}, "1"), ({}, "2")):
        of = params.model_copy(update=changed)
        pictures = StylePictures(params=of, content=np.zeros((64, 96, 3)), styles=[], masks=None, init=None)
        functions = SimpleNamespace(network=SimpleNamespace(weights_sha256=weights_sha256))
        painter = style_painter.Painter(pictures, [(64, 96)], functions, Painting(pictures.content), None)
        origins.append(painter._origin(scale_weights(of, (64, 96), (64, 96)), 20, 60))

    assert json.loads(json.dumps(origins)) == origins  # as a checkpoint holds them
    assert origins[0] not in origins[1:]


def test_steps_that_another_optimiser_took_are_not_taken_again():
    """With more pairs in memory the next points differ, and recorded gradients would be those of other pictures."""
    picture = np.zeros((4, 6, 3), np.float32)
    painting = Painting(picture, losses=[(1, 1, 1)], gradients=[picture], origin=["1.17", 10, 30])
    again = Painting.from_state(painting.state())

    again.keep_trace_of(["1.17", 10, 30])
    assert len(again.losses) == len(again.gradients) == 1

    again.keep_trace_of(["1.17", 20, 60])
    assert again.losses == again.gradients == []
    assert Painting.from_state(again.state()).origin == ["1.17", 20, 60]


def interrupt(queue, stopped: StoppedContext) -> None:
    """Run it until it is asked to stop, as by a worker that shuts down; it is in the queue again."""
    with pytest.raises(JobPreempted):
        perform(queue.get(stopped.id), stopped)
    queue.store.release(stopped.claim, "shutdown", loss=False, max_losses=3)


def run_through(queue, job: JobContext) -> None:
    queue.store.release(job.claim, "shutdown", loss=False, max_losses=3)
    run_job(job.id)


# Weights


def test_content_and_variation_weigh_alike_at_every_size():
    params = StyleTransferParams(content_image="a" * 64, style_images=["a" * 64])

    book = scale_weights(params, (400, 600), (400, 600))
    larger = scale_weights(params, (800, 1200), (800, 1200))
    coarse = scale_weights(params, (400, 600), (800, 1200))

    # The book's 0.025, 1 / 5 layers and 1e-4; VGG's content counts 50 times.
    assert (book.content, book.style, book.variation) == pytest.approx((50 * 0.025, 0.2, 1e-4))
    assert (larger.content, larger.style, larger.variation) == pytest.approx((50 * 0.025 / 4, 0.2, 1e-4 / 4))
    # On the way to a picture of four times the pixels the content counts four times as much.
    assert (coarse.content, coarse.variation) == pytest.approx((4 * book.content, book.variation))


def test_the_total_is_the_sum_of_the_terms():
    assert Losses(1.0, 2.0, 4.0).total == 7.0
