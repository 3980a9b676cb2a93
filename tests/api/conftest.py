"""What the tests of the API share: jobs, bodies of all sorts, a server that really listens."""

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from api.app import create_app
from api.client import Client
from shared.job import Job
from shared.queue import Queue
from shared.settings import Settings


@pytest.fixture
def submit(client: FlaskClient) -> Callable[..., dict[str, Any]]:
    """Submit a job of the tests' own kind through the API; the job it answers."""

    def submit_steps(headers: dict[str, str] | None = None, **body: Any) -> dict[str, Any]:
        answer = client.post("/v1/jobs", json={"kind": "steps", **body}, headers=headers)
        assert answer.status_code == 202, answer.text
        return dict(answer.get_json())

    return submit_steps


@pytest.fixture
def send_stream(client: FlaskClient) -> Callable[..., Any]:
    """Post a stream as a server would hand it on: with a length, or chunked, when its end is all there is to know."""

    def send(
        path: str,
        stream: Any,
        *,
        length: int | None = None,
        content_type: str | None = None,
        to: FlaskClient = client,
        headers: dict[str, str] | None = None,
    ) -> Any:
        environ: dict[str, Any] = {"wsgi.input": stream, "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
        if length is None:
            environ["HTTP_TRANSFER_ENCODING"] = "chunked"
        else:
            environ["CONTENT_LENGTH"] = str(length)
        return to.post(path, environ_overrides=environ, content_type=content_type, headers=headers)

    return send


class Unreadable(io.RawIOBase):
    """A body that must not be read."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raise AssertionError("the body was read")


@pytest.fixture
def unreadable() -> Unreadable:
    """A body that must not be read."""
    return Unreadable()


@pytest.fixture
def run_queued(queue: Queue) -> Callable[[str], Job]:
    """Run a queued job to its end in this process."""
    from workers.run_job import run_job

    def run(job_id: str) -> Job:
        run_job(job_id)
        return queue.get(job_id)

    return run


@pytest.fixture
def server_url(settings: Settings) -> Iterator[str]:
    """The address of a server that really listens, with a thread for each request."""
    server = make_server("127.0.0.1", 0, create_app(settings), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def api_client(server_url: str) -> Client:
    """The Python client of that server."""
    return Client(server_url)


class ApiProcess:
    """A server process with an address."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self.process = process
        self.url = url
        self.port = int(url.rpartition(":")[2])


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., ApiProcess]]:
    """Start `python -m api` on a free port, with other settings if asked to; ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start_api(*words: str, **changes: Any) -> ApiProcess:
        environment = {**os.environ, **settings.model_copy(update=changes).environment()}
        command = [sys.executable, "-m", "api", "--port", "0", *words]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address, "the server did not start"
        return ApiProcess(process, address[0])

    yield start_api
    for process in processes:
        process.terminate()
        process.communicate(timeout=20)
