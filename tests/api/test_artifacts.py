"""Artifacts: only what the job's record lists, whole or in part, and never something a browser would run."""

import hashlib
import json

import pytest

from tests.faults.steps import chain


@pytest.fixture
def done(submit, run_queued):
    """A job that has left `preview-0001.txt`, `preview-0002.txt` and `result.txt`."""
    return run_queued(submit(params={"steps": 2, "checkpoint_every": 1, "seed": 7})["id"])


@pytest.fixture
def result_url(done):
    """Where its result is."""
    return f"/v1/jobs/{done.id}/artifacts/result.txt"


RESULT = chain(2, 7).encode()


def leave(queue, job_id, name, data, media_type):
    """Add a file to a job's record, as a task of that kind would have left it."""
    job = queue.get(job_id)
    path = f"jobs/{job_id}/attempts/1-{job.token or 'x'}/{name}"
    queue.storage.write(path, data)
    artifact = {
        "name": name,
        "media_type": media_type,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "path": path,
        "place": 99,
    }
    queue.store.redis.hset(f"dreamq:job:{job_id}", f"artifact.{name}", json.dumps(artifact))


def test_a_file_is_found_at_the_address_that_its_job_gives(client, done):
    for artifact in client.get(f"/v1/jobs/{done.id}").get_json()["artifacts"]:
        answer = client.get(artifact["url"])

        assert answer.status_code == 200
        assert len(answer.data) == artifact["bytes"] == answer.content_length
        assert hashlib.sha256(answer.data).hexdigest() == artifact["sha256"]


def test_a_file_has_its_hash_as_etag_and_is_not_sent_twice(client, result_url):
    first = client.get(result_url)
    again = client.get(result_url, headers={"If-None-Match": first.headers["ETag"]})

    assert first.data == RESULT
    assert first.headers["ETag"] == f'"{hashlib.sha256(RESULT).hexdigest()}"'
    assert (again.status_code, again.data) == (304, b"")


def test_a_part_of_a_file_can_be_asked_for(client, result_url):
    part = client.get(result_url, headers={"Range": "bytes=10-19"})
    tail = client.get(result_url, headers={"Range": "bytes=-4"})

    assert (part.status_code, part.data) == (206, RESULT[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(RESULT)}"
    assert tail.data == RESULT[-4:]


def test_a_part_that_the_file_does_not_have_is_refused(client, result_url):
    answer = client.get(result_url, headers={"Range": "bytes=1000-"})

    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(RESULT)}"
    assert "code" in answer.get_json()["error"]


@pytest.mark.parametrize("asked", ["items=0-1", "bytes", "bytes=x", "bytes=0-1,3-4", f"bytes=-{10**9}"])
def test_a_range_of_another_form_is_passed_over_and_the_whole_file_sent(client, result_url, asked):
    """RFC 9110, 14.2: a unit that is not known is ignored. 14.1.2: a suffix longer than the file is all of it."""
    answer = client.get(result_url, headers={"Range": asked})

    assert (answer.status_code, answer.data) == (200, RESULT)


def test_head_says_what_get_would_send(client, result_url):
    answer = client.head(result_url)

    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(RESULT))
    assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    "name",
    [
        "nothing.png",
        "manifest.json",
        "job.json",
        "",
        ".",
        "..",
        "../job.json",
        "../../../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "%252e%252e%252fetc%252fpasswd",
        "/etc/passwd",
        "//etc/passwd",
        "result.txt/",
        "result.txt%00.png",
        "..\\..\\windows",
        "result.txt;x",
        "RESULT.TXT",
        "x" * 5000,
    ],
)
def test_a_name_that_the_job_does_not_list_is_not_found(client, done, name):
    answer = client.get(f"/v1/jobs/{done.id}/artifacts/{name}")

    assert answer.status_code == 404
    assert answer.get_json()["error"]["code"] in ("artifact_not_found", "not_found")


def test_a_link_that_somebody_put_into_the_folder_is_not_served(client, queue, done):
    folder = queue.storage.local_path(queue.get(done.id).artifacts[0].path).parent
    (folder / "link.txt").symlink_to("/etc/passwd")

    assert client.get(f"/v1/jobs/{done.id}/artifacts/link.txt").status_code == 404


def test_a_file_of_one_job_is_not_found_under_another(client, done, submit):
    other = submit()["id"]

    assert client.get(f"/v1/jobs/{other}/artifacts/result.txt").status_code == 404


def test_a_file_that_is_gone_from_the_storage_is_not_found(client, queue, done, result_url):
    queue.storage.delete(queue.artifact(done.id, "result.txt").path)

    answer = client.get(result_url)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "artifact_not_found")


def test_text_and_pictures_are_shown_as_what_they_are(client, queue, done, result_url):
    leave(queue, done.id, "picture.png", b"\x89PNG", "image/png")

    picture = client.get(f"/v1/jobs/{done.id}/artifacts/picture.png")
    text = client.get(result_url)

    assert picture.content_type == "image/png"
    assert picture.headers["Content-Disposition"] == 'inline; filename="picture.png"'
    assert text.content_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("page.html", "text/html"),
        ("page.html", "TEXT/HTML; charset=utf-8"),
        ("drawing.svg", "image/svg+xml"),
        ("x.xml", "application/xml"),
        ("x.js", "text/javascript"),
        ("x.pdf", "application/pdf"),
        ("model.keras", "application/octet-stream"),
        ("odd", "nonsense"),
    ],
)
def test_what_could_run_in_our_name_is_downloaded_as_plain_bytes(client, queue, done, name, media_type):
    leave(queue, done.id, name, b"<script>alert(1)</script>", media_type)

    answer = client.get(f"/v1/jobs/{done.id}/artifacts/{name}")

    assert answer.content_type == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_a_large_file_comes_whole(client, queue, done):
    data = bytes(range(256)) * 2000  # more than one piece of what is read at once
    leave(queue, done.id, "large.npz", data, "application/octet-stream")

    answer = client.get(f"/v1/jobs/{done.id}/artifacts/large.npz")

    assert answer.data == data


def test_an_empty_file_comes_empty(client, queue, done):
    leave(queue, done.id, "empty.csv", b"", "text/csv")

    answer = client.get(f"/v1/jobs/{done.id}/artifacts/empty.csv")

    assert (answer.status_code, answer.data) == (200, b"")
