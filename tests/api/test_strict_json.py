"""JSON in and out is strict, and limited before it is read."""

import io
import json

import pytest

from api.strict_json import MAX_JSON_BYTES, finite


def post(client, body, content_type="application/json"):
    """Post raw bytes as a job."""
    data = body.encode() if isinstance(body, str) else body
    return client.post("/v1/jobs", data=data, content_type=content_type)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_a_number_that_is_none_is_refused_by_the_parameters_name(client, number):
    answer = post(client, f'{{"kind": "steps", "params": {{"step_s": {number}}}}}')

    assert answer.status_code == 422
    assert answer.get_json()["error"]["field"] == "step_s"


def test_nan_deep_inside_is_refused_with_its_path(client):
    answer = post(client, '{"kind": "steps", "params": {"layers": {"mixed4": [1, NaN]}}}')

    assert answer.get_json()["error"]["field"] == "layers.mixed4.1"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"kind": "steps", "kind": "deepdream"}', "kind"),
        ('{"kind": "steps", "params": {"a": 1, "a": 2}}', "a"),
    ],
)
def test_a_key_given_twice_is_refused(client, body, field):
    answer = post(client, body)

    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, field)


@pytest.mark.parametrize(
    "body", ['{"kind": "\\ud800"}', '{"kind": "steps", "labels": {"\\udfff": "x"}}', '"\\ud83d"']
)
def test_half_a_surrogate_pair_is_refused(client, body):
    assert post(client, body).status_code == 422


def test_what_lies_outside_ascii_comes_back_as_it_was(client):
    answer = post(client, '{"kind": "steps", "labels": {"who": "Zo\u00eb \U0001f408"}}')

    assert answer.get_json()["labels"] == {"who": "Zo\u00eb \U0001f408"}
    assert "Zo\u00eb" in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"kind": steps}',
        b"{'kind': 'steps'}",
        b"\xff\xfe{\x00}\x00",
        b'{"kind": "\xe4"}',
        b'{"seed": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_is_a_bad_request(client, body):
    answer = post(client, body)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize("body", ["[]", "7", '"steps"', "null", "true"])
def test_json_that_is_no_object_is_refused(client, body):
    assert post(client, body).status_code == 422


def test_json_nested_too_deeply_is_refused(client):
    answer = post(client, '{"kind": "steps", "params": ' + "[" * 100_000 + "]" * 100_000 + "}")

    assert answer.status_code == 422


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "text/json", ""]
)
def test_a_body_that_does_not_say_it_is_json_is_refused(client, content_type):
    answer = post(client, '{"kind": "steps"}', content_type)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (415, "unsupported_media_type")


def test_json_may_say_its_charset(client):
    assert post(client, '{"kind": "steps"}', "application/json; charset=utf-8").status_code == 202


def padded(size_bytes: int) -> bytes:
    """A valid job of exactly this many bytes."""
    body = json.dumps({"kind": "steps"}).encode()
    return body + b" " * (size_bytes - len(body))


def test_a_body_of_one_mebibyte_is_read_and_one_byte_more_is_not(client):
    assert post(client, padded(MAX_JSON_BYTES)).status_code == 202
    assert post(client, padded(MAX_JSON_BYTES + 1)).status_code == 413


def test_too_large_a_body_is_refused_by_its_length_before_it_is_read(send_stream, unreadable):
    answer = send_stream("/v1/jobs", unreadable, length=2**40, content_type="application/json")

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (413, "too_large")


def test_a_body_of_unknown_length_is_counted_as_it_is_read(send_stream):
    for size_bytes, status in ((MAX_JSON_BYTES, 202), (MAX_JSON_BYTES + 1, 413), (3 * MAX_JSON_BYTES, 413)):
        answer = send_stream("/v1/jobs", io.BytesIO(padded(size_bytes)), content_type="application/json")

        assert answer.status_code == status


def test_numbers_that_are_none_leave_as_null():
    nan, inf = float("nan"), float("inf")

    assert finite({"a": nan, "b": [1.5, -inf], "c": {"d": (inf,)}}) == {
        "a": None,
        "b": [1.5, None],
        "c": {"d": [None]},
    }


def test_an_answer_with_nan_in_it_is_valid_json(client, queue, submit, run_queued):
    job_id = submit(params={"steps": 1})["id"]
    run_queued(job_id)
    # The record of another version might hold it: a task's summary is the task's own.
    queue.store.redis.hset(f"dreamq:job:{job_id}", "summary", '{"loss": NaN, "steps": 1}')

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} in the answer")

    answer = json.loads(client.get(f"/v1/jobs/{job_id}").get_data(), parse_constant=no_constant)

    assert answer["summary"] == {"loss": None, "steps": 1}
