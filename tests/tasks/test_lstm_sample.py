"""Writing with an LSTM: the mathematics of temperature, the loops, prompts, uploads, streams."""

import io
import json
import math

import h5py
import numpy as np
import pytest
import tensorflow as tf

from shared.errors import InvalidInput, JobCancelled, JobPreempted
from shared.job import new_token
from shared.vocabulary import Vocabulary
from tasks.job_context import JobContext
from tasks.networks.lstm import CharacterLstm
from tasks.networks.lstm_writing import Writer, carried_writer, drawn, restricted, tempered
from workers.identity import this_worker
from workers.run_job import give_back, perform, run_job, write_end

CHARACTERS = "\n abcdefghijklmnopqrstuvwxyzé😀"  # 30
PLACES = [{"offset": 7, "text": "abc"}, {"offset": 70, "text": "hello"}]
P = np.log(np.float32([[0.5, 0.3, 0.15, 0.05]]))


@pytest.fixture(scope="module")
def network():
    """Two layers of 12 units, with weights so large that its choices are far from even."""
    network = CharacterLstm(len(CHARACTERS), layers=2, units=12, seed=5)
    network.set_weights([weight * 3 for weight in network.weights()])
    return network


def npz(network):
    names = [f"lstm_{layer}/{name}" for layer in (1, 2) for name in ("kernel", "recurrent_kernel", "bias")]
    buffer = io.BytesIO()
    np.savez(buffer, **dict(zip([*names, "logits/kernel", "logits/bias"], network.weights(), strict=True)))
    return buffer.getvalue()


@pytest.fixture
def model(queue, network):
    """The parameters that name the network, uploaded as `.npz`, and its vocabulary."""
    return {
        "weights": queue.upload(npz(network)).id,
        "vocabulary": queue.upload(json.dumps({"characters": CHARACTERS, "places": PLACES}).encode()).id,
    }


def result(queue, job, name="result.json"):
    assert job.status in ("succeeded", "cancelled"), job.error
    with queue.open_artifact(job.id, name) as opened:
        return json.loads(opened.read())


def texts(queue, job):
    return [sample["text"] for sample in result(queue, job)["samples"]]


def ids_of(text):
    return np.array([CHARACTERS.index(character) for character in text])


def written(
    network, prompt, length, *, temperatures, mode="stateful", seed=1, window=6, portions=1000, **chosen
):
    """What a Writer makes of a prompt: (texts, length) ids."""
    writer = Writer(
        network.weights(), mode=mode, window=window, temperatures=temperatures, seed=[seed], **chosen
    )
    writer.read(ids_of(prompt))
    pieces = []
    while writer.written < length:
        pieces.append(writer.write(min(portions, length - writer.written)))
    return np.concatenate(pieces).T


def keras_logits(network, pieces):
    """What the plain Keras model says follows each of these pieces of text: (pieces, vocabulary)."""
    logits = np.empty((len(pieces), len(CHARACTERS)), np.float32)
    for length in {len(piece) for piece in pieces}:
        places = [place for place, piece in enumerate(pieces) if len(piece) == length]
        one_hot = np.eye(len(CHARACTERS), dtype=np.float32)[np.array([pieces[place] for place in places])]
        logits[places] = network.model(one_hot)[:, -1]
    return logits


# Temperature


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [  # p ** (1 / T), divided by its sum, of p = (.5, .3, .15, .05)
        (0.2, (0.925754, 0.071987, 0.002250, 0.000009)),
        (0.5, (0.684932, 0.246575, 0.061644, 0.006849)),
        (1.0, (0.5, 0.3, 0.15, 0.05)),
        (1.2, (0.461518, 0.301519, 0.169222, 0.067742)),
        (2.0, (0.378996, 0.293569, 0.207585, 0.119849)),
        (0.0, (1, 0, 0, 0)),
        (1e-6, (1, 0, 0, 0)),
        (0.005, (1, 0, 0, 0)),  # 0.6 ** 200 is 1e-44
    ],
)
def test_temperature_is_the_softmax_of_logits_divided_by_it(temperature, expected):
    assert tempered(P, np.float32([temperature]))[0].numpy() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("temperature", [1e-6, 1e-5, 0.005, 0.2, 1.0, 100.0, 1000.0])
@pytest.mark.parametrize("logits", [np.zeros(60), np.linspace(-300, 300, 60), np.full(60, -1e30)])
def test_no_temperature_gives_anything_but_probabilities(temperature, logits):
    found = tempered(logits[None].astype(np.float32), np.float32([temperature])).numpy()

    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1, abs=1e-5)


def test_a_great_temperature_makes_all_nearly_alike():
    assert tempered(P, np.float32([100.0]))[0].numpy() == pytest.approx([0.25] * 4, abs=0.005)


@pytest.mark.parametrize("temperature", [0.0, 1e-6])
def test_of_equally_likely_characters_greedy_takes_the_first(temperature):
    logits = np.float32([[1, 7, 7, 7, 2]])

    assert tempered(logits, np.float32([temperature]))[0].numpy().tolist() == [0, 1, 0, 0, 0]


def test_top_k_and_top_p_keep_the_likeliest_only():
    """Top_p keeps the fewest that reach it: .5 + .3 reaches .8, and of the top 3 (.95) 0.85 x .95 takes 3."""
    p = np.exp(P)[:, [2, 0, 3, 1]]  # .15, .5, .05, .3
    for top_k, top_p, kept in [
        (4, 1.0, "1111"),
        (1, 1.0, "0100"),
        (2, 1.0, "0101"),
        (4, 0.79, "0101"),
        (3, 0.85, "1101"),
    ]:
        found = restricted(p, tf.constant(top_k), tf.constant(top_p, tf.float32)).numpy()[0]
        assert found == pytest.approx(p[0] * [int(digit) for digit in kept], abs=1e-6)


def test_draws_come_as_often_as_they_are_likely():
    uniforms = ((np.arange(2000) + 0.5) / 2000).astype(np.float32)

    found = drawn(tf.repeat(np.exp(P), 2000, axis=0), uniforms).numpy()

    assert np.bincount(found) == pytest.approx([1000, 600, 300, 100], abs=1)


def test_what_is_impossible_is_never_drawn_not_even_by_the_greatest_uniform():
    greatest = np.float32([1 - 2.0**-24])
    for probabilities in ([0.3, 0.7, 0.0], [1e-9, 1.1, 0.0], [0.0, 3.3, 0.0]):
        assert drawn(np.float32([probabilities]), greatest).numpy() == [1]
    assert drawn(np.float32([[0.0, 0.0, 1.0]]), np.float32([0.0])).numpy() == [2]


# The loops


def test_a_carried_state_writes_what_reading_all_anew_would_give(network):
    text = [*ids_of("hello"), *written(network, "hello", 12, temperatures=[0.0])[0]]

    logits = keras_logits(network, [text[:place] for place in range(5, 17)])

    assert np.array_equal(text[5:], logits.argmax(1))


@pytest.mark.parametrize("prompt", ["abc", "a longer prompt"])
def test_window_mode_writes_what_the_book_way_gives(network, prompt):
    """The chapter's loop: read the last 6 characters from an empty state, for each new one."""
    begun = len(prompt)
    text = [*ids_of(prompt), *written(network, prompt, 20, temperatures=[0.0], mode="window")[0]]

    logits = keras_logits(network, [text[max(0, place - 6) : place] for place in range(begun, begun + 20)])

    assert np.array_equal(text[begun:], logits.argmax(1))


@pytest.mark.parametrize("mode", ["stateful", "window"])
def test_the_same_seed_gives_the_same_text_in_whatever_portions(network, mode):
    whole = written(network, "abc", 1100, temperatures=[1.0, 0.5], mode=mode)

    assert np.array_equal(
        whole, written(network, "abc", 1100, temperatures=[1.0, 0.5], mode=mode, portions=301)
    )
    assert not np.array_equal(
        whole, written(network, "abc", 1100, temperatures=[1.0, 0.5], mode=mode, seed=2)
    )


def test_texts_of_one_batch_differ_but_for_greedy_ones(network):
    first, second, greedy, greedy_again = written(network, "abc", 40, temperatures=[1.0, 1.0, 0.0, 1e-6])

    assert not np.array_equal(first, second)
    assert np.array_equal(greedy, greedy_again)
    assert np.array_equal(greedy, written(network, "abc", 40, temperatures=[0.0], seed=99)[0])


@pytest.mark.parametrize("chosen", [{"top_k": 1}, {"top_p": 1e-6}])
def test_a_choice_of_one_is_greedy(network, chosen):
    found = written(network, "abc", 40, temperatures=[1.0], **chosen)

    assert np.array_equal(found, written(network, "abc", 40, temperatures=[0.0]))


def test_a_job_leaves_nothing_behind_in_a_warm_process(network):
    fresh = written(network, "abc", 30, temperatures=[0.7])
    other = CharacterLstm(len(CHARACTERS), layers=2, units=12, seed=6)
    written(other, "xyz", 30, temperatures=[0.7])

    assert np.array_equal(written(network, "abc", 30, temperatures=[0.7]), fresh)


# Jobs


def test_length_counts_new_characters_and_all_temperatures_run_from_one_prompt(queue, run, model):
    job = run("lstm_sample", **model, prompt="hello", length=3, temperatures=[0, 0.5, 1.2], samples=2, seed=1)

    found = result(queue, job)
    assert found["prompt"] == "hello"
    assert [sample["temperature"] for sample in found["samples"]] == [0, 0, 0.5, 0.5, 1.2, 1.2]
    assert [len(sample["text"]) for sample in found["samples"]] == [3] * 6
    assert job.summary["characters"] == 3


def test_one_text_alone_is_a_file_of_prompt_and_text(queue, run, model):
    job = run("lstm_sample", **model, prompt="hello", length=1, seed=1)

    with queue.open_artifact(job.id, "result.txt") as opened:
        page = opened.read().decode()
    assert page == f"hello{texts(queue, job)[0]}\n"
    assert len(page) == len("hello") + 1 + 1


def test_same_seed_same_text_in_jobs_too(queue, run, model):
    params = {**model, "prompt": "abc", "length": 50, "temperatures": [1.0], "samples": 3}

    first = run("lstm_sample", **params, seed=4)

    assert texts(queue, run("lstm_sample", **params, seed=4)) == texts(queue, first)
    assert texts(queue, run("lstm_sample", **params, seed=5)) != texts(queue, first)


@pytest.mark.parametrize("mode", ["stateful", "window"])
def test_the_score_is_what_the_network_says_of_the_prompt(queue, run, network, model, mode):
    described = {"characters": CHARACTERS, "mode": mode, "window": 4}
    params = {**model, "vocabulary": queue.upload(json.dumps(described).encode()).id}
    prompt = "hello the"

    job = run("lstm_sample", **params, prompt=prompt, length=1, score_prompt=True, seed=1)

    seen = 4 if mode == "window" else len(prompt)
    pieces = [ids_of(prompt[max(0, place - seen) : place]) for place in range(1, len(prompt))]
    log_p = tf.nn.log_softmax(keras_logits(network, pieces)).numpy()
    told = [-log_p[place, ids_of(prompt)[place + 1]] / math.log(2) for place in range(len(prompt) - 1)]
    assert job.summary["prompt_bits_per_character"] == pytest.approx(np.mean(told), rel=1e-4)
    assert result(queue, job)["prompt_bits_per_character"] == job.summary["prompt_bits_per_character"]


def test_an_empty_prompt_is_a_recorded_place_of_the_text(queue, run, model):
    job = run("lstm_sample", **model, length=5, seed=1)

    place = {"offset": job.summary["prompt_offset"], "text": job.summary["prompt"]}
    assert place in PLACES
    assert result(queue, job)["prompt"] == place["text"]


def test_unknown_characters_are_refused_by_name(queue, model):
    with pytest.raises(InvalidInput, match=r"never seen 'T', 'ü'") as refused:
        queue.submit("lstm_sample", {**model, "prompt": "The Tür"})

    assert refused.value.field == "prompt"


@pytest.mark.parametrize(("unknown", "kept"), [("drop", "he r"), ("replace", " he   r")])
def test_unknown_characters_are_dropped_or_replaced_on_demand_and_told(queue, run, model, unknown, kept):
    job = run("lstm_sample", **model, prompt="The Tür", unknown=unknown, length=2, seed=1)

    assert job.summary["prompt"] == kept
    assert job.summary["unknown_characters"] == "Tü"


def test_a_prompt_of_which_nothing_is_left_is_refused(queue, model):
    with pytest.raises(InvalidInput, match="nothing is left"):
        queue.submit("lstm_sample", {**model, "prompt": "ÄÖ", "unknown": "drop"})


def test_a_model_of_lower_case_reads_prompts_in_lower_case():
    vocabulary = Vocabulary(characters="abc", lowercase=True)

    assert vocabulary.known("CAB", "refuse") == ("cab", "")


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"temperatures": [-1]}, "temperatures.0"),
        ({"temperatures": [0.5, float("nan")]}, "temperatures.1"),
        ({"temperatures": [float("inf")]}, "temperatures.0"),
        ({"temperatures": ["inf"]}, "temperatures.0"),
        ({"temperatures": []}, "temperatures"),
        ({"length": 0}, "length"),
        ({"length": 1_000_001}, "length"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"samples": 200, "temperatures": [0.1, 0.2]}, "samples"),
        ({"prompt": "a", "score_prompt": True}, "prompt"),
        ({"model_job": "0" * 26}, "weights"),
        ({"vocabulary": None}, "vocabulary"),
        ({"weights": None}, "model_job"),
    ],
)
def test_what_cannot_be_written_is_refused_by_field(queue, model, params, field):
    with pytest.raises(InvalidInput) as refused:
        queue.submit("lstm_sample", {**model, "prompt": "abc", **params})

    assert refused.value.field == field


def test_a_model_job_of_another_kind_is_refused(queue, model):
    other = queue.submit("lstm_sample", {**model, "prompt": "abc"})

    with pytest.raises(InvalidInput, match="of the kind lstm_sample") as refused:
        queue.submit("lstm_sample", {"model_job": other.id, "prompt": "abc"})
    assert refused.value.field == "model_job"


def test_a_prompt_is_checked_against_the_vocabulary_of_a_training_that_has_ended(queue, run):
    small = {"units": 4, "window": 5, "epochs": 1, "sample_temperatures": [], "seed": 1}
    trained = run("lstm_train", text=queue.upload(b"abcd efgh " * 20).id, **small)
    waits = queue.submit("lstm_train", {"text": queue.upload(b"xyz " * 20).id, **small})

    with pytest.raises(InvalidInput, match="never seen 'x'"):
        queue.submit("lstm_sample", {"model_job": trained.id, "prompt": "abx"})
    queue.submit("lstm_sample", {"model_job": waits.id, "prompt": "abx"})  # nobody can know yet
    job = run("lstm_sample", model_job=trained.id, prompt="abcd", length=10, seed=1)
    assert set(texts(queue, job)[0]) <= set("abcd efgh ")
    assert set(job.provenance["artifacts"]) == {f"{trained.id}/model.keras", f"{trained.id}/vocabulary.json"}


def test_text_streams_as_events_that_together_are_the_result(queue, run, model):
    params = {**model, "prompt": "abc", "length": 200, "temperatures": [0.5, 1.0], "seed": 1}

    job = run("lstm_sample", **params, stream=True)

    events = [event.data for event in queue.events(job.id) if event is not None and event.type == "text"]
    for sample in (0, 1):
        own = [event for event in events if event["sample"] == sample]
        assert "".join(event["text"] for event in own) == texts(queue, job)[sample]
        assert [event["at"] for event in own] == [
            sum(len(e["text"]) for e in own[:n]) for n in range(len(own))
        ]
        assert len(own) > 1
    assert texts(queue, run("lstm_sample", **params)) == texts(queue, job)


class StopsAtOnce(JobContext):
    """A job that is asked to stop at its first report."""

    stop: type

    def report(self, step, total, message="", metrics=None, checkpoint=None):
        super().report(step, total, message, metrics, checkpoint)
        if self.stop is JobPreempted:
            self.save_checkpoint(step, checkpoint())
        raise self.stop()


def stopped(queue, stop, **params):
    job = queue.submit("lstm_sample", params)
    claim = queue.store.claim(job.id, token=new_token(), worker=this_worker("test"))
    context = StopsAtOnce(queue, queue.get(job.id), claim)
    context.stop = stop
    try:
        write_end(context, perform(queue.get(job.id), context))
    except JobPreempted:
        give_back(queue, claim, "shutdown")
    return job.id


@pytest.mark.parametrize("mode", ["stateful", "window"])
def test_a_resumed_job_writes_what_an_unbroken_one_writes(queue, run, model, mode):
    described = {"characters": CHARACTERS, "mode": mode, "window": 4}
    vocabulary = queue.upload(json.dumps(described).encode()).id
    params = {
        **model,
        "vocabulary": vocabulary,
        "prompt": "abc",
        "length": 60,
        "temperatures": [1.0, 0.7],
        "seed": 1,
    }
    params |= {"score_prompt": True}

    job_id = stopped(queue, JobPreempted, **params)
    run_job(job_id)

    resumed, unbroken = queue.get(job_id), run("lstm_sample", **params)
    assert 0 < resumed.summary["resumed_from_step"] < 60
    assert result(queue, resumed) == result(queue, unbroken)


def test_a_cancelled_job_leaves_the_text_so_far_marked_as_partial(queue, run, model):
    params = {**model, "prompt": "abc", "length": 60, "temperatures": [1.0], "seed": 1}

    job = queue.get(stopped(queue, JobCancelled, **params))

    assert job.status == "cancelled"
    partial = result(queue, job, "partial.json")["samples"][0]["text"]
    assert 0 < len(partial) == job.summary["characters"] < 60
    assert texts(queue, run("lstm_sample", **params))[0].startswith(partial)


# Uploaded weights


def test_weights_may_come_as_npz_h5_or_keras_file(queue, run, network, model, tmp_path):
    network.model.save(tmp_path / "a.keras")
    network.model.save_weights(tmp_path / "a.weights.h5")
    params = {"prompt": "abc", "length": 20, "seed": 1}
    expected = texts(queue, run("lstm_sample", **model, **params))

    for name in ("a.keras", "a.weights.h5"):
        uploaded = queue.upload(tmp_path / name).id
        assert texts(queue, run("lstm_sample", **model | {"weights": uploaded}, **params)) == expected


def test_weights_that_are_no_weights_are_refused_at_submit(queue, model):
    with pytest.raises(InvalidInput) as refused:
        queue.submit("lstm_sample", {**model, "weights": queue.upload(b"\x80\x04K\x01.").id, "prompt": "abc"})

    assert refused.value.field == "weights"


def bad_arrays(network):
    good = dict(np.load(io.BytesIO(npz(network))))
    nan = {name: array * np.nan if name == "logits/bias" else array for name, array in good.items()}
    narrow = {name: array[:5] if name == "lstm_1/kernel" else array for name, array in good.items()}
    return {
        "no arrays of an LSTM": {"a": np.zeros(3, np.float32)},
        "NaN": nan,
        "no chain": narrow,
        "objects": {"a": np.array([{}], dtype=object)},
    }


@pytest.mark.parametrize("what", ["no arrays of an LSTM", "NaN", "no chain", "objects"])
def test_arrays_that_are_no_lstm_end_the_job_as_invalid_input(queue, run, network, model, what):
    buffer = io.BytesIO()
    np.savez(buffer, **bad_arrays(network)[what])

    job = run("lstm_sample", **model | {"weights": queue.upload(buffer.getvalue()).id}, prompt="abc", seed=1)

    assert (job.status, job.error.code) == ("failed", "invalid_input")


def test_a_vocabulary_of_another_size_ends_the_job_as_invalid_input(queue, run, model):
    job = run("lstm_sample", **model | {"vocabulary": queue.upload(b'["a", "b"]').id}, prompt="ab", seed=1)

    assert (job.status, job.error.code) == ("failed", "invalid_input")
    assert "for 30 characters, the vocabulary has 2" in job.error.message


def linked(path, secret):
    with h5py.File(path, "w") as file:
        file["a"] = h5py.ExternalLink(str(secret), "/")


def elsewhere(path, secret):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (4,), "f4", external=[(str(secret), 0, 16)])


def virtual(path, secret):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "a", (4,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("a", layout)


def enormous(path, secret):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (1 << 50,), "f4", chunks=(1024,))


@pytest.mark.parametrize("trick", [linked, elsewhere, virtual, enormous])
def test_a_file_of_weights_cannot_reach_other_files_or_fill_the_memory(queue, run, model, tmp_path, trick):
    secret = tmp_path / "secret"
    secret.write_bytes(b"0123456789abcdef")
    trick(tmp_path / "trick.h5", secret)

    job = run(
        "lstm_sample", **model | {"weights": queue.upload(tmp_path / "trick.h5").id}, prompt="abc", seed=1
    )

    assert (job.status, job.error.code) == ("failed", "invalid_input")
    assert any(word in job.error.message for word in ("link", "another file", "claims"))


def test_numbers_of_texts_up_to_the_next_power_of_two_share_what_was_compiled():
    # Vocabulary 7 and 3 units: a shape that no other test has.
    weights = CharacterLstm(7, layers=1, units=3, seed=1).weights()
    before = carried_writer.cache_info().misses
    written = {}
    for texts in (3, 4):
        writer = Writer(weights, mode="stateful", window=5, temperatures=[0.0] * texts, seed=[1])
        writer.read(np.array([1, 2]))
        written[texts] = writer.write(6)

    assert carried_writer.cache_info().misses == before + 1
    assert written[3].shape == (6, 3)
    assert (written[3] == written[4][:, :3]).all()  # greedy: nothing is drawn
