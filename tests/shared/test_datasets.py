"""Archives are judged before anything is unpacked."""

import errno
import io
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from shared.datasets import DatasetInfo, describe_dataset, inspect_dataset, open_archive, picture_members
from shared.errors import InvalidInput, StorageUnavailable
from tasks.datasets import read_picture
from tests.archives import blobs, folder_of, npz_of, png, zip_of

MAX_PIXELS = 1_000_000


@pytest.fixture
def inspect(tmp_path: Path):
    def inspect_bytes(archive: bytes) -> DatasetInfo:
        path = tmp_path / "archive"
        path.write_bytes(archive)
        return inspect_dataset(path, max_pixels=MAX_PIXELS)

    return inspect_bytes


def test_folders_are_labels_and_what_all_have_in_common_is_not(inspect):
    pictures = blobs(2)
    files = (
        folder_of(pictures, "data/cats/")
        | folder_of(pictures, "data/dogs/")
        | folder_of(pictures, "data/dogs/old/")
    )

    assert inspect(zip_of(files)) == DatasetInfo(pictures=6, classes=("cats", "dogs"))


def test_one_folder_is_no_label(inspect):
    assert inspect(zip_of(folder_of(blobs(3), "frogs/"))).classes == ()


def test_folders_that_begin_alike_are_different_folders(inspect):
    files = folder_of(blobs(2), "cat1/") | folder_of(blobs(2), "cat2/")

    assert inspect(zip_of(files)).classes == ("cat1", "cat2")


def test_pictures_beside_the_folders_are_unlabelled(inspect):
    assert inspect(zip_of(folder_of(blobs(2)) | folder_of(blobs(2), "cats/"))).classes == (
        "cats",
        "unlabelled",
    )


def test_windows_separators_make_folders_too(inspect):
    assert inspect(zip_of(folder_of(blobs(2), "a\\") | folder_of(blobs(2), "b\\"))).classes == ("a", "b")


def test_hidden_and_system_files_are_passed_over(inspect):
    noise = [
        "__MACOSX/cats/._001.png",
        ".ipynb_checkpoints/a.png",
        "cats/Thumbs.db",
        "cats/.DS_Store",
        "desktop.ini",
    ]
    files = folder_of(blobs(2), "cats/") | dict.fromkeys(noise, b"noise")

    assert inspect(zip_of(files)).pictures == 2


def test_a_tenth_of_broken_files_is_admitted_and_more_is_not(inspect):
    nine = folder_of(blobs(9))

    assert inspect(zip_of(nine | {"notes.txt": b"text"})).pictures == 10
    with pytest.raises(InvalidInput, match=r"2 of 11 files .*'notes.txt', 'page.html'"):
        inspect(zip_of(nine | {"notes.txt": b"text", "page.html": b"<html>"}))


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:\\evil.png", "..\\evil.png", "a\0b.png"]
)
def test_a_path_that_leaves_the_archive_is_refused(inspect, name):
    # ZipInfo cuts a name at a zero byte, so that one is put into the finished archive.
    archive = zip_of(folder_of(blobs(2)) | {name.replace("\0", "_"): png(blobs(1)[0])})
    if "\0" in name:
        archive = archive.replace(b"a_b.png", b"a\0b.png")

    with pytest.raises(InvalidInput, match="leaves the archive"):
        inspect(archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(inspect, kind):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (kind | 0o777) << 16
        archive.writestr(link, "/etc/passwd")

    with pytest.raises(InvalidInput, match="link or a device"):
        inspect(file.getvalue())


def test_an_archive_bomb_is_refused_by_its_listing(inspect):
    # 300 MB of zeros in 300 kB.
    zeros = bytes(30_000_000)

    with pytest.raises(InvalidInput, match="archive bomb"):
        inspect(zip_of({f"{index}.png": zeros for index in range(10)}))


def test_members_that_share_their_bytes_are_taken_for_a_bomb(inspect):
    # Every entry of the listing is made to claim the first one's bytes: an overlapping archive in miniature.
    archive = bytearray(zip_of(folder_of(blobs(5, 64)), compression=zipfile.ZIP_STORED))
    with zipfile.ZipFile(io.BytesIO(bytes(archive))) as opened:
        at = opened.start_dir
    while archive[at : at + 4] == b"PK\x01\x02":
        archive[at + 20 : at + 28] = struct.pack("<II", len(archive) // 2, len(archive) // 2)
        name, extra, comment = struct.unpack("<HHH", archive[at + 28 : at + 34])
        at += 46 + name + extra + comment

    with pytest.raises(InvalidInput, match="archive bomb"):
        inspect(bytes(archive))


def test_a_file_with_a_password_is_refused(inspect):
    archive = bytearray(zip_of(folder_of(blobs(1))))
    central = archive.rindex(b"PK\x01\x02")
    archive[central + 8] |= 1

    with pytest.raises(InvalidInput, match="password"):
        inspect(bytes(archive))


@pytest.mark.parametrize("content", [b"", b"PK", b"not an archive", png(blobs(1)[0])])
def test_what_is_no_archive_is_refused_with_what_would_do(inspect, content):
    with pytest.raises(InvalidInput, match=r"\.zip of pictures, an \.npz"):
        inspect(content)


def test_a_file_system_that_fails_is_not_told_as_a_broken_archive(tmp_path, monkeypatch):
    with pytest.raises(StorageUnavailable):  # a folder, which the system refuses to read
        inspect_dataset(tmp_path, max_pixels=MAX_PIXELS)

    path = tmp_path / "archive"
    path.write_bytes(zip_of(folder_of(blobs(20))))

    def stale(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(zipfile.ZipFile, "read", stale)
    with pytest.raises(StorageUnavailable):  # at submit
        inspect_dataset(path, max_pixels=MAX_PIXELS)
    with open_archive(path) as archive, pytest.raises(StorageUnavailable):  # in the training
        read_picture(archive, picture_members(archive)[0], MAX_PIXELS)


def test_a_zip_cut_short_is_refused(inspect):
    archive = zip_of(folder_of(blobs(5)))

    with pytest.raises(InvalidInput):
        inspect(archive[: len(archive) // 2])


def test_an_archive_without_pictures_is_refused(inspect):
    with pytest.raises(InvalidInput, match="no pictures"):
        inspect(zip_of({".hidden": b"", "__MACOSX/a.png": b""}))


def test_an_npz_is_described_by_its_headers(inspect):
    info = inspect(npz_of(images=np.zeros((7, 5, 4, 3), np.uint8), labels=np.arange(7)))

    assert info == DatasetInfo(pictures=7, classes=(), height=5, width=4, channels=3)


@pytest.mark.parametrize(
    ("arrays", "because"),
    [
        ({"x": np.zeros((2, 4, 4), np.uint8)}, r"named `images` .*it has: x"),
        ({"images": np.zeros((2, 4, 4, 4), np.uint8)}, "shape"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, "shape"),
        ({"images": np.zeros((4, 4), np.uint8)}, "shape"),
        ({"images": np.zeros((2, 4, 4), np.int64)}, "type"),
        ({"images": np.array([{}, {}], object)}, "plain numbers"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(3, int)}, "one whole number or string"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(2)}, "one whole number or string"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(inspect, arrays, because):
    with pytest.raises(InvalidInput, match=because):
        inspect(npz_of(**arrays))


def test_a_header_that_promises_more_than_the_file_holds_is_refused(inspect):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000), }\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header

    with pytest.raises(InvalidInput, match="does not match"):
        inspect(zip_of({"images.npy": array}))


def test_a_header_with_code_in_it_is_never_run(inspect):
    header = b"__import__('os').system('true')\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header

    with pytest.raises(InvalidInput, match="no NumPy array"):
        inspect(zip_of({"images.npy": array}))


def test_members_come_sorted_whatever_order_they_were_packed_in(tmp_path):
    path = tmp_path / "archive.zip"
    path.write_bytes(zip_of(dict(reversed(folder_of(blobs(5)).items()))))

    with open_archive(path) as archive:
        assert [member.name for member in picture_members(archive)] == [
            f"{index:03d}.png" for index in range(5)
        ]


def test_describing_reads_the_listing_alone(tmp_path):
    path = tmp_path / "archive.zip"
    path.write_bytes(zip_of({f"{index}.png": b"no picture" for index in range(5)}))

    assert describe_dataset(path).pictures == 5
