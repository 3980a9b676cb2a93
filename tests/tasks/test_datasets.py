"""Training pictures come as they are and leave in one size; built-in sets are whole or not at all."""

import gzip
import hashlib
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest

from shared.errors import DataUnavailable, InvalidInput
from shared.kinds.vae_train import VaeTrainParams
from tasks import built_in_sets
from tasks.built_in_sets import PublishedFile, cifar_records, find, load_built_in
from tasks.datasets import epoch_batches, epoch_order, fit_picture, load_dataset, with_channels
from tests.archives import blobs, folder_of, npz_of, png, zip_of
from tests.tasks.attempts import begin

NOBODY = "http://127.0.0.1:9/"  # the discard port, where nothing listens


@pytest.fixture
def load(queue):
    """Read an uploaded data set as a training would; the data set, and the job that was told of it."""

    def load_upload(upload: bytes, size=None, **params):
        job = begin(queue, queue.submit("steps", {}).id)
        chosen = VaeTrainParams(dataset=queue.upload(upload).id, seed=1, **params)
        return load_dataset(chosen, job, size), job

    return load_upload


def test_digits_are_always_there(tmp_path):
    dataset = load_built_in("digits", tmp_path, lambda done, total: None)

    assert dataset.train.pictures.shape == (1797, 8, 8, 1)
    assert (dataset.train.pictures.min(), dataset.train.pictures.max()) == (0, 255)
    assert np.bincount(dataset.train.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_pictures_of_mixed_sizes_and_modes_become_alike(load):
    color = np.zeros((9, 20, 3), np.uint8)
    color[:, 10:] = (255, 0, 0)
    files = {"a.png": png(color), "b.png": png(blobs(1, 30)[0]), "c.png": png(np.zeros((5, 7, 4), np.uint8))}

    dataset, _ = load(zip_of(files), size=(16, 16))

    assert dataset.train.pictures.shape == (2, 16, 16, 3)
    assert dataset.held_out.pictures.shape == (1, 16, 16, 3)
    assert dataset.train.pictures.dtype == np.uint8


def test_pictures_without_colour_are_trained_on_in_grey(load):
    dataset, _ = load(zip_of(folder_of(np.repeat(blobs(4)[..., np.newaxis], 3, axis=-1))), size=(12, 12))

    assert dataset.train.pictures.shape[1:] == (12, 12, 1)


def test_broken_files_are_skipped_and_listed(load):
    whole = folder_of(blobs(18))
    broken = {"cut.png": whole["000.png"][:60], "notes.txt": b"text"}

    dataset, job = load(zip_of(whole | broken), size=(12, 12))

    assert len(dataset.train) + len(dataset.held_out) == 18
    assert job.summary["skipped_files"] == ["cut.png", "notes.txt"]
    assert [warning.code for warning in job.warnings] == ["files_skipped"]


def test_more_than_a_tenth_of_broken_files_is_refused(load):
    whole = folder_of(blobs(9))

    with pytest.raises(InvalidInput, match="2 of 11") as refused:
        load(zip_of(whole | {"cut.png": whole["000.png"][:60], "b.png": b""}))
    assert refused.value.field == "dataset"


def test_classes_are_kept_by_name_and_numbered_anew(load):
    labels = np.array([5, 7, 9] * 10)

    dataset, _ = load(npz_of(images=blobs(30), labels=labels), classes=["9", "5"])

    assert dataset.label_names == ("5", "9")
    kept = np.concatenate([dataset.train.labels, dataset.held_out.labels])
    assert np.bincount(kept).tolist() == [10, 10]


def test_a_class_that_is_not_there_is_refused_with_those_that_are(load):
    with pytest.raises(InvalidInput, match="no class 'frog'; it has 0, 1"):
        load(npz_of(images=blobs(4), labels=np.array([0, 1, 0, 1])), classes=["frog"])


def test_floats_are_read_as_0_to_1_and_nothing_else(load):
    dataset, _ = load(npz_of(images=np.full((4, 6, 6), 0.5, np.float32)))

    assert np.unique(dataset.train.pictures).tolist() == [128]
    with pytest.raises(InvalidInput, match=r"Image 1 .* outside 0 to 1"):
        load(npz_of(images=np.stack([np.zeros((6, 6)), np.full((6, 6), 255.0)])))
    with pytest.raises(InvalidInput, match=r"Image 0 .* outside 0 to 1"):
        load(npz_of(images=np.full((2, 6, 6), np.nan)))


def test_the_held_out_pictures_are_never_trained_on(load):
    images = np.arange(50, dtype=np.uint8)[:, np.newaxis, np.newaxis] * np.ones((1, 4, 4), np.uint8)

    dataset, _ = load(npz_of(images=images), held_out=0.2)

    train, held_out = (set(part.pictures[:, 0, 0, 0].tolist()) for part in (dataset.train, dataset.held_out))
    assert (len(train), len(held_out), train & held_out) == (40, 10, set())


def test_an_epoch_sees_every_picture_once_in_an_order_of_its_own():
    first, second = epoch_order(seed=7, epoch=0, pictures=100), epoch_order(seed=7, epoch=1, pictures=100)

    assert sorted(first) == sorted(second) == list(range(100))
    assert (first != second).any()
    assert (first == epoch_order(seed=7, epoch=0, pictures=100)).all()
    assert epoch_batches(7, 0, 100, 32).shape == (3, 32)


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (17, 33), (8, 8)])
@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_picture_keeps_its_proportions(shape, fit):
    # A disc in the middle stays as wide as it is high, whatever is cut off or added around it.
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    radius = 0.3 * min(shape)
    disc = (rows - (shape[0] - 1) / 2) ** 2 + (columns - (shape[1] - 1) / 2) ** 2 < radius**2

    fitted = fit_picture((255 * disc[..., np.newaxis]).astype(np.uint8), (48, 48), fit) > 127

    assert fitted.shape == (48, 48, 1)
    assert abs(int(fitted.any(axis=1).sum()) - int(fitted.any(axis=0).sum())) <= 3


def test_crop_takes_the_middle_and_pad_repeats_the_edge():
    picture = np.zeros((4, 8, 1), np.uint8)
    picture[:, :2], picture[:, 6:] = 90, 200

    assert np.unique(fit_picture(picture, (4, 4), "crop")).tolist() == [0]
    padded = fit_picture(picture, (8, 8), "pad")[..., 0]
    assert (padded == picture[0, :, 0]).all()


def test_colour_becomes_grey_by_its_brightness():
    # ITU-R BT.601: 0.299 of red, 0.587 of green, 0.114 of blue.
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8).reshape(3, 1, 1, 3)

    assert with_channels(colors, "grey").ravel().tolist() == [76, 150, 29]
    assert with_channels(colors[:, :, :, :1], "rgb").shape == (3, 1, 1, 3)


def test_cifar_records_hold_red_then_green_then_blue():
    record = bytes([6]) + bytes([10] * 1024) + bytes([20] * 1024) + bytes([30] * 1024)

    frogs = cifar_records(record * 2)

    assert frogs.labels.tolist() == [6, 6]
    assert frogs.pictures.shape == (2, 32, 32, 3)
    assert frogs.pictures[1, 31, 31].tolist() == [10, 20, 30]


def test_a_set_that_is_not_to_be_had_says_where_to_put_it(tmp_path, monkeypatch):
    published = PublishedFile(url=f"{NOBODY}mnist.npz", sha256="0" * 64)
    monkeypatch.setitem(built_in_sets.PUBLISHED, "mnist.npz", published)

    with pytest.raises(DataUnavailable, match=rf"put the file of {NOBODY}mnist.npz at {tmp_path}/mnist.npz"):
        load_built_in("mnist", tmp_path, lambda done, total: None)
    assert not list(tmp_path.glob("*.npz"))


@pytest.fixture
def server(tmp_path: Path):
    """A web server of our own, with a folder to serve."""
    (tmp_path / "served").mkdir()
    handler = lambda *args: QuietHandler(*args, directory=str(tmp_path / "served"))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", tmp_path / "served"
        running.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args) -> None:
        pass


def test_a_set_is_fetched_once_and_kept(tmp_path, server, monkeypatch):
    url, served = server
    content = gzip.compress(b"the published content")
    (served / "set.gz").write_bytes(content)
    sha256 = hashlib.sha256(b"the published content").hexdigest()
    monkeypatch.setitem(
        built_in_sets.PUBLISHED, "set.gz", PublishedFile(url=f"{url}/set.gz", sha256=sha256, unpacked=True)
    )

    told = []
    path = find("set.gz", tmp_path / "kept", lambda done, total: told.append((done, total)))
    (served / "set.gz").unlink()

    assert path.read_bytes() == content
    assert told[-1] == (len(content), len(content))
    assert find("set.gz", tmp_path / "kept", lambda done, total: None) == path


def test_a_set_that_the_operating_system_brought_is_taken_from_there(tmp_path, monkeypatch):
    packaged = tmp_path / "packaged.gz"
    packaged.write_bytes(gzip.compress(b"the published content"))
    sha256 = hashlib.sha256(b"the published content").hexdigest()
    published = PublishedFile(url=NOBODY, sha256=sha256, unpacked=True, packaged=packaged)
    monkeypatch.setitem(built_in_sets.PUBLISHED, "set.gz", published)

    assert find("set.gz", tmp_path / "kept", lambda done, total: None) == packaged


def test_another_file_than_the_published_one_is_not_kept(tmp_path, server, monkeypatch):
    url, served = server
    (served / "set.bin").write_bytes(b"something else")
    monkeypatch.setitem(
        built_in_sets.PUBLISHED, "set.bin", PublishedFile(url=f"{url}/set.bin", sha256="0" * 64)
    )

    with pytest.raises(DataUnavailable, match="arrived with the checksum"):
        find("set.bin", tmp_path / "kept", lambda done, total: None)
    assert not list((tmp_path / "kept").glob("*set*bin"))


def test_a_damaged_file_that_someone_put_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(built_in_sets.PUBLISHED, "set.bin", PublishedFile(url=NOBODY, sha256="0" * 64))
    (tmp_path / "set.bin").write_bytes(b"damaged")

    with pytest.raises(DataUnavailable, match=r"set\.bin is not the published file"):
        find("set.bin", tmp_path, lambda done, total: None)
