"""The door for Python code and for the API."""

import inspect
import itertools
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run as run_process

import pytest
from pydantic import BaseModel, ValidationError

from shared.errors import (
    ArtifactNotFound,
    IdempotencyConflict,
    InvalidInput,
    JobNotFound,
    KindNotFound,
    QueueUnavailable,
    RequestInvalid,
    UploadTooLarge,
)
from shared.job import JobStatus, new_job_id
from shared.kinds import KINDS
from shared.queue import Queue, submit, upload
from shared.submission import Submission
from shared.validation import ParamsInvalid, first_finding
from tests.faults.steps import StepsParams, chain


def test_a_submitted_job_is_in_storage_in_redis_and_with_the_broker(queue):
    job = queue.submit("steps", {"steps": 3}, labels={"who": "me"})

    assert queue.storage.exists(f"jobs/{job.id}/job.json")
    assert (job.status, job.queue_position, job.labels) == (JobStatus.QUEUED, 1, {"who": "me"})
    assert [job.id in message for message in queue.store.broker_holds("steps")] == [True]


def test_a_celery_message_carries_the_jobs_id_and_nothing_else(queue):
    import base64
    import json

    job = queue.submit("steps", {"steps": 3})

    (message,) = map(json.loads, queue.store.broker_holds("steps"))
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    assert (args, kwargs, message["headers"]["task"]) == ([job.id], {}, "tasks.steps")


@pytest.mark.parametrize(
    ("params", "field"),
    [({"stepz": 1}, "stepz"), ({"steps": 0}, "steps"), ({"steps": "many"}, "steps"), ({"seed": -1}, "seed"),
     ({"image": "0" * 64}, "image"), ({"image": "../../etc/passwd"}, "image"), ({"step_s": float("nan")}, "step_s")],
)  # fmt: skip
def test_what_can_be_known_at_submit_is_refused_at_submit_by_its_field(queue, params, field):
    with pytest.raises(InvalidInput) as caught:
        queue.submit("steps", params)

    assert caught.value.field == field
    assert queue.jobs() == ([], None)
    assert queue.storage.names("jobs") == []


@pytest.mark.parametrize(
    ("given", "field"),
    [({"priority": "urgent"}, "priority"), ({"priority": None}, "priority"), ({"priority": ["low"]}, "priority"),
     ({"labels": ["a"]}, "labels"), ({"labels": {"a": 1}}, "labels.a"), ({"labels": {1: "a"}}, "labels.1"),
     ({"labels": {"a=b": "x"}}, "labels.a=b"), ({"labels": {"a": "\ud800"}}, "labels.a"),
     ({"labels": {"a": b"x"}}, "labels.a"), ({"labels": {b"a": "x"}}, "labels.b'a'"),
     ({"labels": {"x" * 900_000: "x"}}, f"labels.{'x' * 79}…"),
     ({"depends_on": "abc"}, "depends_on"), ({"depends_on": [None]}, "depends_on.0"), ({"depends_on": 7}, "depends_on"),
     ({"depends_on": ["../../etc"]}, "depends_on.0"), ({"idempotency_key": ""}, "idempotency_key"),
     ({"idempotency_key": 7}, "idempotency_key"), ({"idempotency_key": "x" * 256}, "idempotency_key")],
)  # fmt: skip
def test_what_python_says_of_a_job_is_checked_as_a_request_is_and_refused_by_field(
    settings, queue, given, field
):
    with pytest.raises(RequestInvalid) as caught:
        submit(StepsParams(steps=1), **given)

    assert (caught.value.code, caught.value.field) == ("invalid_request", field)
    assert queue.jobs() == ([], None)


@pytest.mark.parametrize("params", [None, 7, ["steps"], {"steps": 1}, "steps"])
def test_what_is_no_kinds_parameters_is_refused_as_such(settings, params):
    with pytest.raises(InvalidInput) as caught:
        submit(params)

    assert caught.value.field == "params"


@pytest.mark.parametrize("params", [None, 7, ["steps"], {1: 2}])
def test_parameters_without_names_are_refused_as_such(queue, params):
    with pytest.raises(InvalidInput) as caught:
        queue.submit("steps", params)

    assert caught.value.field == "params"


ODD = (
    None,
    True,
    -1,
    1.5,
    1e9,
    float("nan"),
    "",
    "x",
    [],
    {},
    [1, "a"],
    {"a": 1},
    [{}],
    b"x",
    "\ud800",
    10**30,
)


LIST = [1]
LIST.append(LIST)


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"seed": 10**5000}, "seed"),  # Python writes no such number
        ({"seed": {1: 1, "a": 2}}, "seed"),  # its names cannot be sorted
        ({"seed": LIST}, "seed"),
    ],
)
def test_what_cannot_be_written_as_json_is_refused_by_field_under_a_key_too(queue, params, field, key):
    with pytest.raises(InvalidInput) as caught:
        queue.submit("steps", params, idempotency_key=key)

    assert caught.value.field == field
    assert len(caught.value.message) < 300
    assert list(queue.store.redis.scan_iter("dreamq:idempotency:*")) == []


@pytest.mark.parametrize("name", ["int", "str", "float", "bool", "list-a", "function-x", "json-x"])
def test_a_name_that_looks_like_one_of_pydantics_shapes_is_told_as_the_users_own(queue, name):
    with pytest.raises(RequestInvalid) as caught:
        queue.submit("steps", {}, labels={"fine": "x", name: "a" * 256, "str.": 5})
    assert caught.value.message == f"labels.{name}: must have at most 255 characters"

    layers = {name: -1, "int.": "x"}
    named = {"content_image": "0" * 64, "style_images": ["0" * 64], "style_layers": layers}
    with pytest.raises(InvalidInput) as refused:
        queue.submit("style_transfer", named)
    assert refused.value.field == f"style_layers.{name}"
    assert ", or " not in refused.value.message


class Shapes(BaseModel):
    """A place that takes a number, or numbers by name."""

    place: int | dict[str, int]


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"place": "x"}, "place", "must be a whole number, or an object: names, each with a value"),
        ({"place": {"int": "x"}}, "place", "must be a whole number"),
        ({"place": {"a": 1, 5: 2}}, "place", "must be a whole number"),
    ],
)
def test_each_shape_that_a_place_takes_is_told_once(given, field, message):
    with pytest.raises(ValidationError) as caught:
        Shapes.model_validate(given)

    assert first_finding(caught.value, given)[1:3] == (field, message)


def test_every_refusal_of_a_parameter_speaks_our_words():
    """Whatever stands in any parameter of any kind: no message is pydantic's own."""
    refusals = []
    for params in KINDS.values():
        # Those that are required stand there too, so that none of them is the trouble.
        required = {field: "0" * 64 for field, of in params.model_fields.items() if of.is_required()}
        for name, odd in itertools.product(params.model_fields, ODD):
            try:
                params.model_validate({**required, name: odd})
            except ParamsInvalid as error:
                refusals.append(error)

    theirs = re.compile(r"Input|should|valid |pattern|default_factory|parse|Literal")
    assert [error.message for error in refusals if theirs.search(error.message) or not error.field] == []


def test_a_wrong_network_is_told_and_not_that_the_defaults_made_of_it_are_missing(queue):
    with pytest.raises(
        InvalidInput, match=r"^network: must be 'inception_v3', .* or 'squeezenet' \(given: 'x'\)$"
    ):
        queue.submit("deepdream", {"image": "0" * 64, "network": "x"})


def test_params_that_were_copied_or_made_without_a_check_are_checked_at_submit(queue):
    class More(StepsParams):
        more: int = 1

    valid = StepsParams(steps=2)
    for odd, field in (
        (valid.model_copy(update={"steps": "x"}), "steps"),
        (valid.model_copy(update={"step_s": float("nan")}), "step_s"),
        (StepsParams.model_construct(steps=-5), "steps"),
        (More(), "more"),
    ):
        with pytest.raises(InvalidInput) as refused:
            queue.submit("steps", odd)
        assert refused.value.field == field
    assert queue.submit("steps", valid).params["steps"] == 2


def test_an_unknown_kind_is_refused_with_the_kinds_there_are(queue):
    with pytest.raises(KindNotFound, match="steps"):
        queue.submit("stepz", {})


def test_a_seed_left_out_is_drawn_and_recorded(queue):
    seeds = {queue.submit("steps", {}).params["seed"] for _ in range(5)}

    assert len(seeds) == 5
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_priorities_age_so_that_a_low_job_is_not_passed_for_ever(queue):
    low, high = queue.submit("steps", {}, priority="low"), queue.submit("steps", {}, priority="high")

    assert queue.get(high.id).queue_position == 1
    # An hour is what low priority costs: a high job of 61 minutes later stands behind it.
    assert low.score < high.score + 61 * 60_000
    assert low.score > high.score


def test_one_idempotency_key_makes_one_job_however_many_ask_at_once(queue):
    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(queue.submit, "steps", {"steps": 2}, idempotency_key="k") for _ in range(50)]
        ids = {future.result().id for future in asked}

    assert len(ids) == 1
    assert queue.storage.names("jobs") == sorted(ids)
    assert len(queue.jobs()[0]) == 1


def test_an_idempotency_key_with_another_body_is_a_conflict(queue):
    queue.submit("steps", {"steps": 2}, idempotency_key="k")

    with pytest.raises(IdempotencyConflict):
        queue.submit("steps", {"steps": 3}, idempotency_key="k")


def test_a_refused_request_leaves_its_idempotency_key_free(queue):
    with pytest.raises(InvalidInput):
        queue.submit("steps", {"steps": 0}, idempotency_key="k")

    assert queue.submit("steps", {"steps": 1}, idempotency_key="k").status == JobStatus.QUEUED


def test_a_key_whose_first_request_died_half_way_still_makes_its_job(queue, monkeypatch):
    monkeypatch.setattr("shared.submission.RESERVED_FOR_S", 0.1)
    with monkeypatch.context() as broken:
        broken.setattr(Submission, "create", lambda self, job: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            queue.submit("steps", {"steps": 2}, idempotency_key="k")

    first = queue.submit("steps", {"steps": 2}, idempotency_key="k")
    assert queue.submit("steps", {"steps": 2}, idempotency_key="k").id == first.id


def test_the_same_bytes_are_stored_once(queue):
    first, second = queue.upload(b"hello"), queue.upload(b"hello")

    # sha256("hello"), as `printf hello | sha256sum` prints it
    assert first.id == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert second == first
    assert queue.storage.names("uploads") == [first.id]


def test_an_upload_over_the_limit_or_empty_leaves_nothing(queue):
    with pytest.raises(UploadTooLarge):
        queue.upload(b"x" * 11, limit_bytes=10)
    with pytest.raises(InvalidInput):
        queue.upload(b"")

    assert list(Path(queue.storage.full("uploads")).iterdir()) == []


def test_without_redis_a_submit_fails_soon_and_leaves_nothing(settings, tmp_path):
    away = Queue.from_settings(settings.model_copy(update={"redis_url": "unix:///nowhere"}), impatient=True)

    with pytest.raises(QueueUnavailable):
        away.submit("steps", {})

    assert away.storage.names("jobs") == []


def test_a_redis_that_is_not_there_is_told_with_the_setting_that_says_where_it_is(settings, monkeypatch):
    away = Queue.from_settings(settings.model_copy(update={"redis_url": "unix:///nowhere"}), impatient=True)
    with pytest.raises(QueueUnavailable, match="where REDIS_URL says that it is"):
        away.store.now_ms()

    monkeypatch.delenv("REDIS_URL")
    with pytest.raises(QueueUnavailable, match=r"REDIS_URL is not set: set it .*`make serve`"):
        away.store.now_ms()


def test_a_redis_that_is_full_is_not_told_as_absent(queue):
    queue.store.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(QueueUnavailable, match=r"^Redis is full: raise its maxmemory"):
            queue.submit("steps", {})
    finally:
        queue.store.redis.config_set("maxmemory", 0)

    assert queue.submit("steps", {}).status == JobStatus.QUEUED


def test_a_folder_is_no_upload(queue, tmp_path):
    with pytest.raises(InvalidInput, match="is a folder"):
        queue.upload(tmp_path)


def test_a_job_that_redis_forgot_is_read_from_storage(queue, run):
    job = run("steps", steps=2, seed=1)
    queue.store.redis.flushall()

    assert queue.get(job.id).status == JobStatus.SUCCEEDED
    assert queue.open_artifact(job.id, "result.txt").read().decode() == chain(2, 1)
    assert [event.data["status"] for event in queue.events(job.id)] == ["succeeded"]


def test_only_listed_artifacts_are_opened(queue, run):
    job = run("steps", steps=2)

    for name in ("../job.json", "manifest.json", "nothing.png", ""):
        with pytest.raises(ArtifactNotFound):
            queue.open_artifact(job.id, name)


def test_events_tell_the_whole_story_and_end_with_the_job(queue, run):
    job = run("steps", steps=2)

    events = [event for event in queue.events(job.id) if event]
    assert [event.data["status"] for event in events if event.type == "status"] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert [event.data["name"] for event in events if event.type == "artifact"] == ["result.txt"]
    assert events[-1].type == "status"
    assert list(queue.events(job.id, after=events[-2].id)) == [events[-1]]
    assert list(queue.events(job.id, after=events[-1].id)) == []


@pytest.mark.parametrize("lost", [True, False])
def test_a_client_that_comes_back_late_is_still_told_the_end(queue, run, lost):
    """A day after the end (EVENTS_KEPT_AFTER_END_S) Redis has no events of the job; or the id was never one of them."""
    job = run("steps", steps=2)
    events = [event for event in queue.events(job.id) if event]
    if lost:
        queue.store.redis.delete(f"dreamq:events:{job.id}")

    after = events[1].id if lost else "9999999999999-0"
    (end,) = queue.events(job.id, after=after)

    assert (end.type, end.data) == ("status", events[-1].data)


def test_events_of_a_job_that_waits_say_now_and_then_that_nothing_came(queue):
    job = queue.submit("steps", {})
    events = queue.events(job.id, block_s=0.05)

    assert next(events).data["status"] == "queued"
    assert next(events) is None
    queue.cancel(job.id)
    assert next(events).data["status"] == "cancelled"
    assert list(events) == []


def test_events_of_an_unknown_job_are_an_error(queue):
    with pytest.raises(JobNotFound):
        next(queue.events(new_job_id()))


def test_a_python_program_submits_waits_and_downloads(settings, queue, tmp_path):
    from workers.run_job import run_job

    handle = submit(StepsParams(steps=3, seed=7), labels={"from": "python"})
    with pytest.raises(TimeoutError):
        handle.wait(timeout_s=0.01)
    run_job(handle.id)

    assert handle.wait(10)["status"] == "succeeded"
    assert [event.type for event in handle.events()][-1] == "status"
    assert [path.read_text() for path in handle.download(tmp_path / "out")] == [chain(3, 7)]
    assert upload(b"hello") == queue.upload(b"hello").id


def test_submitting_from_python_never_loads_tensorflow_or_flask():
    code = (
        "import sys, shared.queue; sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras', 'flask')))"
    )

    assert run_process([sys.executable, "-c", code], check=False).returncode == 0


def test_depending_on_a_job_that_failed_or_never_was_is_refused(queue, run):
    failed = run("steps", trouble="crash")

    for job_id in (failed.id, new_job_id()):
        with pytest.raises(InvalidInput) as caught:
            queue.submit("steps", {}, depends_on=[job_id])
        assert caught.value.field == "depends_on"


@pytest.mark.parametrize(
    ("trouble", "status", "code"), [("", "succeeded", None), ("crash", "failed", "upstream_failed")]
)
def test_a_dependent_job_waits_and_starts_once_after_success(queue, trouble, status, code):
    from workers.run_job import run_job

    train = queue.submit("steps", {"trouble": trouble})
    sample = queue.submit("steps", {}, depends_on=[train.id])
    run_job(sample.id)  # a stray message must not start it early
    assert sample.status == JobStatus.WAITING

    run_job(train.id)
    run_job(sample.id)
    run_job(sample.id)

    ended = queue.get(sample.id)
    assert (ended.status, ended.error.code if ended.error else None) == (status, code)
    assert ended.attempt == (1 if status == "succeeded" else 0)


def test_a_job_that_names_an_unfinished_model_waits_for_it_unasked(queue):
    text = queue.upload(b"to be or not to be, that is the question. " * 50).id
    train = queue.submit("lstm_train", {"text": text, "epochs": 1})
    sample = queue.submit("lstm_sample", {"model_job": train.id})

    assert (sample.status, sample.depends_on) == (JobStatus.WAITING, [train.id])


def test_a_failure_goes_down_a_chain_of_dependents_at_once(queue):
    from workers.run_job import run_job

    first = queue.submit("steps", {"trouble": "crash"})
    second = queue.submit("steps", {}, depends_on=[first.id])
    third = queue.submit("steps", {}, depends_on=[second.id])
    run_job(first.id)

    codes = [queue.get(job.id).error.code for job in (first, second, third)]
    assert codes == ["internal", "upstream_failed", "upstream_failed"]
    assert queue.store.unwritten() == []


def test_a_cancel_goes_down_a_chain_that_is_longer_than_pythons_stack_is_deep(queue):
    first = job = queue.submit("steps", {})
    chained = [job.id]
    for _ in range(400):
        # Made as a submit makes them, but for the files, which take most of its time.
        below = {"id": new_job_id(), "status": JobStatus.WAITING, "depends_on": [job.id]}
        job = job.model_copy(update=below)
        queue.store.create(job)
        chained.append(job.id)

    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 300)  # the usual 1,000 would only take longer
    try:
        queue.cancel(first.id)
    finally:
        sys.setrecursionlimit(usual)

    codes = [found.error.code for found in queue.store.get_many(chained[1:]) if found.error]
    assert codes == ["upstream_failed"] * len(chained[1:])
    assert queue.store.unwritten() == []


def test_a_picture_named_by_its_file_is_told_to_be_uploaded_first(queue):
    with pytest.raises(InvalidInput, match="upload the file first"):
        queue.submit("steps", {"image": "photo.jpg"})
    with pytest.raises(InvalidInput, match=r"upload the file first.*or one of digits"):
        queue.submit("vae_train", {"dataset": "digts"})


def test_a_misspelt_name_is_told_before_what_it_leaves_missing(queue):
    with pytest.raises(InvalidInput, match=r"there is no parameter 'picture'; there are .*image"):
        queue.submit("deepdream", {"picture": "x"})
