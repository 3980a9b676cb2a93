"""The Python client, against a server that really listens."""

import hashlib
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from api.client import ApiError, Client, JobEvent, Unavailable, parse_events
from tests.faults.steps import chain


@pytest.fixture
def worker(queue):
    """A thread that runs a job a moment after it is asked to."""
    from workers.run_job import run_job

    threads = []

    def run_soon(job_id):
        threads.append(threading.Timer(0.2, run_job, [job_id]))
        threads[-1].start()

    yield run_soon
    for thread in threads:
        thread.join()


def test_a_job_from_upload_to_download(api_client, worker, tmp_path, chelsea):
    upload_id = api_client.upload(chelsea)
    job = api_client.submit("steps", {"image": upload_id, "steps": 2, "seed": 7}, labels={"who": "me"})
    worker(job["id"])

    ended = api_client.wait(job["id"])
    paths = api_client.download(job["id"], tmp_path / "results")

    assert ended["status"] == "succeeded"
    assert {path.name: path for path in paths}["result.txt"].read_text() == chain(2, 7)
    assert api_client.jobs(label="who=me")["jobs"] == [ended]


def test_bytes_and_paths_are_the_same_upload(api_client, chelsea):
    data = chelsea.read_bytes()

    assert api_client.upload(data) == api_client.upload(str(chelsea)) == hashlib.sha256(data).hexdigest()


def test_events_come_as_they_happen_until_the_job_ends(api_client, worker):
    job = api_client.submit("steps", {"steps": 3, "checkpoint_every": 1})
    worker(job["id"])

    events = list(api_client.events(job["id"]))

    assert [event.data["status"] for event in events if event.type == "status"] == [
        "queued",
        "running",
        "succeeded",
    ]


def test_a_connection_that_breaks_is_made_again_and_nothing_is_missed_or_told_twice(
    api_client, run_queued, monkeypatch
):
    job = api_client.submit("steps", {"steps": 3, "checkpoint_every": 1})
    run_queued(job["id"])
    whole = list(api_client.events(job["id"]))
    stream = Client._stream

    def breaking(self, job_id, after):
        for number, event in enumerate(stream(self, job_id, after)):
            if number == 2:
                raise Unavailable(0, "unreachable", "the connection broke")
            yield event

    monkeypatch.setattr(Client, "_stream", breaking)
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    assert list(api_client.events(job["id"])) == whole


def test_a_server_that_stays_away_is_given_up(api_client, monkeypatch):
    def away(self, job_id, after):
        raise Unavailable(0, "unreachable", "away")
        yield

    monkeypatch.setattr(Client, "_stream", away)

    with pytest.raises(Unavailable):
        list(api_client.events("0" * 26, patience_s=0))


def test_a_refusal_says_what_and_which_field(api_client):
    with pytest.raises(ApiError) as caught:
        api_client.submit("steps", {"stepps": 1})

    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "invalid_input", "stepps")


@pytest.mark.parametrize(
    "given",
    [
        {"params": {"step_s": float("nan")}},
        {"params": {"steps": object()}},
        {"idempotency_key": "a\nb"},
        {"idempotency_key": "€"},
    ],
)
def test_what_cannot_be_sent_is_not_told_as_an_absent_server(api_client, given):
    with pytest.raises(ApiError, match="this cannot be sent") as caught:
        api_client.submit("steps", **given)

    assert (caught.value.code, isinstance(caught.value, Unavailable)) == ("invalid_request", False)


def test_an_id_is_one_part_of_a_path_whatever_it_is_made_of(api_client):
    with pytest.raises(ApiError) as caught:
        api_client.job("../workers")

    assert caught.value.status == 404


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"hello": 1}'])
def test_another_program_at_the_address_is_told_as_such(answer):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = Client(f"http://127.0.0.1:{server.server_port}")
        for call in (client.jobs, client.kinds, client.workers, lambda: client.job("x")):
            with pytest.raises(ApiError, match="answers 200, and not as dreamq does") as caught:
                call()
            assert caught.value.code == "not_dreamq"
        server.shutdown()


def test_the_same_idempotency_key_makes_one_job(api_client):
    jobs = [api_client.submit("steps", idempotency_key="once")["id"] for _ in range(2)]

    assert jobs[0] == jobs[1]


def test_a_cancelled_job_ends(api_client):
    job = api_client.submit("steps")

    api_client.cancel(job["id"])

    assert api_client.wait(job["id"])["status"] == "cancelled"


def test_a_file_that_the_job_does_not_have_is_refused_before_anything_is_written(
    api_client, run_queued, tmp_path
):
    job = api_client.submit("steps", {"steps": 1})
    run_queued(job["id"])

    with pytest.raises(ApiError, match=r"result\.txt"):
        api_client.download(job["id"], tmp_path / "results", ["result.txt", "../evil"])

    assert not (tmp_path / "results").exists()


def test_a_file_that_comes_damaged_is_not_kept(api_client, queue, run_queued, tmp_path):
    job = api_client.submit("steps", {"steps": 1})
    run_queued(job["id"])
    queue.storage.write(queue.artifact(job["id"], "result.txt").path, b"x" * 64)

    with pytest.raises(Unavailable, match="damaged"):
        api_client.download(job["id"], tmp_path)

    assert list(tmp_path.glob("*result*")) == []


def test_where_nobody_listens_it_says_so():
    with pytest.raises(Unavailable, match="no dreamq server answers"):
        Client("http://127.0.0.1:9").job("x")


def test_events_are_read_as_the_standard_writes_them():
    text = b'retry: 1\n: a comment\n\nid: 1-0\nevent: text\ndata: {"text": "a: b"}\n\n'
    lines = (text + b"data:{}\n\nid: 2-0\n\nid: 3").split(b"\n")

    assert list(parse_events(lines)) == [
        JobEvent("1-0", "text", {"text": "a: b"}),
        JobEvent("", "message", {}),
    ]


def test_the_client_needs_neither_flask_nor_celery_nor_tensorflow():
    code = "import sys, api.client; print(*{'flask', 'celery', 'redis', 'tensorflow'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == ""
