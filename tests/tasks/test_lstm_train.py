"""Training an LSTM: what it leaves, exact resume, short texts, and the two modes."""

import csv
import io
import itertools
import json
import math
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from shared.errors import InvalidInput, JobCancelled, JobPreempted
from shared.job import new_token
from tasks.batches import StreamBatches, WindowBatches, split
from tasks.job_context import JobContext
from tasks.networks.lstm import CharacterLstm
from tasks.networks.lstm_recurrence import recurrence
from tasks.plots import line_plot, ticks
from workers.identity import this_worker
from workers.run_job import give_back, perform, run_job, write_end

TEXT = "The quick brown fox jumps over the lazy dog; naïve 😀 foxes don't.\n" * 12
SMALL = {"units": 8, "window": 10, "batch_size": 4, "epochs": 2, "sample_temperatures": []}


@pytest.fixture
def text(queue):
    """A text of 792 characters, 34 different ones, uploaded."""
    return queue.upload(TEXT.encode()).id


class StopsAt(JobContext):
    """A job that is asked to stop just after a step."""

    def __init__(self, queue, job, claim, *, step, stop):
        super().__init__(queue, job, claim)
        self.stop_step, self.stop = step, stop

    def report(self, step, total, message="", metrics=None, checkpoint=None):
        super().report(step, total, message, metrics, checkpoint)
        if step == self.stop_step:
            if self.stop is JobPreempted:
                self.save_checkpoint(step, checkpoint())
            raise self.stop()


@pytest.fixture
def start(queue):
    """Submit a job and run it until it is stopped just after a step."""

    def start(kind, *, step, stop, **params):
        job = queue.submit(kind, params)
        claim = queue.store.claim(job.id, token=new_token(), worker=this_worker("test"))
        context = StopsAt(queue, queue.get(job.id), claim, step=step, stop=stop)
        try:
            write_end(context, perform(queue.get(job.id), context))
        except JobPreempted:
            give_back(queue, claim, "shutdown")
        return job.id

    return start


def content(queue, job, name):
    with queue.open_artifact(job.id, name) as opened:
        return opened.read()


def hashes(job):
    return {artifact.name: artifact.sha256 for artifact in job.artifacts}


def test_a_training_leaves_model_vocabulary_history_samples_and_plot(queue, run, text):
    job = run(
        "lstm_train", text=text, seed=1, **SMALL | {"sample_temperatures": [0.5, 1.0], "sample_length": 9}
    )

    assert job.status == "succeeded", job.error
    assert [artifact.name for artifact in job.artifacts] == [
        "samples-epoch-0001.txt",
        "samples-epoch-0002.txt",
        "model.keras",
        "vocabulary.json",
        "history.csv",
        "loss.png",
    ]
    vocabulary = json.loads(content(queue, job, "vocabulary.json"))
    assert vocabulary["characters"] == "".join(sorted(set(TEXT)))
    assert all(TEXT[place["offset"] :].startswith(place["text"]) for place in vocabulary["places"])
    assert Image.open(io.BytesIO(content(queue, job, "loss.png"))).size == (900, 540)
    assert job.summary["characters"] == 792
    assert job.progress.step == job.progress.total == job.summary["steps"]


def test_the_history_has_nats_bits_and_validation_of_each_epoch(queue, run, text):
    job = run(
        "lstm_train",
        text=text,
        seed=1,
        validation_fraction=0.1,
        **SMALL | {"epochs": 4, "learning_rate": 0.03},
    )

    rows = list(csv.DictReader(io.StringIO(content(queue, job, "history.csv").decode())))
    losses = [float(row["loss"]) for row in rows]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < math.log(34)  # of 34 equally likely characters
    for row in rows:
        for name in ("", "validation_"):
            nats, found_bits = float(row[f"{name}loss"]), float(row[f"{name}bits_per_character"])
            assert found_bits == pytest.approx(nats / math.log(2), abs=2e-6)  # 6 decimals each
    assert job.summary["bits_per_character"] == pytest.approx(float(rows[-1]["bits_per_character"]), abs=1e-6)


def test_each_sample_of_an_epoch_starts_from_the_same_place_of_the_text(queue, run, text):
    job = run(
        "lstm_train",
        text=text,
        seed=1,
        **SMALL | {"epochs": 1, "sample_temperatures": [0.0, 0.5, 1.0], "sample_length": 20},
    )

    page = content(queue, job, "samples-epoch-0001.txt").decode()
    samples = [part.split("\n", 1)[1] for part in page.split("----- temperature ")[1:]]
    prompts = {sample[:10] for sample in samples}
    assert len(samples) == 3
    assert len(prompts) == 1
    assert prompts.pop() in TEXT
    assert all(len(sample.removesuffix("\n\n").removesuffix("\n")) >= 10 + 19 for sample in samples)
    assert set(page) <= set(TEXT) | set("----- temperature 0.51\n")


def test_the_model_file_is_a_plain_keras_model_with_the_same_weights(queue, run, text, tmp_path):
    job = run("lstm_train", text=text, seed=1, **SMALL | {"layers": 2, "dropout": 0.2})

    model = keras.models.load_model(queue.storage.local_path(job.artifact("model.keras").path))

    logits = model(np.eye(34, dtype=np.float32)[None, :5])
    assert logits.shape == (1, 5, 34)
    with zipfile.ZipFile(queue.storage.local_path(job.artifact("model.keras").path)) as archive:
        assert "__lambda__" not in archive.read("config.json").decode()


@pytest.mark.parametrize("mode", ["stateful", "window"])
def test_the_same_training_gives_the_same_bytes_whatever_ran_between(run, text, mode):
    samples = {"sample_temperatures": [1.0], "sample_length": 9}
    params = {"text": text, "seed": 7, "mode": mode, "dropout": 0.3, **SMALL, **samples, "epochs": 1}

    first = run("lstm_train", **params)
    run("lstm_train", **params | {"seed": 8})
    again = run("lstm_train", **params)

    assert first.status == "succeeded", first.error
    assert hashes(first) == hashes(again)


@pytest.mark.parametrize(
    ("mode", "optimizer", "step"),
    [("stateful", "rmsprop", 25), ("stateful", "adam", 18), ("window", "adam", 100)],
)
def test_a_resumed_training_equals_an_unbroken_one(queue, run, start, text, mode, optimizer, step):
    """792 characters, 753 of them to learn: 18 steps of 4 x 10 an epoch, or 62 of 4 windows."""
    params = {"text": text, "seed": 3, "mode": mode, "optimizer": optimizer, "dropout": 0.2, **SMALL}
    unbroken = run("lstm_train", **params)

    job_id = start("lstm_train", step=step, stop=JobPreempted, **params)
    assert queue.get(job_id).status == "queued"
    run_job(job_id)

    resumed = queue.get(job_id)
    assert resumed.status == "succeeded", resumed.error
    assert resumed.summary["resumed_from_step"] == step
    assert hashes(resumed) == hashes(unbroken)


def test_a_cancelled_training_leaves_a_model_that_can_be_sampled(queue, run, start, text):
    job_id = start("lstm_train", step=3, stop=JobCancelled, text=text, seed=1, **SMALL)

    assert queue.get(job_id).status == "cancelled"
    sampled = run("lstm_sample", model_job=job_id, prompt="The ", length=5, seed=1)
    assert sampled.status == "succeeded", sampled.error
    assert sampled.summary["characters"] == 5


def test_a_training_that_diverges_stops_and_leaves_the_last_good_model(queue, run, text):
    # A first step of 1e38 per weight: what follows overflows float32.
    job = run("lstm_train", text=text, seed=1, **SMALL | {"learning_rate": 1e38, "clip_norm": None})

    assert job.status == "failed"
    assert job.error.code == "diverged"
    assert "at step 2" in job.error.message
    assert len(job.checkpoints) == 1
    sampled = run("lstm_sample", model_job=job.id, prompt="The ", length=5, seed=1)
    assert sampled.status == "succeeded", sampled.error


def test_a_training_may_start_from_another_ones_weights(queue, run, text):
    first = run("lstm_train", text=text, seed=1, **SMALL | {"epochs": 6, "learning_rate": 0.03})

    second = run("lstm_train", text=text, seed=2, start_from_job=first.id, **SMALL | {"epochs": 1})

    assert second.status == "succeeded", second.error
    fresh = run("lstm_train", text=text, seed=2, **SMALL | {"epochs": 1})
    assert second.summary["bits_per_character"] < fresh.summary["bits_per_character"] - 0.5


def test_a_start_from_a_model_that_does_not_fit_is_refused_with_the_difference(queue, run, text):
    first = run("lstm_train", text=text, seed=1, **SMALL | {"epochs": 1})
    other = queue.upload((TEXT.replace("😀", "é") * 2).encode()).id

    with pytest.raises(InvalidInput, match=r"never seen 'é'; the text lacks '😀'") as refused:
        queue.submit("lstm_train", {"text": other, "start_from_job": first.id, **SMALL})
    assert refused.value.field == "start_from_job"
    with pytest.raises(InvalidInput, match="units is 16, but 8") as refused:
        queue.submit("lstm_train", {"text": text, "start_from_job": first.id, **SMALL | {"units": 16}})
    assert refused.value.field == "units"


@pytest.mark.parametrize(
    ("data", "params", "field", "message"),
    [
        (b" \n\t ", {}, "text", "white space"),
        (b"x" * 60, {}, "text", "at least 61"),
        (b"caf\xe9" * 100, {}, "text", r"byte 3 \(0xe9\)"),
        (b"x" * 99, {"encoding": "utf-99"}, "encoding", "no encoding"),
        (b"x" * 99, {"corpus": "python_docs"}, "text", "both are given"),
        (
            b"x" * 99,
            {"sample_temperatures": [1.0, -0.5]},
            "sample_temperatures.1",
            "greater than or equal to 0",
        ),
        (b"x" * 99, {"start_from_job": "0" * 26}, "start_from_job", "no job"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_at_submit(queue, data, params, field, message):
    with pytest.raises(InvalidInput, match=message) as refused:
        queue.submit("lstm_train", {"text": queue.upload(data).id, **params})

    assert refused.value.field == field


def test_too_much_memory_is_refused_with_a_batch_size_that_fits(queue, text):
    queue.registry.announce("gpu", {"memory_bytes": 3 * 2**30, "queues": []}, ttl_ms=60_000)
    params = {"text": text, "units": 512, "layers": 2}

    with pytest.raises(InvalidInput, match=r"largest worker has 3.0; a batch_size of 512 fits") as refused:
        queue.submit("lstm_train", {**params, "batch_size": 2048})
    assert refused.value.field == "batch_size"
    queue.submit("lstm_train", {**params, "batch_size": 512})


@pytest.mark.parametrize("mode", ["stateful", "window"])
@pytest.mark.parametrize("characters", [11, 12, 40])
def test_a_text_too_short_for_one_batch_is_trained_on_in_a_smaller_one(queue, run, mode, characters):
    short = queue.upload(TEXT[:characters].encode()).id

    job = run("lstm_train", text=short, mode=mode, seed=1, **SMALL | {"batch_size": 64, "epochs": 1})

    assert job.status == "succeeded", job.error
    assert {warning.code for warning in job.warnings} == {"batch_shrunk", "no_validation"}
    # As streams of 10 characters and their successors; as windows of 10 with step 3, each with a target.
    most = {"stateful": {11: 1, 12: 1, 40: 3}, "window": {11: 1, 12: 1, 40: 10}}[mode][characters]
    assert job.summary["batch_size"] == most
    assert job.summary["bits_per_character"] > 0


def test_no_window_crosses_the_split_of_training_and_validation():
    ids = np.arange(1000, dtype=np.uint16)

    learned, held_back = split(ids, validation_fraction=0.1, window=20)

    assert (learned.max(), held_back.min()) == (899, 900)
    for batches in (StreamBatches, WindowBatches):
        for part, least, greatest in ((learned, 0, 899), (held_back, 900, 999)):
            made = batches(part, window=20, batch_size=8)
            for epoch in range(3):
                order = made.order(1, epoch)
                for step in range(made.steps):
                    characters, targets = made.batch(order, step)
                    assert characters.min() >= least
                    assert targets.max() <= greatest


def test_streams_go_on_where_the_step_before_stopped():
    batches = StreamBatches(np.arange(100, dtype=np.uint8), window=7, batch_size=3)
    order = batches.order(seed=1, epoch=2)

    steps = [batches.batch(order, step) for step in range(batches.steps)]

    assert batches.steps == 4  # 99 pairs, 33 per stream
    for (before, _), (after, targets) in itertools.pairwise(steps):
        assert (after[:, 0] == before[:, -1] + 1).all()
        assert (targets == after + 1).all()


def test_windows_start_at_every_third_character_each_once_an_epoch():
    batches = WindowBatches(np.arange(100, dtype=np.uint8), window=7, batch_size=4)
    order = batches.order(seed=1, epoch=2)

    starts = np.concatenate([batches.batch(order, step)[0][:, 0] for step in range(batches.steps)])

    assert batches.windows == 31  # starts 0, 3, ..., 90: a window of 7 and its target from 90 on end at 97
    assert len(starts) == len(set(starts)) == 28  # 7 whole batches of 4
    assert set(starts) <= set(range(0, 91, 3))
    assert (batches.batch(order, 0)[1] == batches.batch(order, 0)[0][:, -1] + 1).all()


@pytest.mark.parametrize("batches", [StreamBatches, WindowBatches])
def test_the_order_is_a_function_of_seed_and_epoch(batches):
    made = batches(np.zeros(5000, np.uint8), window=60, batch_size=16)

    assert np.array_equal(made.order(1, 2), made.order(1, 2))
    assert not np.array_equal(made.order(1, 2), made.order(1, 3))
    assert not np.array_equal(made.order(1, 2), made.order(2, 2))


def test_the_hand_written_gradient_equals_that_of_keras():
    random = np.random.default_rng(0)
    network = CharacterLstm(11, layers=2, units=6, seed=1)
    ids = tf.constant(random.integers(0, 11, (3, 9)), tf.int32)
    state = [tuple(tf.constant(random.normal(size=(3, 6)), tf.float32) for _ in "hc") for _ in range(2)]
    mixed = tf.constant(random.normal(size=(27, 11)), tf.float32)

    def gradients(fused):
        network.fused = fused
        with tf.GradientTape() as tape:
            variables = [variable.value for variable in network.variables]
            flat = [array for pair in state for array in pair]
            tape.watch(flat)
            logits, after = network.logits(ids, state)
            # All outputs count, those of the state after the last step too.
            value = tf.reduce_sum(logits * mixed) + sum(tf.reduce_sum(h * 0.3 + c * c) for h, c in after)
        return value, tape.gradient(value, [*variables, *flat])

    keras_value, of_keras = gradients(False)
    own_value, own = gradients(True)

    assert float(own_value) == pytest.approx(float(keras_value), rel=1e-5)
    for one, other in zip(own, of_keras, strict=True):
        np.testing.assert_allclose(
            tf.convert_to_tensor(one), tf.convert_to_tensor(other), rtol=1e-4, atol=1e-5
        )


def test_the_recurrence_follows_the_equations_of_the_lstm():
    """Two steps of one unit by hand: gates i, f, g, o; c = f c + i g; h = o tanh(c)."""
    projected = np.array([[[0.1, 0.2, 0.3, 0.4]], [[-0.5, 0.6, -0.7, 0.8]]], np.float32)
    recurrent = np.array([[0.5, -0.4, 0.3, -0.2]], np.float32)
    h, c = 0.25, -0.5

    hs, last_h, last_c = recurrence(
        *map(tf.constant, (projected, recurrent, np.float32([[h]]), np.float32([[c]])))
    )

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    for step in range(2):
        i, f, g, o = projected[step, 0] + h * recurrent[0]
        c = sigmoid(f) * c + sigmoid(i) * math.tanh(g)
        h = sigmoid(o) * math.tanh(c)
        assert float(hs[step, 0, 0]) == pytest.approx(h, rel=1e-5)
    assert (float(last_h[0, 0]), float(last_c[0, 0])) == pytest.approx((h, c), rel=1e-5)


def test_wide_layers_are_trained_through_the_own_recurrence_and_learn(run, text):
    job = run("lstm_train", text=text, seed=1, **SMALL | {"units": 256, "epochs": 1})

    assert job.status == "succeeded", job.error
    assert job.summary["bits_per_character"] < math.log2(34)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0.0, 1.0], [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([1.0, 20.0], [0, 5, 10, 15, 20]),
        ([3.0], [2.4, 2.6, 2.8, 3.0, 3.2, 3.4, 3.6]),
    ],
)
def test_a_plot_has_round_numbers_on_its_axes(numbers, expected):
    assert ticks(numbers) == pytest.approx(expected)


def test_a_plot_draws_what_is_finite_and_breaks_the_line_elsewhere():
    plain = line_plot({"a": [(1, 1.0), (2, 2.0), (3, 1.0)]}, title="t", x_label="x", y_label="y")
    broken = line_plot(
        {"a": [(1, 1.0), (2, math.nan), (3, 1.0), (4, None)]}, title="t", x_label="x", y_label="y"
    )
    empty = line_plot({"a": []}, title="t", x_label="x", y_label="y")

    for picture in (plain, broken, empty):
        assert picture.shape == (540, 900, 3)
        assert picture.dtype == np.uint8
    blue = [
        int(((picture[..., 2] > 120) & (picture[..., 0] < 80)).sum()) for picture in (plain, broken, empty)
    ]
    assert blue[0] > blue[1] > blue[2]  # a line, two points, and the legend alone
