"""What users send by mistake or in malice: refused by name, or trained on with what can be made of it."""

import struct

import pytest

from shared.errors import InvalidInput
from shared.job import JobStatus
from tests.archives import blobs, folder_of, npz_of, png, zip_of


def test_pictures_of_one_pixel_are_trained_on(queue, run):
    pixels = blobs(10)[:, 6:7, 6:7]

    gan = run(
        "gan_train",
        dataset=queue.upload(zip_of(folder_of(pixels))).id,
        steps=1,
        base_channels=4,
        kid_pictures=0,
    )
    vae = run("vae_train", dataset=queue.upload(npz_of(images=pixels)).id, epochs=1)

    assert (gan.status, vae.status) == (JobStatus.SUCCEEDED, JobStatus.SUCCEEDED)


def test_one_folder_leaves_no_concept(queue, run):
    cats = queue.upload(zip_of(folder_of(blobs(4), "cats/"))).id
    model = run("vae_train", dataset=cats, epochs=1, image_size=8)
    concept = {
        "mode": "concept",
        "pictures": [queue.upload(png(blobs(1)[0])).id],
        "positive_labels": ["cats"],
    }

    with pytest.raises(InvalidInput, match="no labels at all") as refused:
        queue.submit("vae_sample", {"model_job": model.id, **concept})
    assert refused.value.field == "positive_labels"


@pytest.mark.parametrize("kind", ["vae_train", "gan_train"])
def test_one_picture_is_refused_with_the_least_number(queue, kind):
    for archive in (zip_of(folder_of(blobs(1))), npz_of(images=blobs(1))):
        with pytest.raises(InvalidInput, match="at least 2") as refused:
            queue.submit(kind, {"dataset": queue.upload(archive).id})
        assert refused.value.field == "dataset"


@pytest.mark.parametrize(
    "header",
    [
        b"-" * 60_000 + b"1",
        b"-" * 1_000 + b"1",
        b"(" * 60_000,
        b"[" * 5_000 + b"]" * 5_000,
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"9" * 5_000 + b",)}",
        b"{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (2, 4, 4)}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 4, 4)}",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': (2, -4, 4)}",
        b"{'descr': '|u1', 'fortran_order': False, 'shape': 7}",
        b"7",
    ],
    ids=lambda header: header[:20].decode() + "...",
)
def test_a_header_made_to_break_its_reader_is_refused(client, queue, header):
    array = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header
    upload = queue.upload(zip_of({"images.npy": array})).id

    answer = client.post("/v1/jobs", json={"kind": "vae_train", "params": {"dataset": upload}})

    assert (answer.status_code, answer.get_json()["error"]["field"]) == (422, "dataset")
