"""What a DeepDream job may ask for, and what is refused when it is submitted."""

import io
from typing import Any

import pytest
from PIL import Image

from shared.errors import InvalidInput
from shared.inputs import SubmitInputs
from shared.kinds.deepdream import DeepDreamParams, fitted, least_side_px, octave_shapes
from shared.queue import Queue
from shared.validation import ParamsInvalid

ANY_PICTURE = "0" * 64


def picture(queue: Queue, width: int, height: int) -> str:
    """The id of an uploaded picture of this size."""
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return queue.upload(file.getvalue()).id


def refusal(queue: Queue, **params: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        DeepDreamParams(**params).check(SubmitInputs(queue))
    return refused.value


def test_left_out_parameters_are_the_books_for_inception_v3() -> None:
    params = DeepDreamParams(image=ANY_PICTURE)

    # Chollet, "Deep Learning with Python" (2017), listings 8.9 and 8.12.
    assert params.network == "inception_v3"
    assert params.layers == {"mixed2": 0.2, "mixed3": 3.0, "mixed4": 2.0, "mixed5": 1.5}
    assert (params.octaves, params.octave_scale, params.iterations, params.step) == (3, 1.4, 20, 0.01)
    assert (params.max_loss, params.jitter_px) == (10.0, 0)


@pytest.mark.parametrize("network", ["vgg16", "vgg19", "squeezenet"])
def test_other_networks_have_defaults_of_their_own_and_no_max_loss(network: str) -> None:
    params = DeepDreamParams(image=ANY_PICTURE, network=network)

    assert params.max_loss is None
    assert params.dreaming_layers


def test_max_loss_can_be_switched_off_and_is_off_towards_a_guide() -> None:
    assert DeepDreamParams(image=ANY_PICTURE, max_loss=None).max_loss is None
    assert DeepDreamParams(image=ANY_PICTURE, guide_image=ANY_PICTURE).max_loss is None


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("creatures", {"fire7": 1.0, "fire9": 1.0}),
        ("fire5=2, fire7=0.5", {"fire5": 2.0, "fire7": 0.5}),
        ({"fire7": 1}, {"fire7": 1.0}),
        (None, {"fire5": 1.0, "fire7": 1.0}),
    ],
)
def test_layers_are_a_preset_or_a_map_or_what_one_types_at_a_terminal(
    given: Any, meant: dict[str, float]
) -> None:
    params = DeepDreamParams(image=ANY_PICTURE, network="squeezenet", layers=given)

    assert params.layers == meant
    assert DeepDreamParams.model_validate(params.model_dump(mode="json")) == params


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("octaves", 0),
        ("octaves", 50),
        ("octave_scale", 1.0),
        ("octave_scale", 0.5),
        ("octave_scale", 0),
        ("iterations", 0),
        ("step", 0),
        ("step", float("nan")),
        ("max_loss", 0),
        ("jitter_px", -1),
        ("tile_px", -1),
        ("max_side_px", 0),
        ("network", "resnet"),
        ("image", "../etc/passwd"),
        ("layers", {}),
        ("layers", {"mixed11": 1}),
        ("layers", {"mixed4": 0}),
        ("layers", {"mixed4": -1}),
        ("layers", "sublime"),
        ("layers", "mixed4=much"),
        ("layers", 3),
        ("octavs", 2),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ParamsInvalid) as refused:
        DeepDreamParams.model_validate({"image": ANY_PICTURE, field: value})

    assert str(refused.value.field).partition(".")[0] == field


def test_an_unknown_layer_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ParamsInvalid, match=r"inception_v3 has no layer 'mixed11'; it has mixed0, .*mixed10"):
        DeepDreamParams(image=ANY_PICTURE, layers={"mixed11": 1})


def test_octaves_of_a_768x1024_picture_have_the_shapes_of_the_book() -> None:
    # int(side / 1.4 ** n): 768/1.96 = 391.8, 1024/1.96 = 522.4; 768/1.4 = 548.6, 1024/1.4 = 731.4.
    assert octave_shapes((768, 1024), 3, 1.4) == [(391, 522), (548, 731), (768, 1024)]


# The shortest side of which int(side / 1.4 ** (octaves - 1)) is at least InceptionV3's 59, 107, 203 px.
@pytest.mark.parametrize(
    ("smallest_px", "sides"),
    [(59, [59, 83, 116, 162, 227]), (107, [107, 150, 210, 294, 412]), (203, [203, 285, 398, 558, 780])],
)
def test_least_sides_for_one_to_five_octaves(smallest_px: int, sides: list[int]) -> None:
    assert [least_side_px(smallest_px, octaves, 1.4) for octaves in range(1, 6)] == sides


@pytest.mark.parametrize(
    ("layers", "octaves", "least_px"),
    [(None, 3, 210), ("mixed2=1", 1, 59), ("mixed2=1", 3, 116), ("mixed8=1", 2, 285)],
)
def test_a_picture_one_pixel_too_small_for_layers_and_octaves_is_refused_with_the_number_that_works(
    queue: Queue, layers: str | None, octaves: int, least_px: int
) -> None:
    too_small = picture(queue, 800, least_px - 1)
    just_enough = picture(queue, least_px, 800)

    error = refusal(queue, image=too_small, layers=layers, octaves=octaves)

    assert error.field == "image"
    assert f"need {least_px} px" in error.message
    DeepDreamParams(image=just_enough, layers=layers, octaves=octaves).check(SubmitInputs(queue))


def test_a_refusal_for_size_says_how_many_octaves_would_work(queue: Queue) -> None:
    assert "take 2 octaves" in refusal(queue, image=picture(queue, 300, 209)).message
    assert "name lower layers" in refusal(queue, image=picture(queue, 75, 75)).message


def test_a_picture_shrunk_too_far_is_refused_for_the_limit_that_shrank_it(queue: Queue) -> None:
    assert refusal(queue, image=picture(queue, 800, 600), max_side_px=200).field == "max_side_px"


def test_tiles_and_guides_too_small_for_the_layers_are_refused(queue: Queue) -> None:
    image = picture(queue, 640, 480)

    assert refusal(queue, image=image, tile_px=100).field == "tile_px"
    # Shrunk to 400 px along the longer side, 27 px are left of the shorter one; mixed5 needs 43.
    assert refusal(queue, image=image, guide_image=picture(queue, 1500, 100)).field == "guide_image"
    DeepDreamParams(image=image, tile_px=107, guide_image=picture(queue, 43, 43)).check(SubmitInputs(queue))


def test_an_upload_that_is_not_there_is_refused_by_its_field(queue: Queue) -> None:
    assert refusal(queue, image=ANY_PICTURE).field == "image"
    image = picture(queue, 300, 300)
    assert refusal(queue, image=image, guide_image=ANY_PICTURE).field == "guide_image"


def with_a_worker_of(queue: Queue, memory_bytes: int) -> None:
    queue.registry.announce("worker@here", {"memory_bytes": memory_bytes}, ttl_ms=60_000)


def test_a_job_that_no_worker_has_the_memory_for_is_refused_with_what_would_fit(queue: Queue) -> None:
    with_a_worker_of(queue, 1200 * 2**20)
    image = picture(queue, 800, 800)

    error = refusal(queue, image=image)

    assert error.field == "tile_px"
    tile_px = int(error.message.partition("; tile_px ")[2].split()[0])
    DeepDreamParams(image=image, tile_px=tile_px).check(SubmitInputs(queue))


def test_a_picture_that_is_too_large_even_in_tiles_is_refused_with_the_size_that_would_fit(
    queue: Queue,
) -> None:
    with_a_worker_of(queue, 1100 * 2**20)
    image = picture(queue, 4000, 3000)

    error = refusal(queue, image=image, network="squeezenet")

    assert error.field == "image"
    side_px = int(error.message.partition("max_side_px ")[2].split()[0])
    DeepDreamParams(image=image, network="squeezenet", max_side_px=side_px).check(SubmitInputs(queue))


def test_memory_grows_with_the_picture_only_by_the_picture_once_it_runs_in_tiles(queue: Queue) -> None:
    inputs = SubmitInputs(queue)
    small, large = picture(queue, 1000, 750), picture(queue, 4000, 3000)

    forecasts = [DeepDreamParams(image=image, tile_px=512).forecast_bytes(inputs) for image in (small, large)]

    pictures_bytes = 6 * 3 * 4 * (4000 * 3000 - 1000 * 750)  # six float32 pictures
    assert forecasts[1] - forecasts[0] == pictures_bytes


@pytest.mark.parametrize(
    ("shape", "max_side_px", "expected"),
    [
        ((427, 640), 320, (214, 320)),
        ((427, 640), None, (427, 640)),
        ((427, 640), 640, (427, 640)),
        ((30, 20), 400, (30, 20)),
    ],
)
def test_pictures_are_shrunk_to_a_longest_side_and_never_enlarged(
    shape: tuple[int, int], max_side_px: int | None, expected: tuple[int, int]
) -> None:
    assert fitted(shape, max_side_px) == expected
