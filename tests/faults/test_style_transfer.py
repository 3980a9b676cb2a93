"""Style transfer as its users meet it: over HTTP to a real worker, with good pictures, odd ones and bad ones."""

import csv
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from werkzeug.serving import make_server

from api.app import create_app
from api.client import ApiError, Client
from tests.faults.fleet import Fleet
from tests.pictures import saved, turned

SMALL = {"network": "squeezenet", "size_px": 96, "scales": 1, "iterations": 2, "seed": 1}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The client of an API in front of one worker, in whose one process all the jobs of this file follow each other."""
    with Fleet(tmp_path_factory.mktemp("painters"), queues="style_transfer") as fleet:
        server = make_server("127.0.0.1", 0, create_app(fleet.settings), threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        fleet.start()
        yield Client(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def paint(client: Client, chelsea: Path, china: Path) -> Callable[..., dict[str, Any]]:
    """Paint the cat in the style of the temple, unless told otherwise, and wait for the end."""

    def submit_and_wait(**params: Any) -> dict[str, Any]:
        pictures = {"content_image": client.upload(chelsea), "style_images": [client.upload(china)]}
        return client.wait(client.submit("style_transfer", pictures | SMALL | params)["id"])

    return submit_and_wait


@pytest.fixture
def files(client: Client, tmp_path: Path) -> Callable[[dict[str, Any]], dict[str, bytes]]:
    """A job's files by name, as they are downloaded."""

    def download(job: dict[str, Any]) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in client.download(job["id"], tmp_path)}

    return download


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def test_a_small_painting_comes_back_with_its_history_and_why_it_ended(paint, files):
    job = paint(scales=2)

    assert job["status"] == "succeeded", job
    left = files(job)
    assert opened(left["result.png"]).shape == (64, 96, 3)
    rows = list(csv.reader(io.StringIO(left["history.csv"].decode())))
    assert rows[0] == ["iteration", "evaluations", "content", "style", "variation", "total"]
    assert [row[0] for row in rows[1:]] == [*"123456"]  # 4 at the coarse size, 2 at the fine one
    assert float(rows[-1][-1]) < float(rows[1][-1])
    assert job["summary"]["ended_by"] == "iterations"
    assert "ITERATIONS" in job["summary"]["message"].upper()
    assert job["summary"]["iterations"] == 6
    assert job["summary"]["evaluations"] >= 6


def photo(mode: str, size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Two slopes and some noise in the channels of a mode."""
    height, width = size[1], size[0]
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    noise = np.random.default_rng(0).uniform(0, 255, (height, width))
    rgb = np.stack([across, down, noise], axis=-1).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


def odd_pictures() -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Each with the shape that its painting must have, at 96 px."""
    transparent = photo("RGB").copy()
    transparent.putalpha(Image.linear_gradient("L").resize((60, 40)))
    deep = Image.fromarray((np.asarray(photo("L"), np.uint16) * 256).astype(np.uint16))
    stored, orientation = turned(6)
    frames = [photo("P"), Image.new("P", (60, 40))]
    return {
        "CMYK JPEG": (saved(photo("CMYK"), "JPEG"), (64, 96)),
        "strip": (saved(photo("RGB", (480, 160)), "PNG"), (32, 96)),
        "transparent PNG": (saved(transparent, "PNG"), (64, 96)),
        "turned JPEG": (saved(stored, "JPEG", exif=orientation), (48, 96)),
        "16-bit PNG": (saved(deep, "PNG"), (64, 96)),
        "animated GIF": (saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), (64, 96)),
    }


@pytest.mark.parametrize(
    ("content", "style"),
    [("turned JPEG", "CMYK JPEG"), ("strip", "16-bit PNG"), ("transparent PNG", "animated GIF")],
)
def test_pictures_of_any_sort_are_taken_and_the_result_is_upright(client, paint, files, content, style):
    (content_data, shape), (style_data, _) = odd_pictures()[content], odd_pictures()[style]

    job = paint(content_image=client.upload(content_data), style_images=[client.upload(style_data)])

    assert job["status"] == "succeeded", job
    painted = opened(files(job)["result.png"])
    assert painted.shape == (*shape, 3)
    assert painted.std() > 10  # neither black nor flat


def test_eight_styles_an_odd_start_and_masks_of_another_size_are_all_taken(client, paint, files, china):
    style, mask = client.upload(china), client.upload(saved(Image.new("L", (7, 300), 255), "PNG"))
    start = client.upload(saved(photo("RGB", (40, 200)), "PNG"))  # upright, before a content across

    job = paint(style_images=[style] * 8, masks=[mask] * 8, init_image=start, style_layers=["fire2"])

    assert job["status"] == "succeeded", job
    assert opened(files(job)["result.png"]).shape == (64, 96, 3)


def test_after_each_bad_job_the_same_worker_does_the_next_one(client, paint, files):
    black = client.upload(saved(Image.new("I", (9, 9), -5), "TIFF"))  # seen only when it is decoded for good
    for bad, code in (({"masks": [black]}, "invalid_input"), ({"style_weight": 1e38}, "diverged")):
        ended = paint(**bad)
        assert (ended["status"], ended["error"]["code"]) == ("failed", code)
        assert "result.png" not in files(ended)
        following = paint()
        assert following["status"] == "succeeded"
        assert following["worker"] == ended["worker"]


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({"size_px": 20_001}, "size_px", "20000"),
        ({"size_px": 20_000}, "size_px", "would fit"),
        ({"style_layers": {"fire99": 1}}, "style_layers", "it has conv1, fire2"),
        ({"style_layers": ["fire2", "fire2"]}, "style_layers", "named twice"),
        ({"style_layers": {"fire2": 0}}, "style_layers", "a weight above 0"),
        ({"style_weights": [0]}, "style_weights", "a weight above 0"),
        ({"content_weight": -1}, "content_weight", "greater than or equal to 0"),
        ({"masks": ["a" * 64] * 2}, "masks", "one mask per style image"),
        ({"style_images": ["a" * 64] * 9}, "style_images", "at most 8"),
    ],
)
def test_what_cannot_work_is_refused_at_once_with_the_field_and_a_way_out(paint, params, field, says):
    with pytest.raises(ApiError, match=says) as refused:
        paint(**params)

    assert refused.value.status == 422
    assert (refused.value.field or "").split(".")[0] == field


def test_a_picture_of_one_pixel_cannot_be_painted_but_can_be_enlarged(client, paint, files):
    """SqueezeNet sees nothing at fire6 of a picture below 29 px."""
    pixel = client.upload(saved(Image.new("RGB", (1, 1), "teal"), "PNG"))
    with pytest.raises(ApiError, match="take at least size_px 32") as refused:
        paint(content_image=pixel, size_px=None)
    assert refused.value.status == 422

    job = paint(content_image=pixel)

    assert job["status"] == "succeeded", job
    assert opened(files(job)["result.png"]).shape == (96, 96, 3)
