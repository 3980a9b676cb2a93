"""What a style transfer may ask for, what is refused when it is submitted, and what it will need."""

import pytest
from PIL import Image

from shared.errors import InvalidInput
from shared.kinds.style_memory import Uploads
from shared.kinds.style_transfer import StyleTransferParams
from shared.networks import NETWORKS
from tests.pictures import saved

ANY = "a" * 64


@pytest.fixture
def upload(queue):
    """Upload a picture of one colour."""

    def upload_colour(colour: str, size=(96, 64)) -> str:
        return queue.upload(saved(Image.new("RGB", size, colour), "PNG")).id

    return upload_colour


@pytest.fixture
def submit(queue, upload):
    """Submit a small job: SqueezeNet, 96 px, unless told otherwise."""

    def submit_small(**params):
        small = {"network": "squeezenet", "size_px": 96, "scales": 1, "iterations": 4}
        pictures = {"content_image": upload("red"), "style_images": [upload("blue")]}
        return queue.submit("style_transfer", pictures | small | params)

    return submit_small


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"style_layers": {"block6_conv1": 1}}, "style_layers"),
        ({"style_layers": ["fire2", "fire4", "fire2"]}, "style_layers"),
        ({"style_layers": {}}, "style_layers"),
        ({"style_layers": {"fire2": -1}}, "style_layers"),
        ({"content_layer": "fyre5"}, "content_layer"),
        ({"style_weight": -1}, "style_weight"),
        ({"content_weight": float("nan")}, "content_weight"),
        ({"style_weights": [1, 2]}, "style_weights"),
        ({"style_weights": [0]}, "style_weights"),
        ({"style_images": []}, "style_images"),
        ({"iterations": 0}, "iterations"),
        ({"scales": 3}, "scales"),
        ({"size_px": 35}, "size_px"),
        ({"network": "inception_v3"}, "network"),
        ({"init": "image"}, "init_image"),
        ({"content_wieght": 1}, "content_wieght"),
        ({"style_weight": 0, "content_weight": 0, "tv_weight": 0}, "style_weight"),
    ],
)
def test_what_cannot_work_is_refused_by_name(submit, params, field):
    with pytest.raises(InvalidInput) as refused:
        submit(**params)

    assert refused.value.field.split(".")[0] == field


def test_a_misspelt_layer_is_told_with_those_that_there_are(submit):
    with pytest.raises(InvalidInput, match="no layer 'fyre2'; it has conv1, fire2"):
        submit(style_layers={"fyre2": 1})


def test_masks_and_an_init_image_are_never_ignored(submit, upload):
    picture = upload("white")
    with pytest.raises(InvalidInput, match="one mask per style image: 1, not 2"):
        submit(masks=[picture, picture])
    with pytest.raises(InvalidInput, match="init is 'random'"):
        submit(init="random", init_image=picture)


def test_a_mask_that_leaves_nothing_to_paint_is_refused(submit, upload):
    with pytest.raises(InvalidInput, match="masks: number 1 is black") as refused:
        submit(masks=[upload("black")])

    assert refused.value.field == "masks"


def test_a_job_larger_than_any_worker_is_refused_with_what_would_fit(queue, upload):
    queue.registry.announce("w@h", {"memory_bytes": 3 * 2**30, "queues": []}, ttl_ms=60_000)
    params = {
        "content_image": upload("red", (451, 300)),
        "style_images": [upload("blue", (640, 427))],
        "network": "vgg16",
    }

    with pytest.raises(InvalidInput, match=r"has 3\.0 GiB; tile_px (\d+) would fit") as refused:
        queue.submit("style_transfer", params | {"size_px": 800})
    with pytest.raises(InvalidInput, match=r"size_px (\d+) would fit") as too_large:
        queue.submit("style_transfer", params | {"size_px": 4000})

    assert refused.value.field == "tile_px"
    tile_px = int(refused.value.message.split("tile_px")[2].split()[0])
    assert queue.submit("style_transfer", params | {"size_px": 800, "tile_px": tile_px})
    size_px = int(too_large.value.message.split("size_px")[2].split()[0])
    assert queue.submit("style_transfer", params | {"size_px": size_px})
    with pytest.raises(InvalidInput):
        queue.submit("style_transfer", params | {"size_px": size_px + 64})


@pytest.mark.parametrize(
    ("size", "network", "scales"),
    [
        ((8, 8), "squeezenet", 1),
        ((12, 12), "vgg19", 0),
        ((40, 3), "vgg19", 0),
        ((1, 900), "vgg19", 0),
        ((5, 6), "vgg16", 3),
    ],
)
def test_a_size_that_is_too_small_is_refused_with_one_that_works(queue, upload, size, network, scales):
    params = {
        "content_image": upload("red", size),
        "style_images": [upload("blue")],
        "network": network,
        "scales": scales,
    }

    with pytest.raises(InvalidInput, match=r"take at least size_px (\d+)") as refused:
        queue.submit("style_transfer", params)

    size_px = int(refused.value.message.rsplit(" ", 1)[1])
    assert 32 <= size_px <= 20_000
    assert queue.submit("style_transfer", params | {"size_px": size_px})
    if size_px > 32:
        with pytest.raises(InvalidInput):  # and it is the least
            queue.submit("style_transfer", params | {"size_px": size_px - 1})


@pytest.mark.parametrize("field", ["content_image", "style_images"])
def test_a_picture_too_narrow_for_any_size_is_refused_with_how_to_crop_it(queue, upload, field):
    """block5 sees 16 px at once: a strip of 1 x 2000 px would have to be 32,000 px long."""
    strip, photo = upload("red", (2000, 1)), upload("blue")
    params = {"content_image": photo, "style_images": [photo, photo], "network": "vgg16"}
    params[field] = strip if field == "content_image" else [photo, strip]

    with pytest.raises(InvalidInput, match="crop it to at most 1250 times as long as it is wide") as refused:
        queue.submit("style_transfer", params)

    assert refused.value.field == field


def test_a_style_scale_beyond_the_largest_picture_is_refused_with_one_that_works(queue, upload):
    params = {
        "content_image": upload("red"),
        "style_images": [upload("blue")],
        "network": "squeezenet",
        "size_px": 8000,
    }

    with pytest.raises(InvalidInput, match=r"style_scale: .* take at most 2\.5"):
        queue.submit("style_transfer", params | {"style_scale": 4})

    assert queue.submit("style_transfer", params | {"style_scale": 2.5})


def test_the_memory_forecast_counts_the_style_images(queue, upload):
    queue.registry.announce("w@h", {"memory_bytes": 7 * 2**29, "queues": []}, ttl_ms=60_000)
    params = {"content_image": upload("red"), "style_images": [upload("blue")] * 8, "network": "squeezenet"}

    # 8 styles of 4096 x 2731 px, 12 bytes a pixel, twice: 2.1 GB.
    with pytest.raises(InvalidInput, match=r"this job needs .* size_px (\d+) would fit") as refused:
        queue.submit("style_transfer", params | {"size_px": 1024, "style_scale": 4})

    size_px = int(refused.value.message.split("size_px")[2].split()[0])
    assert queue.submit("style_transfer", params | {"size_px": size_px, "style_scale": 4})
    assert queue.submit("style_transfer", params | {"size_px": 1024, "style_scale": 1, "tile_px": 256})


def test_parameters_read_again_from_a_record_are_the_same():
    picture = "a" * 64
    params = StyleTransferParams(content_image=picture, style_images=[picture], init_image=picture)

    assert StyleTransferParams.model_validate(params.model_dump(mode="json")) == params


def test_layers_may_be_typed_at_a_terminal():
    params = StyleTransferParams(
        content_image="a" * 64, style_images=["a" * 64], style_layers="block1_conv1=2, block3_conv1"
    )

    assert params.style_layers == {"block1_conv1": 2.0, "block3_conv1": 1.0}


def test_three_to_one_is_three_quarters_and_one():
    params = StyleTransferParams(content_image="a" * 64, style_images=["a" * 64] * 2, style_weights=[3, 1])

    assert params.style_shares == [0.75, 0.25]


def test_the_sizes_halve_as_long_as_the_network_sees_enough():
    params = StyleTransferParams(content_image="a" * 64, style_images=["a" * 64])

    assert params.sizes.result_shape((3000, 4000)) == (384, 512)
    assert params.sizes.result_shape((300, 200)) == (300, 200)
    assert params.sizes.scale_shapes((384, 512)) == [(48, 64), (96, 128), (192, 256), (384, 512)]
    # A panorama's short side must leave a cell of block5: 16 px.
    assert params.sizes.scale_shapes((80, 640)) == [(20, 160), (40, 320), (80, 640)]
    assert params.scale_iterations(3) == [240, 120, 60]


@pytest.mark.parametrize(
    ("params", "counts"),
    [({"style_weight": 1e-45}, "style_weight"), ({"style_layers": {"fire2": 1e-300}}, "style_layers")],
)
def test_a_weight_that_is_nothing_in_float32_is_refused(submit, params, counts):
    """Nothing would be painted, and the job would have succeeded."""
    with pytest.raises(InvalidInput, match="must be 0, or at least 1e-12") as refused:
        submit(**params)

    assert str(refused.value.field).partition(".")[0] == counts


def test_very_many_names_are_refused_soon(submit):
    """Each name is compared with a set, not with all others: 100,000 of them are 10^10 comparisons otherwise."""
    with pytest.raises(InvalidInput, match="has no layer"):
        submit(style_layers=[f"layer{number}" for number in range(100_000)])


def test_masks_count_in_the_memory_forecast(queue, upload):
    """Each style layer's features times each mask, and their gradient, beside the network's own. conv1, fire2, fire4
    and fire6 have 64, 128, 256 and 384 channels at strides 2, 4, 8 and 16: 118 bytes of float32 a pixel for a mask."""
    per_pixel = 4 * (64 / 4 + 128 / 16 + 256 / 64 + 384 / 256)
    pixels = 768 * 512
    params = StyleTransferParams(content_image=ANY, style_images=[ANY] * 8, network="squeezenet", size_px=768)
    masked = params.model_copy(update={"masks": [ANY] * 8})
    uploads = Uploads(content=(512, 768), styles=[(512, 768)] * 8, others=[])

    plain, more = (of.forecast_of(uploads) for of in (params, masked))

    assert per_pixel == 118
    assert more - plain == pytest.approx(2 * 8 * per_pixel * pixels)


def test_masks_count_where_it_is_decided_whether_a_picture_is_worked_on_in_tiles():
    params = StyleTransferParams(content_image=ANY, style_images=[ANY] * 8, network="vgg16")
    masked = params.model_copy(update={"masks": [ANY] * 8})

    assert params.memory.tile_side_px((600, 900)) is None
    assert masked.memory.tile_side_px((600, 900)) is not None


@pytest.mark.parametrize("shape", [(64, 96), (341, 512), (384, 512), (512, 512), (768, 1024), (3000, 4000)])
def test_no_picture_costs_lbfgs_its_memory_every_few_iterations(shape):
    """Every 14 iterations it ended 13% above, every 5 42% above a run of 60 (SqueezeNet, 96 px)."""
    memory = StyleTransferParams(content_image=ANY, style_images=[ANY]).memory

    assert memory.run_iterations(shape, planned=60) == 60
    assert memory.run_iterations(shape, planned=10_000) >= 60
    # What a job makes by default resumes exactly: the gradients of 60 iterations, 12 bytes a pixel, in 256 MiB.
    assert memory.keeps_trace(shape) == (60 * 12 * shape[0] * shape[1] <= 2**28)
    assert memory.keeps_trace(shape) == (max(shape) <= 512)


def test_a_style_image_has_the_scale_that_was_asked_for():
    sizes = StyleTransferParams(content_image=ANY, style_images=[ANY], style_scale=0.5).sizes

    assert sizes.style_shape((1000, 1500), (384, 512)) == (171, 256)  # half of 512, 2:3


@pytest.mark.parametrize("network", ["vgg19", "squeezenet"])
def test_a_style_image_is_never_so_small_that_the_network_sees_a_few_cells_of_it(network):
    """At 0.1 of 512 px a style image would have 3 x 2 cells of VGG's block5: a Gram matrix of six positions."""
    params = StyleTransferParams(content_image=ANY, style_images=[ANY], network=network, style_scale=0.1)
    layer = NETWORKS[network].layers[params.used_layers[-1]]

    height, width = params.sizes.style_shape((400, 600), (384, 512))

    assert layer.side(height) * layer.side(width) >= 25
    assert layer.side(height - 16) * layer.side(width - 16) < 25  # and no larger than that needs
    # Beside a painting that has few itself, half as many will do.
    small = params.sizes.style_shape((400, 600), (64, 96))
    assert layer.side(small[0]) * layer.side(small[1]) >= layer.side(64) * layer.side(96) // 2
