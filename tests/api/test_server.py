"""`python -m api` as operators run it: a real server process, many clients at once, signals."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests
from click.testing import CliRunner

from api import keys
from api.__main__ import main
from api.client import Client


def refused(*words):
    """Start a server that must refuse to start, and return what it said."""
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    return result.stderr


def test_two_hundred_open_streams_do_not_block_a_submit_and_sigterm_ends_them_all(start):
    api = start()
    client = Client(api.url)
    job = client.submit("steps")

    with ExitStack() as open_streams:
        for _ in range(200):
            stream = requests.get(f"{api.url}/v1/jobs/{job['id']}/events", stream=True, timeout=30)
            open_streams.enter_context(stream)
            assert next(stream.iter_lines()).startswith(b"retry")
        assert client.submit("steps")["status"] == "queued"
        assert len(client.jobs()["jobs"]) == 2

        api.process.send_signal(signal.SIGTERM)
        assert api.process.wait(timeout=20) == 0


def test_fifty_clients_with_the_same_idempotency_key_make_one_job(start):
    api = start()

    def submit(_):
        return Client(api.url).submit("steps", {"steps": 2}, idempotency_key="once")["id"]

    with ThreadPoolExecutor(50) as pool:
        ids = set(pool.map(submit, range(50)))

    assert len(ids) == 1
    assert [job["id"] for job in Client(api.url).jobs()["jobs"]] == list(ids)


def test_an_upload_without_a_length_is_stored_as_it_comes_and_cut_when_it_is_too_large(start, queue):
    api = start(max_upload_mb=1)
    piece = bytes(range(256)) * 256

    def pieces(number):
        for _ in range(number):
            yield piece

    fits = requests.post(f"{api.url}/v1/uploads", data=pieces(16), timeout=30)  # 1 MiB exactly
    assert fits.status_code == 201
    assert fits.json()["id"] == hashlib.sha256(piece * 16).hexdigest()

    # Written by hand, since a client that still sends when it is refused may not hear the answer.
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(17):
            connection.sendall(b"10000\r\n" + piece + b"\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")  # answered though the body has no end

    assert queue.storage.names("uploads") == [fits.json()["id"]]


def test_too_large_an_upload_is_refused_by_its_length_alone(start):
    api = start(max_upload_mb=1)

    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1099511627776\r\n\r\n"
        )
        assert connection.recv(64).startswith(b"HTTP/1.1 413 ")


def test_an_upload_that_breaks_off_leaves_nothing(start, queue):
    api = start()

    for head in (b"Content-Length: 1000000\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n100000\r\nhalf"):
        with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
            connection.sendall(b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\n" + head)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(64).startswith((b"HTTP/1.1 400 ", b""))
    Client(api.url).upload(b"whole")

    assert queue.storage.names("uploads") == [hashlib.sha256(b"whole").hexdigest()]


@pytest.mark.parametrize("chunk", [b"xyz\r\nabc", b"-5\r\nabc", b"3\r\nabcdef\r\n"])
def test_an_upload_whose_chunks_are_damaged_is_refused(start, queue, chunk):
    api = start()
    head = b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
        connection.sendall(head + chunk)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(64).startswith(b"HTTP/1.1 400 ")

    assert queue.storage.names("uploads") == []


def test_a_stream_follows_a_job_that_a_worker_runs_meanwhile(start, run_queued):
    client = Client(start().url)
    job = client.submit("steps", {"steps": 2, "checkpoint_every": 1})
    heard = []

    def follow():
        heard.extend(client.events(job["id"]))

    thread = threading.Thread(target=follow)
    thread.start()
    while not heard:  # until the stream is open
        time.sleep(0.01)
    run_queued(job["id"])
    thread.join()

    assert [event.data["status"] for event in heard if event.type == "status"] == [
        "queued",
        "running",
        "succeeded",
    ]


def test_recovery_runs_in_the_server(start, queue):
    from shared.job import Worker, new_token

    job_id = queue.submit("steps", {}).id
    queue.store.claim(job_id, token=new_token(), worker=Worker(name="w", host="h", device="cpu", pid=1))
    client = Client(start().url)

    # Nobody renews the lease (3 s in these tests): the server's recovery gives the job back.
    statuses = (event.data for event in client.events(job_id) if event.type == "status")
    assert [next(statuses)["status"] for _ in range(3)] == ["queued", "running", "queued"]
    assert client.job(job_id)["attempts"][0]["reason"] == "worker_lost"


def test_other_machines_are_not_let_in_without_keys(settings):
    for host in ("0.0.0.0", "::", "192.0.2.7"):
        said = refused("--host", host)

        assert "API_KEYS_FILE" in said
        assert "dreamq admin keys add" in said


def test_a_key_file_without_a_key_is_no_better_than_none(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("API_KEYS_FILE", str(tmp_path / "keys"))
    assert "holds no key" in refused("--host", "0.0.0.0")

    (tmp_path / "keys").write_text("# none yet\n")
    assert "holds no key" in refused("--host", "0.0.0.0")

    (tmp_path / "keys").write_text("nonsense\n")
    assert "line 1" in refused("--host", "0.0.0.0")


def test_other_machines_are_let_in_with_a_key(start, tmp_path):
    key = keys.add(tmp_path / "keys", "ada")
    api = start("--host", "0.0.0.0", api_keys_file=tmp_path / "keys")
    url = f"http://127.0.0.1:{api.port}/v1/jobs"

    assert requests.get(url, timeout=30).status_code == 401
    assert requests.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=30).status_code == 200
    assert requests.get(url, headers={"Host": "evil.example"}, timeout=30).status_code == 403


def test_an_address_that_cannot_be_had_is_told(settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused("--port", port)

    assert f"127.0.0.1:{port}" in said
    assert "--port" in said


def test_a_setting_that_cannot_be_used_is_told_without_a_traceback(settings):
    environment = {**os.environ, "LEASE_S": "soon"}
    command = [sys.executable, "-m", "api", "--port", "0"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: LEASE_S='soon'")


def test_help_needs_no_settings(monkeypatch):
    monkeypatch.setenv("LEASE_S", "soon")
    result = CliRunner().invoke(main, ["--help"])

    assert result.exit_code == 0
    assert "--host" in result.stdout
