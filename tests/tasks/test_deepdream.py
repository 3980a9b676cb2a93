"""DeepDream does what its sources describe, and a job leaves what was asked for, whatever comes in between."""

import io
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from shared.job import Job, JobStatus
from shared.kinds.deepdream import octave_shapes
from shared.queue import Queue
from shared.settings import Settings
from tasks import deepdream
from tasks.deepdream import best_matches, gradient_function, lost_detail, normalised, resize, to_255, to_unit
from tasks.networks import pretrained, weights
from tasks.networks.pretrained import PretrainedNetwork
from tasks.networks.squeezenet import build_squeezenet
from workers.run_job import run_job


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory: pytest.TempPathFactory) -> PretrainedNetwork:
    """SqueezeNet down to two layers."""
    return pretrained.load("squeezenet", ["fire2", "fire5"], weights_dir=tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def cat(chelsea: Path) -> np.ndarray:
    """The cat's face, 160x120, in [-1, 1]."""
    return to_unit(np.asarray(Image.open(chelsea).convert("RGB").resize((160, 120))))


def png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


# The objective


def test_the_loss_is_the_books_weighted_sum_of_squares_without_the_border(
    squeezenet: PretrainedNetwork, cat: np.ndarray
) -> None:
    losses, _ = gradient_function(squeezenet, guided=False)(cat, [0.5, 2.0], [])

    activations = squeezenet.activations(to_255(cat)[None])
    expected = []
    for coefficient, layer in [(0.5, "fire2"), (2.0, "fire5")]:
        a = activations[layer].numpy().astype(np.float64)
        expected.append(coefficient * np.sum(a[:, 2:-2, 2:-2, :] ** 2) / a.size)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_the_gradient_says_how_the_loss_changes(squeezenet: PretrainedNetwork, cat: np.ndarray) -> None:
    gradient_at = gradient_function(squeezenet, guided=False)
    _, gradient = gradient_at(cat, [1.0, 1.0], [])
    direction = normalised(gradient.numpy())

    further, back = (gradient_at(cat + step * direction, [1.0, 1.0], [])[0] for step in (1e-5, -1e-5))

    slope = (further.numpy().sum() - back.numpy().sum()) / 2e-5
    assert slope == pytest.approx(np.sum(gradient.numpy() * direction), rel=0.02)


def test_towards_a_guide_the_loss_is_the_product_with_the_best_matching_vectors(
    squeezenet: PretrainedNetwork, cat: np.ndarray
) -> None:
    guide = [
        np.random.default_rng(0).uniform(0, 1, (30, channels)).astype(np.float32) for channels in (128, 256)
    ]

    losses, gradient = gradient_function(squeezenet, guided=True)(cat, [1.0, 3.0], guide)

    activations = squeezenet.activations(to_255(cat)[None])
    for loss, coefficient, layer, vectors in zip(losses, [1.0, 3.0], squeezenet.layers, guide, strict=True):
        a = activations[layer].numpy()[0]
        inner = a[2:-2, 2:-2].reshape(-1, a.shape[-1])
        # google/deepdream, objective_guide: each feature vector's best match is the one with the largest product.
        expected = coefficient * np.sum((inner @ vectors.T).max(axis=1)) / a.size
        assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert np.abs(gradient).max() > 0


def test_matching_in_blocks_is_matching_at_once() -> None:
    random = np.random.default_rng(0)
    vectors, guide = random.normal(size=(2500, 16)), random.normal(size=(40, 16))

    matches = best_matches(tf.constant(vectors, tf.float32), tf.constant(guide, tf.float32))

    np.testing.assert_array_equal(matches, (vectors @ guide.T).argmax(axis=1))


def test_one_trace_serves_pictures_of_all_sizes(squeezenet: PretrainedNetwork, cat: np.ndarray) -> None:
    gradient_at = gradient_function(squeezenet, guided=False)

    for shape in [(61, 83), (120, 90), (83, 61)]:
        assert gradient_at(resize(cat, shape), [1.0, 1.0], [])[1].shape == (*shape, 3)

    assert gradient_at.experimental_get_tracing_count() == 1


def test_a_normalised_gradient_has_a_mean_magnitude_of_one_and_none_at_all_stays_none() -> None:
    gradient = np.array([[[1.0, -2.0, 3.0]]], np.float32)

    np.testing.assert_allclose(normalised(gradient), [[[0.5, -1.0, 1.5]]], rtol=1e-6)
    np.testing.assert_array_equal(normalised(np.zeros((2, 2, 3), np.float32)), 0)


# Tiles


def test_inside_a_tile_the_gradient_is_that_of_the_whole_picture(
    squeezenet: PretrainedNetwork, cat: np.ndarray
) -> None:
    gradient_at = gradient_function(squeezenet, guided=False)
    picture = resize(cat, (128, 192))
    rows, columns = (
        slice(16, 112),
        slice(32, 160),
    )  # where all windows fall as in the whole: their stride is 4

    _, whole = gradient_at(picture, [1.0, 0.0], [])
    _, tile = gradient_at(picture[rows, columns], [1.0, 0.0], [])

    # The loss is a mean, over 31x47 cells of fire2 in the whole and 23x31 in the tile.
    inside = slice(24, -24)  # further in than the crop of 2 cells and the window of 15 px reach
    expected = whole.numpy()[rows, columns][inside, inside] * (31 * 47) / (23 * 31)
    np.testing.assert_allclose(
        tile.numpy()[inside, inside], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )


def test_borders_of_tiles_do_not_show_in_a_step(squeezenet: PretrainedNetwork, cat: np.ndarray) -> None:
    gradient_at = gradient_function(squeezenet, guided=False)
    picture = resize(cat, (240, 320))
    at_borders, elsewhere = [], []

    for seed in range(8):
        tiles = deepdream.Tiles((240, 320), (96, 96), np.random.default_rng(seed))
        step = normalised(tiles.blend(lambda box: gradient_at(picture[box], [0.0, 1.0], [])[1].numpy()))
        jumps = np.abs(np.diff(step, axis=1)).mean(axis=(0, 2))
        borders = {edge - 1 for _, columns in tiles.boxes for edge in (columns.start, columns.stop)} - {
            -1,
            319,
        }
        at_borders.append(np.mean(jumps[list(borders)]))
        elsewhere.append(np.mean(np.delete(jumps, list(borders))))

    assert np.mean(at_borders) <= np.mean(elsewhere)


# Octaves


def test_a_resized_picture_has_exactly_the_shape_and_does_not_alias(cat: np.ndarray) -> None:
    checkerboard = np.indices((120, 160)).sum(axis=0)[..., None] % 2 * np.ones(3, np.float32) * 2 - 1

    assert resize(cat, (331, 457)).shape == (331, 457, 3)
    assert np.abs(resize(checkerboard.astype(np.float32), (61, 83))[5:-5, 5:-5]).max() < 0.1


def test_lost_detail_makes_a_picture_that_grew_without_a_dream_the_original_again(cat: np.ndarray) -> None:
    shapes = octave_shapes((120, 160), 3, 1.4)

    picture = resize(cat, shapes[0])
    for smaller, shape in itertools.pairwise(shapes):
        picture = resize(picture, shape) + lost_detail(cat, smaller, shape)

    np.testing.assert_allclose(picture, cat, atol=1e-5)


# Jobs


@pytest.fixture
def dream(queue: Queue, run: Callable[..., Job], chelsea: Path) -> Callable[..., Job]:
    """Run a small, short dream of the cat to its end."""

    def run_dream(picture: bytes | None = None, **params: Any) -> Job:
        if picture is None:
            picture = png(np.asarray(Image.open(chelsea).convert("RGB").resize((157, 131))))
        short = {"network": "squeezenet", "seed": 1, "iterations": 4, "octaves": 2, **params}
        return run("deepdream", image=queue.upload(picture).id, **short)

    return run_dream


@pytest.fixture
def left(queue: Queue) -> Callable[[Job, str], np.ndarray]:
    """A picture that a job left."""

    def read(job: Job, name: str) -> np.ndarray:
        with queue.open_artifact(job.id, name) as file:
            return np.asarray(Image.open(file)).astype(np.float32)

    return read


def names(job: Job) -> list[str]:
    return [artifact.name for artifact in job.artifacts]


def test_a_job_leaves_previews_by_step_and_a_result_of_the_pictures_size(
    dream: Callable[..., Job], left: Callable[..., np.ndarray]
) -> None:
    job = dream(iterations=15)

    assert job.status == JobStatus.SUCCEEDED, job.error
    # Every ten steps, and after each octave of 15.
    assert names(job) == [
        "preview-0010.png",
        "preview-0015.png",
        "preview-0020.png",
        "preview-0030.png",
        "result.png",
    ]
    assert left(job, "result.png").shape == (131, 157, 3)
    assert left(job, "preview-0010.png").shape == (93, 112, 3)  # int(131 / 1.4), int(157 / 1.4)


def test_every_octave_makes_the_layers_stronger_and_the_record_tells_what_was_done(
    dream: Callable[..., Job],
) -> None:
    job = dream()

    assert [octave["steps"] for octave in job.summary["octaves"]] == [4, 4]
    for octave in job.summary["octaves"]:
        assert octave["loss_last"] > 1.5 * octave["loss_first"]
    metrics = job.progress.metrics
    assert metrics["loss"] == pytest.approx(metrics["fire5"] + metrics["fire7"])
    assert (job.progress.step, job.progress.total) == (8, 8)
    assert len(job.provenance["network"]["weights_sha256"]) == 64


def test_max_side_px_shrinks_the_picture_and_the_result(
    dream: Callable[..., Job], left: Callable[..., np.ndarray]
) -> None:
    job = dream(max_side_px=120, octaves=1)

    assert left(job, "result.png").shape == (100, 120, 3)  # 131 * 120 / 157 = 100.1


def test_an_octave_whose_loss_is_above_max_loss_ends_before_its_step_and_says_so(
    dream: Callable[..., Job], left: Callable[..., np.ndarray], chelsea: Path
) -> None:
    job = dream(max_loss=1e-3)

    assert [octave["ended_by"] for octave in job.summary["octaves"]] == ["max_loss", "max_loss"]
    assert [warning.code for warning in job.warnings] == ["octave_unchanged", "octave_unchanged"]
    original = np.asarray(Image.open(chelsea).convert("RGB").resize((157, 131)), np.float32)
    np.testing.assert_array_equal(left(job, "result.png"), original)


def test_an_octave_stops_once_its_loss_is_high_enough(dream: Callable[..., Job]) -> None:
    free = dream(octaves=1, iterations=6).summary["octaves"][0]
    limit = (free["loss_first"] + free["loss_last"]) / 2

    stopped = dream(octaves=1, iterations=6, max_loss=limit).summary["octaves"][0]

    assert stopped["ended_by"] == "max_loss"
    assert 0 < stopped["steps"] < 6
    assert stopped["loss_first"] < limit < stopped["loss_last"]


def test_the_same_job_gives_the_same_bytes_after_another_ran_in_between(
    dream: Callable[..., Job], queue: Queue
) -> None:
    first = dream(jitter_px=7)
    other = dream(jitter_px=7, seed=2, layers="geometric")
    again = dream(jitter_px=7)

    def sha256(job: Job) -> str:
        return queue.artifact(job.id, "result.png").sha256

    assert sha256(first) == sha256(again) != sha256(other)


def test_jitter_shifts_the_picture_for_the_gradient_and_shifts_that_back_exactly(
    dream: Callable[..., Job], left: Callable[..., np.ndarray], chelsea: Path, tmp_path: Path
) -> None:
    job = dream(octaves=1, iterations=1, jitter_px=9, step=0.05)

    original = to_unit(np.asarray(Image.open(chelsea).convert("RGB").resize((157, 131))))
    network = pretrained.load("squeezenet", ["fire5", "fire7"], weights_dir=tmp_path)
    shift = deepdream.step_random(1, 0).integers(-9, 9, size=2, endpoint=True)
    _, gradient = gradient_function(network, guided=False)(np.roll(original, shift, (0, 1)), [1.0, 1.0], [])
    expected = original + 0.05 * normalised(np.roll(gradient.numpy(), -shift, (0, 1)))
    assert shift.any()
    np.testing.assert_allclose(left(job, "result.png"), np.clip(np.round(to_255(expected)), 0, 255), atol=1)


def test_a_guide_leads_the_dream_elsewhere(
    dream: Callable[..., Job], left: Callable[..., np.ndarray], queue: Queue, china: Path
) -> None:
    guide = queue.upload(china.with_name("flower.jpg").read_bytes()).id

    alone, guided = dream(), dream(guide_image=guide)

    assert guided.status == JobStatus.SUCCEEDED, guided.error
    assert guided.summary["octaves"][1]["loss_last"] > guided.summary["octaves"][0]["loss_first"]
    assert np.abs(left(alone, "result.png") - left(guided, "result.png")).mean() > 1


def test_a_picture_in_tiles_has_its_exact_size_and_no_border_of_a_tile_shows(
    dream: Callable[..., Job], left: Callable[..., np.ndarray], chelsea: Path
) -> None:
    photo = np.asarray(Image.open(chelsea).convert("RGB").resize((301, 203)))

    job = dream(png(photo), tile_px=96, octaves=1, iterations=8, jitter_px=0)

    change = left(job, "result.png") - photo
    assert change.shape == (203, 301, 3)
    assert np.abs(change).mean() > 1
    jumps = np.abs(np.diff(change, axis=1)).mean(axis=(0, 2))
    assert job.summary["octaves"][0]["tiles"] >= 3 * 4  # tiles of 96 px that overlap by 12
    at_borders = [jumps[column] for step in range(8) for column in borders_of_tiles(step)]
    assert len(at_borders) >= 8 * 4
    assert np.mean(at_borders) <= 1.05 * np.mean(jumps[20:-20])


def borders_of_tiles(step: int) -> set[int]:
    """The columns before which a tile begins or ends in this step of seed 1, without jitter, 301 px across."""
    random = deepdream.step_random(1, step)
    random.integers(0, 0, size=2, endpoint=True)  # the jitter's
    tiles = deepdream.Tiles((203, 301), (96, 96), random)
    return {edge - 1 for _, columns in tiles.boxes for edge in (columns.start, columns.stop)} - {-1, 300}


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_of_one_colour_gives_a_picture(
    dream: Callable[..., Job], left: Callable[..., np.ndarray], value: int
) -> None:
    job = dream(png(np.full((140, 150, 3), value, np.uint8)))

    assert job.status == JobStatus.SUCCEEDED, job.error
    assert left(job, "result.png").shape == (140, 150, 3)


def test_weights_that_give_no_numbers_end_the_job_as_diverged(
    dream: Callable[..., Job], settings: Settings
) -> None:
    model = build_squeezenet()
    model.set_weights([np.full(array.shape, np.nan, np.float32) for array in model.get_weights()])
    settings.weights_dir.mkdir()
    model.save_weights(settings.weights_dir / "squeezenet.weights.h5")

    job = dream()

    assert (job.status, job.error.code) == (JobStatus.FAILED, "diverged")


def test_a_network_whose_weights_are_not_to_be_had_ends_the_job_with_what_to_do(
    dream: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "DOWNLOAD_URL", "http://127.0.0.1:1")  # nothing listens there

    job = dream(network="vgg19")

    assert (job.status, job.error.code) == (JobStatus.FAILED, "weights_unavailable")
    assert "squeezenet" in job.error.message


def test_the_smallest_picture_for_inception_v3_dreams_in_every_octave(
    dream: Callable[..., Job], settings: Settings, chelsea: Path
) -> None:
    keras.utils.set_random_seed(3)
    settings.weights_dir.mkdir()
    pretrained.build("inception_v3").save_weights(settings.weights_dir / "inception_v3.weights.h5")
    photo = np.asarray(Image.open(chelsea).convert("RGB").resize((300, 210)))

    job = dream(png(photo), network="inception_v3", octaves=3, iterations=2, max_loss=None)

    assert job.status == JobStatus.SUCCEEDED, job.error
    assert set(job.progress.metrics) == {"loss", "mixed2", "mixed3", "mixed4", "mixed5"}
    for octave in job.summary["octaves"]:
        assert octave["loss_last"] > octave["loss_first"] > 0
    assert all(value > 0 for value in job.progress.metrics.values())


# Stopping and going on


@pytest.fixture
def when_it_runs(queue: Queue) -> Iterator[Callable[[str, Callable[[], Any]], None]]:
    """Do something as soon as a job has told of a step."""
    threads: list[threading.Thread] = []

    def arrange(job_id: str, act: Callable[[], Any]) -> None:
        def wait() -> None:
            for event in queue.events(job_id, block_s=1):
                if event and event.type == "progress" and event.data["step"] >= 2:
                    act()
                    return

        threads.append(threading.Thread(target=wait))
        threads[-1].start()

    yield arrange
    for thread in threads:
        thread.join()


@pytest.fixture
def long_job(queue: Queue, chelsea: Path) -> Callable[[int], Job]:
    """Submit a dream of so many steps in each of two octaves."""
    picture = queue.upload(png(np.asarray(Image.open(chelsea).convert("RGB").resize((157, 131)))))

    def submit(iterations: int) -> Job:
        params = {
            "image": picture.id,
            "network": "squeezenet",
            "octaves": 2,
            "iterations": iterations,
            "seed": 5,
        }
        return queue.submit("deepdream", params)

    return submit


def test_a_cancelled_dream_keeps_its_previews_and_what_it_had(
    queue: Queue, long_job: Callable[[int], Job], when_it_runs: Callable[..., None]
) -> None:
    job = long_job(1000)
    when_it_runs(job.id, lambda: queue.cancel(job.id))

    run_job(job.id)

    ended = queue.get(job.id)
    assert ended.status == JobStatus.CANCELLED
    assert "partial.png" in names(ended)
    assert "result.png" not in names(ended)
    assert 0 < ended.summary["octaves"][0]["steps"] < 1000


def test_a_dream_that_was_stopped_and_resumed_equals_an_unbroken_one(
    queue: Queue, long_job: Callable[[int], Job], when_it_runs: Callable[..., None]
) -> None:
    unbroken, broken = long_job(60), long_job(60)
    run_job(unbroken.id)
    when_it_runs(broken.id, lambda: queue.store.request_stop(queue.store.claim_of(broken.id), "shutdown"))

    run_job(broken.id)
    between = queue.get(broken.id)
    run_job(broken.id)

    ended = queue.get(broken.id)
    assert between.status == JobStatus.QUEUED
    assert ended.status == JobStatus.SUCCEEDED
    assert 0 < ended.summary["resumed_from_step"] < 120
    assert ended.summary["octaves"] == queue.get(unbroken.id).summary["octaves"]
    assert queue.artifact(broken.id, "result.png").sha256 == queue.artifact(unbroken.id, "result.png").sha256


def test_a_state_goes_through_a_checkpoint_unchanged(cat: np.ndarray) -> None:
    dream = deepdream.Dream(
        cat, octave=1, iteration=3, octaves=[deepdream.Octave(112, 80, 4, 1.5, 3.25, "max_loss")]
    )

    assert deepdream.Dream.from_state(dream.state()) == dream
