"""Every error has the same shape; a Redis or a storage that is away is told within seconds."""

import re
import signal

import pytest
import requests

from api.app import create_app
from api.errors import STATUS, status_of
from shared import errors as e
from shared.settings import Settings
from workers.redis_server import RedisServer

SOME_ID = "0" * 26


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1", 404, "not_found"),
        ("GET", "/v1/jobs/", 404, "not_found"),
        ("GET", "/v1//jobs", 404, "not_found"),
        ("GET", "/static/../app.py", 404, "not_found"),
        ("GET", "/static/nothing.js", 404, "not_found"),
        ("DELETE", "/v1/jobs", 405, "method_not_allowed"),
        ("PUT", f"/v1/jobs/{SOME_ID}", 405, "method_not_allowed"),
        ("GET", "/v1/uploads", 405, "method_not_allowed"),
        ("GET", f"/v1/jobs/{SOME_ID}/cancel", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_told_in_the_one_shape(client, method, path, status, code):
    answer = client.open(path, method=method)

    assert answer.status_code == status
    assert answer.content_type == "application/json"
    assert answer.get_json()["error"]["code"] == code
    assert answer.get_json()["error"]["message"]


def test_a_wrong_method_is_told_the_right_ones(client):
    answer = client.delete("/v1/jobs")

    assert set(re.split(r",\s*", answer.headers["Allow"])) >= {"GET", "POST"}


def test_a_mistake_of_ours_is_a_500_that_gives_nothing_away(client, queue, submit):
    job_id = submit()["id"]
    queue.store.redis.hset(f"dreamq:job:{job_id}", "attempt", "the secret of the house")

    answer = client.get(f"/v1/jobs/{job_id}")

    assert answer.status_code == 500
    assert answer.get_json()["error"]["code"] == "internal"
    assert "secret" not in answer.text


def test_each_error_that_a_call_can_raise_has_a_status():
    raised_by_calls = {
        e.RequestInvalid: 422,
        e.InvalidInput: 422,
        e.JobNotFound: 404,
        e.ArtifactNotFound: 404,
        e.UploadNotFound: 404,
        e.KindNotFound: 404,
        e.IdempotencyConflict: 409,
        e.UploadTooLarge: 413,
        e.QueueUnavailable: 503,
        e.StorageUnavailable: 503,
        e.StorageFull: 507,
    }

    assert raised_by_calls == STATUS
    assert status_of(e.UploadNotFound(field="image")) == 422  # bad input, not a bad address
    assert status_of(e.Diverged()) == 500


@pytest.fixture
def redis_of_its_own(tmp_path):
    """A Redis server that a test may stop."""
    server = RedisServer(tmp_path / "r")
    server.start()
    yield server
    server.stop()


CALLS = [
    ("POST", "/v1/jobs"),
    ("GET", "/v1/jobs"),
    ("GET", f"/v1/jobs/{SOME_ID}"),
    ("POST", f"/v1/jobs/{SOME_ID}/cancel"),
    ("GET", f"/v1/jobs/{SOME_ID}/events"),
    ("GET", f"/v1/jobs/{SOME_ID}/artifacts/result.png"),
    ("GET", "/v1/workers"),
    ("GET", "/readyz"),
]


def test_a_redis_that_is_away_is_a_503_on_every_call_that_needs_it_and_no_longer_when_it_is_back(
    tmp_path, redis_of_its_own
):
    settings = Settings(redis_url=redis_of_its_own.url, storage_url=str(tmp_path / "storage"))
    client = create_app(settings).test_client()
    steps = {"kind": "steps", "params": {"steps": 1}}
    headers = {"Idempotency-Key": "once"}

    redis_of_its_own.stop()
    for method, path in CALLS:
        answer = client.open(
            path,
            method=method,
            json=steps if path == "/v1/jobs" and method == "POST" else None,
            headers=headers,
        )

        assert answer.status_code == 503, path
        assert answer.get_json()["error"]["code"] == "queue_unavailable"
        assert int(answer.headers["Retry-After"]) >= 1
        assert str(tmp_path) not in answer.text
    for path in ("/healthz", "/openapi.json", "/v1/kinds", "/"):
        assert client.get(path).status_code == 200, path

    redis_of_its_own.start()
    first = client.post("/v1/jobs", json=steps, headers=headers)
    again = client.post("/v1/jobs", json=steps, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert len(client.get("/v1/jobs").get_json()["jobs"]) == 1  # what failed left nothing behind


def test_a_redis_that_answers_nothing_is_a_503_before_a_client_of_three_seconds_gives_up(
    start, redis_of_its_own
):
    url = start(redis_url=redis_of_its_own.url).url
    assert requests.get(f"{url}/v1/jobs", timeout=10).status_code == 200

    redis_of_its_own.process.send_signal(signal.SIGSTOP)
    try:
        for method, path in [
            ("POST", "/v1/jobs"),
            ("GET", f"/v1/jobs/{SOME_ID}"),
            ("POST", f"/v1/jobs/{SOME_ID}/cancel"),
        ]:
            steps = {"kind": "steps"} if path == "/v1/jobs" else None
            answer = requests.request(method, f"{url}{path}", json=steps, timeout=3)

            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2"), path
    finally:
        redis_of_its_own.process.send_signal(signal.SIGCONT)

    assert requests.post(f"{url}/v1/jobs", json={"kind": "steps"}, timeout=10).status_code == 202


def test_a_storage_that_cannot_be_used_is_a_503(settings, tmp_path):
    (tmp_path / "file").write_text("no folder")
    client = create_app(
        settings.model_copy(update={"storage_url": str(tmp_path / "file" / "storage")})
    ).test_client()

    for answer in (
        client.get("/readyz"),
        client.post("/v1/uploads", data=b"x"),
        client.post("/v1/jobs", json={"kind": "steps"}),
    ):
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "storage_unavailable")
        assert "Retry-After" in answer.headers
