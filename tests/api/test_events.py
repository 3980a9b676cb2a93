"""Events: from the beginning to the end, in order, replayed after a broken connection."""

import json

import pytest

from api import context
from api.client import ENDED, parse_events

UNKNOWN_ID = "0" * 26


def followed(client, job_id, **headers):
    """The events of an ended job."""
    answer = client.get(
        f"/v1/jobs/{job_id}/events",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    assert answer.status_code == 200
    return list(parse_events(answer.data.split(b"\n")))


@pytest.fixture
def done(submit, run_queued):
    """A job of three steps with a file after each."""
    return run_queued(submit(params={"steps": 3, "checkpoint_every": 1})["id"])


def test_the_stream_tells_the_whole_life_of_a_job_and_ends_with_it(client, done):
    events = followed(client, done.id)

    assert [event.data["status"] for event in events if event.type == "status"] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert [event.data["name"] for event in events if event.type == "artifact"] == [
        "preview-0001.txt", "preview-0002.txt", "preview-0003.txt", "result.txt",
    ]  # fmt: skip
    assert [event.data["step"] for event in events if event.type == "progress"][-1] == 3
    assert events[-1].data["status"] in ENDED


def test_every_event_has_an_id_and_the_ids_grow(client, done):
    ids = [tuple(map(int, event.id.split("-"))) for event in followed(client, done.id)]

    assert ids == sorted(set(ids))


def test_last_event_id_replays_what_came_after_it_and_nothing_else(client, done):
    events = followed(client, done.id)

    for position, event in enumerate(events):
        assert followed(client, done.id, Last_Event_ID=event.id) == events[position + 1 :]


def test_the_stream_is_one_that_browsers_and_proxies_take_for_one(client, done):
    answer = client.get(f"/v1/jobs/{done.id}/events")

    assert answer.content_type == "text/event-stream; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"
    assert answer.data.startswith(b"retry: ")


def test_what_an_event_says_stays_on_its_line(client, queue, submit):
    from shared.job import Worker, new_token

    job_id = submit(params={"steps": 1})["id"]
    claim = queue.store.claim(
        job_id, token=new_token(), worker=Worker(name="w", host="h", device="cpu", pid=1)
    )
    said = "one\ntwo\r\n\n\x85\u2028event: status\n\n"
    queue.store.emit(claim, "text", json.dumps({"text": said}))
    queue.store.finish(claim, "succeeded", {})

    texts = [event.data["text"] for event in followed(client, job_id) if event.type == "text"]

    assert texts == [said]


def test_a_metric_that_is_no_number_is_null_in_the_stream(client, queue, submit):
    from shared.job import Worker, new_token

    job_id = submit(params={"steps": 1})["id"]
    claim = queue.store.claim(
        job_id, token=new_token(), worker=Worker(name="w", host="h", device="cpu", pid=1)
    )
    queue.store.emit(claim, "progress", '{"step": 1, "total": 1, "message": "", "metrics": {"loss": NaN}}')
    queue.store.finish(claim, "succeeded", {})

    answer = client.get(f"/v1/jobs/{job_id}/events")

    assert b'"loss":null' in answer.data
    assert b"NaN" not in answer.data


def test_an_unknown_job_is_a_404_before_any_stream_begins(client):
    answer = client.get(f"/v1/jobs/{UNKNOWN_ID}/events")

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("event_id", ["x", "-1", "1-", "1-2-3", "$", "1" * 30, "0 1", "+"])
def test_a_last_event_id_that_we_never_gave_is_refused(client, done, event_id):
    answer = client.get(f"/v1/jobs/{done.id}/events", headers={"Last-Event-ID": event_id})

    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, "Last-Event-ID")


def test_a_stream_sends_at_once_what_is_known_and_then_waits(client, submit):
    job_id = submit()["id"]  # no worker runs: the stream has no end yet

    answer = client.get(f"/v1/jobs/{job_id}/events", buffered=False)
    pieces = iter(answer.response)
    first, second = next(pieces), next(pieces)
    answer.close()

    assert first.startswith(b"retry: ")
    assert b'"status":"queued"' in second


def test_a_silent_stream_says_that_it_lives(client, submit, monkeypatch):
    monkeypatch.setattr("api.events._LOOK_EVERY_S", 0.01)
    monkeypatch.setattr("api.events._KEEP_ALIVE_S", 0.0)
    job_id = submit()["id"]

    answer = client.get(f"/v1/jobs/{job_id}/events", buffered=False)
    pieces = iter(answer.response)
    heard = [next(pieces) for _ in range(3)]
    answer.close()

    assert heard[-1] == b": still here\n\n"


def test_a_stream_ends_when_the_server_shuts_down(client, submit, monkeypatch):
    monkeypatch.setattr("api.events._LOOK_EVERY_S", 0.01)
    job_id = submit()["id"]
    client.application.extensions["dreamq"].closing.set()

    answer = client.get(f"/v1/jobs/{job_id}/events")  # read to its end

    assert b"Last-Event-ID" in answer.data


def test_streams_beyond_those_that_fit_are_refused_and_those_that_end_make_room(client, submit, done):
    streams = client.application.extensions["dreamq"].streams
    job_id = submit()["id"]
    taken = [streams.acquire(blocking=False) for _ in range(context.MAX_STREAMS - 1)]
    last = client.get(f"/v1/jobs/{job_id}/events", buffered=False)

    refused = client.get(f"/v1/jobs/{job_id}/events")
    last.close()  # never read: nothing of it was sent
    after = client.get(f"/v1/jobs/{done.id}/events")
    after.close()
    again = client.head(f"/v1/jobs/{job_id}/events")

    assert all(taken)
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (503, "too_many_streams")
    assert int(refused.headers["Retry-After"]) > 0
    assert (after.status_code, again.status_code) == (200, 200)
