"""Every sort of picture that people have, through HTTP: taken and decoded by a job, or refused with the reason."""

import io

import pytest
from PIL import Image

from tests.pictures import ACCEPTED, REFUSED
from workers.run_job import run_job


def upload(client, data: bytes) -> str:
    answer = client.post("/v1/uploads", data=data)
    assert answer.status_code == 201
    return answer.json["id"]


def submit(client, picture: str):
    return client.post("/v1/jobs", json={"kind": "steps", "params": {"steps": 1, "image": picture}})


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_picture_of_every_sort_is_taken_and_comes_out_upright_in_rgb_without_metadata(client, name):
    sample = ACCEPTED[name]
    job = submit(client, upload(client, sample.data)).json
    run_job(job["id"])

    assert client.get(f"/v1/jobs/{job['id']}").json["status"] == "succeeded"
    left = Image.open(io.BytesIO(client.get(f"/v1/jobs/{job['id']}/artifacts/picture.png").data))
    assert (left.format, left.mode, left.size) == ("PNG", "RGB", (sample.width, sample.height))
    assert left.info == {}
    for place, color in sample.colors.items():
        off = max(abs(seen - wanted) for seen, wanted in zip(left.getpixel(place), color, strict=True))
        assert off <= sample.tolerance


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")  # its word on a file cut off
@pytest.mark.parametrize("name", [name for name in REFUSED if REFUSED[name].data])
def test_a_file_that_is_no_whole_picture_is_refused_by_its_field_and_the_next_job_passes(client, name):
    bad = submit(client, upload(client, REFUSED[name].data))
    good = submit(client, upload(client, next(iter(ACCEPTED.values())).data))
    run_job(good.json["id"])

    assert (bad.status_code, bad.json["error"]["code"], bad.json["error"]["field"]) == (
        422,
        "invalid_input",
        "image",
    )
    assert REFUSED[name].because in bad.json["error"]["message"]
    assert client.get("/v1/jobs").json["jobs"][0]["status"] == "succeeded"


def test_an_empty_file_is_refused_as_it_is_uploaded(client):
    answer = client.post("/v1/uploads", data=b"")

    assert (answer.status_code, answer.json["error"]["field"]) == (422, "file")
