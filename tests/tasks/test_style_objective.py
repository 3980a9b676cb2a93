"""Loss and gradient of a picture as one piece, and as tiles."""

from pathlib import Path

import numpy as np
import pytest

from shared.kinds.style_transfer import StyleTransferParams
from shared.networks import NETWORKS
from tasks.networks import pretrained
from tasks.style_functions import functions_for
from tasks.style_objective import build_objective
from tasks.style_tiles import cut
from tasks.style_weights import Weights

A, B, C = "a" * 64, "b" * 64, "c" * 64


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Noise of every coarseness, which no tile can take for another place."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cell in (1, 7, 40):
        coarse = random.normal(0, 30, (-(-height // cell), -(-width // cell), 3))
        image += np.kron(coarse, np.ones((cell, cell, 1)))[:height, :width]
    return (image + 127).astype(np.float32)


def objective(params: StyleTransferParams, shape, *, tile_px, weights_dir, masked=False, jit=False):
    layers, network = (
        params.used_style_layers,
        pretrained.load(params.network, params.used_layers, weights_dir=weights_dir, pooling=params.pooling),
    )
    ramp = np.tile(np.linspace(0, 1, shape[1], dtype=np.float32), (shape[0], 1))
    return build_objective(
        functions_for(network, params.content_layer, layers, params.normalisation, 2, masked),
        content=picture(1, *shape),
        styles=[picture(2, 90, 130), picture(3, 77, 61)],
        masks=[ramp, 1 - ramp] if masked else None,
        weights=Weights(
            content=1.0,
            style=1e3,
            variation=1.0,
            layers=tuple(params.style_layers[name] for name in layers),
            shares=(0.75, 0.25),
        ),
        tile_px=lambda _: tile_px,
        halo_px=params.memory.halo_px,
        jit=jit,
    )


SQUEEZENET = StyleTransferParams(content_image=A, style_images=[B, C], network="squeezenet")
VGG16 = StyleTransferParams(
    content_image=A,
    style_images=[B, C],
    network="vgg16",
    content_layer="block3_conv2",
    style_layers={"block1_conv1": 1, "block2_conv1": 1, "block3_conv1": 2},
)


def assert_same(one, other):
    (losses, gradient), (other_losses, other_gradient) = one, other
    assert tuple(losses) == pytest.approx(tuple(other_losses), rel=1e-5)
    assert np.abs(gradient - other_gradient).max() < 1e-5 * np.abs(gradient).max()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(99, 134), (134, 99)])
def test_tiles_give_the_loss_and_gradient_of_the_whole_picture(settings, shape, masked):
    """SqueezeNet's strided convolution and unpadded pooling lie differently on odd sides than on even ones."""
    painted = picture(9, *shape)
    whole = objective(SQUEEZENET, shape, tile_px=None, weights_dir=settings.weights_dir, masked=masked)
    tiled = objective(SQUEEZENET, shape, tile_px=48, weights_dir=settings.weights_dir, masked=masked)

    assert len(tiled.tiles) == 9
    assert_same(whole(painted), tiled(painted))


def test_tiles_give_the_loss_and_gradient_of_the_whole_picture_with_vgg16(vgg16_weights_dir: Path):
    shape = (75, 106)
    painted = picture(9, *shape)
    whole = objective(VGG16, shape, tile_px=None, weights_dir=vgg16_weights_dir)
    tiled = objective(VGG16, shape, tile_px=32, weights_dir=vgg16_weights_dir)

    assert len(tiled.tiles) == 12
    assert_same(whole(painted), tiled(painted))


def test_xla_gives_the_loss_and_gradient_of_the_plain_function(settings):
    shape = (64, 97)
    painted = picture(9, *shape)
    plain = objective(SQUEEZENET, shape, tile_px=None, weights_dir=settings.weights_dir)
    compiled = objective(SQUEEZENET, shape, tile_px=None, weights_dir=settings.weights_dir, jit=True)

    assert_same(plain(painted), compiled(painted))


@pytest.mark.parametrize("normalisation", ["book", "gatys"])
def test_the_gradient_is_that_of_the_loss(settings, normalisation):
    """Against the difference of two losses along a random direction, where the terms add up."""
    params = SQUEEZENET.model_copy(update={"normalisation": normalisation})
    shape = (64, 96)
    of = objective(params, shape, tile_px=None, weights_dir=settings.weights_dir)
    painted = picture(9, *shape)
    _, gradient = of(painted)
    direction = gradient / np.linalg.norm(gradient)

    ahead, behind = of(painted + 2 * direction)[0].total, of(painted - 2 * direction)[0].total

    assert (ahead - behind) / 4 == pytest.approx(np.linalg.norm(gradient), rel=0.02)


def test_a_mask_for_all_is_no_mask(settings):
    shape = (64, 96)
    painted = picture(9, *shape)
    plain = objective(SQUEEZENET, shape, tile_px=None, weights_dir=settings.weights_dir)
    masked = objective(SQUEEZENET, shape, tile_px=None, weights_dir=settings.weights_dir, masked=True)
    everywhere = [np.ones_like(mask) for mask in masked.fixed.masks]
    fixed = masked.fixed._replace(
        masks=everywhere,
        counted=np.repeat(plain.fixed.counted, 2, axis=1),
        style_weights=plain.fixed.style_weights,
    )

    losses, gradient = masked.functions.whole(painted, fixed)

    assert_same((tuple(losses.numpy()), gradient.numpy()), plain(painted))


@pytest.mark.parametrize("params", [SQUEEZENET, VGG16])
@pytest.mark.parametrize("length", [64, 97, 150, 301])
def test_tiles_share_every_feature_out_once(params, length):
    layers = [NETWORKS[params.network].layers[name] for name in params.used_layers]
    tiles = cut((length, 64), side_px=32, halo_px=params.memory.halo_px)

    for layer in layers:
        owned = [cell for tile in tiles if tile.columns.owned.start == 0 for cell in _cells(tile.rows, layer)]
        assert owned == list(range(layer.side(length)))


def _cells(span, layer):
    cells = span.features(layer)
    return range(cells.start, cells.stop)
