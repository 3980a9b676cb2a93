"""The storage root: names that stay inside it, whole files or none."""

import errno
import io
import os
from pathlib import Path

import pytest

from shared.errors import InvalidInput, StorageFull, StorageUnavailable, UploadNotFound
from shared.storage import Storage, checked, media_type


@pytest.fixture(params=["folder", "memory"])
def storage(request, tmp_path):
    """A folder, and an fsspec file system that is none (as S3 is none)."""
    made = Storage(str(tmp_path / "root") if request.param == "folder" else f"memory://{tmp_path.name}")
    made.cache = tmp_path / "cache"
    return made


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../b",
        "/etc/passwd",
        "a//b",
        "",
        ".hidden",
        "a/.x",
        "a b",
        "a\n",
        "a\0",
        "a\\b",
        "x" * 129,
        "~",
        "%2e",
    ],
)
def test_no_name_leaves_the_root_or_hides_in_it(storage, path):
    with pytest.raises(InvalidInput):
        checked(path)
    for use in (storage.read, storage.open, storage.exists, storage.delete, storage.names):
        with pytest.raises(InvalidInput):
            use(path)
    with pytest.raises(InvalidInput):
        storage.write(path, b"x")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES, errno.ELOOP])
def test_what_cannot_be_looked_at_is_not_taken_for_what_is_not_there(tmp_path, monkeypatch, number):
    """A stale handle of NFS must not read as a missing job or upload: prune and recovery would act on it."""
    storage = Storage(str(tmp_path))
    storage.write("uploads/there", b"x")
    stat = os.stat

    def sick(path, *args, **options):
        if str(path).startswith(str(tmp_path / "uploads")):
            raise OSError(number, os.strerror(number), str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", sick)
    for look in (storage.exists, storage.local_path):
        with pytest.raises(StorageUnavailable):
            look("uploads/there")


def test_what_is_there_and_what_is_not_are_told_apart(storage):
    storage.write("uploads/there", b"x")

    assert [storage.exists(f"uploads/{name}") for name in ("there", "elsewhere")] == [True, False]
    assert not storage.exists("nowhere/at-all")
    with pytest.raises(FileNotFoundError):
        storage.local_path("uploads/elsewhere")


def test_what_is_written_is_read(storage, tmp_path):
    (tmp_path / "local").write_bytes(b"from a file")

    storage.write("a/b/c.bin", b"bytes")
    storage.write("a/b/c.bin", b"other bytes")
    storage.write_file("a/b/d.bin", tmp_path / "local")

    assert storage.read("a/b/c.bin") == b"other bytes"
    assert storage.local_path("a/b/d.bin").read_bytes() == b"from a file"
    assert storage.names("a/b") == ["c.bin", "d.bin"]
    storage.delete("a")
    storage.delete("a")
    assert storage.names("a/b") == []
    assert not storage.exists("a/b/c.bin")


def test_a_file_that_is_not_there_is_said_to_be_missing(storage):
    for use in (storage.read, storage.open, storage.local_path):
        with pytest.raises(FileNotFoundError):
            use("nothing")
    with pytest.raises(UploadNotFound):
        storage.upload_path("0" * 64)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, StorageUnavailable)],
)
def test_a_write_that_fails_leaves_no_half_file(tmp_path, monkeypatch, number, error):
    storage = Storage(str(tmp_path))
    storage.write("whole", b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    # The disk is full as the last block is written out, when all bytes were taken already.
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error):
        storage.write("whole", b"new")
    with pytest.raises(error):
        storage.store_upload(io.BytesIO(b"new"), limit_bytes=10)

    assert storage.read("whole") == b"old"
    assert [path.name for path in Path(tmp_path).rglob("*") if path.is_file()] == ["whole"]


def test_half_files_of_the_cache_go_and_one_that_cannot_be_removed_is_left(tmp_path):
    storage = Storage(f"memory://{tmp_path.name}")
    storage.cache = tmp_path / "cache"
    assert storage.remove_half_files("", before_ms=2**50) == []  # there is no cache yet

    storage.cache.mkdir()
    half, stuck, copy = (storage.cache / name for name in (f"{1:032x}.tmp", f"{2:032x}.tmp", "ab" * 32))
    half.write_bytes(b"half")
    stuck.mkdir()  # unlink is refused
    copy.write_bytes(b"whole")

    assert storage.remove_half_files("uploads", before_ms=2**50) == []
    assert storage.remove_half_files("", before_ms=2**50) == [str(half)]
    assert sorted(storage.cache.iterdir()) == sorted([stuck, copy])


def test_a_local_storage_never_looks_into_the_cache(tmp_path):
    storage = Storage(str(tmp_path / "root"))
    storage.cache = tmp_path / "cache"
    storage.cache.mkdir()
    (storage.cache / f"{1:032x}.tmp").write_bytes(b"half")

    assert storage.remove_half_files("", before_ms=2**50) == []


@pytest.mark.parametrize("whose", ["another user's", "a link", "a file"])
def test_a_cache_that_is_not_ours_is_refused_with_what_to_do(tmp_path, monkeypatch, whose):
    storage = Storage(f"memory://{tmp_path.name}")
    storage.cache = tmp_path / "cache"
    storage.write("uploads/a", b"x")
    if whose == "another user's":
        storage.cache.mkdir()
        mine = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    elif whose == "a link":
        (tmp_path / "elsewhere").mkdir()
        storage.cache.symlink_to(tmp_path / "elsewhere")
    else:
        storage.cache.write_bytes(b"")

    for use in (
        lambda: storage.local_path("uploads/a"),
        lambda: storage.store_upload(io.BytesIO(b"abc"), limit_bytes=10),
    ):
        with pytest.raises(StorageUnavailable, match=r"cache is not a folder of this user's: .* set TMPDIR"):
            use()


def test_each_user_has_a_cache_of_its_own(tmp_path):
    assert Storage(str(tmp_path)).cache.name == f"dreamq-cache-{os.getuid()}"


def test_an_upload_is_found_under_its_hash(storage):
    upload = storage.store_upload(io.BytesIO(b"\x89PNG\r\n\x1a\n..."), limit_bytes=100)

    assert upload.media_type == "image/png"
    assert storage.upload_path(upload.id).read_bytes() == b"\x89PNG\r\n\x1a\n..."


@pytest.mark.parametrize(
    ("head", "expected"),
    [(b"\xff\xd8\xff\xe0", "image/jpeg"), (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"), (b"hello", "text/plain"),
     (b"a\0b", "application/octet-stream"), (b"PK\x03\x04", "application/zip")],
)  # fmt: skip
def test_a_files_media_type_is_told_by_its_content(head, expected):
    assert media_type(head) == expected


def test_a_storage_url_of_no_known_kind_is_refused_with_its_name():
    with pytest.raises(StorageUnavailable, match="gopher://x"):
        Storage("gopher://x")
