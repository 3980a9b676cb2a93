"""Uploads: raw or as a form, whole or not at all, no larger than they may be."""

import hashlib
import io

import pytest

from api.app import create_app
from api.schemas import UploadAnswer

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def stored(client):
    """The names of all uploads that the storage of a client's server has."""
    return client.application.extensions["dreamq"].queue.storage.names("uploads")


@pytest.fixture
def small(settings):
    """A client of an API that takes 1 MiB."""
    return create_app(settings.model_copy(update={"max_upload_mb": 1})).test_client()


def test_a_raw_body_is_stored_under_the_hash_of_its_bytes(client, chelsea):
    data = chelsea.read_bytes()

    answer = client.post("/v1/uploads", data=data)

    assert answer.status_code == 201
    assert answer.get_json() == {
        "id": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "media_type": "image/png",
    }
    UploadAnswer.model_validate(answer.get_json())


def test_the_field_file_of_a_form_is_the_same_upload(client, chelsea):
    raw = client.post("/v1/uploads", data=chelsea.read_bytes())
    form = client.post("/v1/uploads", data={"file": (io.BytesIO(chelsea.read_bytes()), "cat.png")})

    assert form.status_code == 201
    assert form.get_json() == raw.get_json()


def test_a_field_without_a_file_name_is_an_upload_too(client):
    answer = client.post("/v1/uploads", data={"file": "once upon a time"}, content_type="multipart/form-data")

    assert answer.get_json()["id"] == hashlib.sha256(b"once upon a time").hexdigest()


def test_a_raw_body_may_call_itself_what_it_likes(client):
    for content_type in (None, "image/png", "application/x-www-form-urlencoded", "application/json"):
        assert client.post("/v1/uploads", data=b"abc", content_type=content_type).status_code == 201


def test_bytes_that_look_like_a_boundary_stay_in_the_file(client):
    data = b"\r\n--x\r\n--xyz--\r\n\r\n-" * 20_000 + b"\r"
    body = (
        b'--xyzzy\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + data
        + b"\r\n--xyzzy--\r\n"
    )

    answer = client.post("/v1/uploads", data=body, content_type="multipart/form-data; boundary=xyzzy")

    assert answer.get_json()["id"] == hashlib.sha256(data).hexdigest()


def test_an_upload_can_be_named_by_a_job(client, chelsea):
    upload_id = client.post("/v1/uploads", data=chelsea.read_bytes()).get_json()["id"]

    assert client.post("/v1/jobs", json={"kind": "steps", "params": {"image": upload_id}}).status_code == 202


def test_an_upload_that_is_no_picture_is_refused_where_a_picture_is_wanted(client):
    upload_id = client.post("/v1/uploads", data=b"once upon a time").get_json()["id"]

    answer = client.post("/v1/jobs", json={"kind": "steps", "params": {"image": upload_id}})

    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, "image")


def test_nothing_is_no_upload(client):
    for arguments in ({}, {"data": b""}, {"data": {"file": (io.BytesIO(b""), "empty.png")}}):
        answer = client.post("/v1/uploads", **arguments)

        assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, "file")


def test_a_form_without_the_field_is_refused(client):
    answer = client.post("/v1/uploads", data={"picture": (io.BytesIO(b"x"), "x.png")})

    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, "picture")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b\r\n",
        b"no boundary at all",
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nthe end is missing',
        b"--b\r\nContent-Type: image/png\r\n\r\nwithout a name\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; filename="x"\r\n\r\nwithout a name\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\nx\r\n--b--\r\n',
    ],
)
def test_a_form_that_is_none_is_refused_and_leaves_nothing(client, body):
    answer = client.post("/v1/uploads", data=body, content_type="multipart/form-data; boundary=b")

    assert answer.status_code in (400, 422)
    assert answer.get_json()["error"]["message"]
    assert not stored(client)


def test_a_form_with_two_files_is_refused(client):
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n'

    answer = client.post(
        "/v1/uploads", data=part + part + b"--b--\r\n", content_type="multipart/form-data; boundary=b"
    )

    assert answer.status_code in (413, 422)


def test_a_form_without_a_boundary_is_refused(client):
    answer = client.post("/v1/uploads", data=b"x", content_type="multipart/form-data")

    assert answer.status_code == 400


def test_a_file_of_exactly_the_limit_is_stored_and_one_byte_more_is_not(small):
    limit = 2**20
    for size, status in ((limit, 201), (limit + 1, 413)):
        assert small.post("/v1/uploads", data=b"x" * size).status_code == status
        form = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + b"y" * size + b"\r\n--b--\r\n"
        answer = small.post("/v1/uploads", data=form, content_type="multipart/form-data; boundary=b")
        assert answer.status_code == status


class Endless(io.RawIOBase):
    """A body whose end never comes."""

    given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        self.given += len(buffer)
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def test_a_body_of_unknown_length_is_cut_at_the_limit_and_leaves_nothing(small, send_stream):
    endless = Endless()

    answer = send_stream("/v1/uploads", endless, to=small)

    assert (answer.status_code, answer.get_json()["error"]["code"]) == (413, "too_large")
    assert endless.given <= 2 * 2**20
    assert not stored(small)


def test_too_large_a_body_is_refused_by_its_length_before_it_is_read(small, send_stream, unreadable):
    for content_type in (None, "multipart/form-data; boundary=b"):
        answer = send_stream("/v1/uploads", unreadable, length=2**40, content_type=content_type, to=small)

        assert answer.status_code == 413


def test_a_body_that_breaks_off_is_no_shorter_file(client, send_stream):
    answer = send_stream("/v1/uploads", io.BytesIO(b"half"), length=8)

    assert answer.status_code == 400
    assert not stored(client)


def test_the_same_bytes_are_stored_once(client):
    for _ in range(2):
        client.post("/v1/uploads", data=PNG_HEAD + b"the same")

    assert len(stored(client)) == 1
