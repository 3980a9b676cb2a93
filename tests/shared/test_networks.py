"""What `shared/networks.py` says of each network is what the built network does."""

from functools import lru_cache

import keras
import pytest

from shared.networks import NETWORKS
from tasks.networks.pretrained import build


@lru_cache
def built(network: str) -> keras.Model:
    return build(network)


@lru_cache
def output_shapes(network: str, side_px: int) -> dict[str, tuple[int, ...]]:
    """Every layer's output (batch, height, width, channels) for one square picture."""
    model = built(network)
    outputs = {layer.name: layer.output for layer in model.layers}
    return keras.Model(model.input, outputs).compute_output_shape((1, side_px, side_px, 3))


@pytest.mark.parametrize("side_px", [107, 224, 299, 331])
@pytest.mark.parametrize("network", NETWORKS)
def test_layers_have_the_sides_and_channels_of_the_built_network(network: str, side_px: int) -> None:
    shapes = output_shapes(network, side_px)

    for layer in NETWORKS[network].layers.values():
        side = layer.side(side_px)
        assert tuple(shapes[layer.name]) == (1, side, side, layer.channels)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_layer_loses_a_cell_one_pixel_below_its_least_side(network: str) -> None:
    for layer in NETWORKS[network].layers.values():
        least_px = layer.least_side_px(5)
        assert (layer.side(least_px - 1), layer.side(least_px)) == (4, 5)


# Derived from InceptionV3's architecture: 5 cells (a crop of 2 at either border leaves one), and 1 cell.
@pytest.mark.parametrize(
    ("layer", "cropped_px", "uncropped_px"),
    [("mixed0", 59, 27), ("mixed2", 59, 27), ("mixed3", 107, 43), ("mixed7", 107, 43), ("mixed8", 203, 75)],
)
def test_inception_v3_has_the_least_sides_that_its_architecture_gives(
    layer: str, cropped_px: int, uncropped_px: int
) -> None:
    known = NETWORKS["inception_v3"].layers[layer]

    assert (known.least_side_px(5), known.least_side_px(1)) == (cropped_px, uncropped_px)


@pytest.mark.parametrize("network", NETWORKS)
def test_activations_per_pixel_are_those_of_all_layers_down_to_one(network: str) -> None:
    model, shapes = built(network), output_shapes(network, 1024)

    for layer in NETWORKS[network].layers.values():
        above = keras.Model(model.input, model.get_layer(layer.name).output).layers
        # An activation layer works in place on what comes before it.
        kept = [
            one for one in above if not isinstance(one, keras.layers.InputLayer | keras.layers.Activation)
        ]
        values = sum(shapes[one.name][1] * shapes[one.name][2] * shapes[one.name][3] for one in kept)
        assert layer.bytes_per_pixel == pytest.approx(4 * values / 1024**2, rel=0.01)


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_have_the_size_of_the_built_network(network: str) -> None:
    assert NETWORKS[network].weights_bytes == 4 * built(network).count_params()


@pytest.mark.parametrize("network", NETWORKS)
def test_defaults_and_presets_name_layers_of_their_network_and_creatures_lie_deeper(network: str) -> None:
    known = NETWORKS[network]
    order = list(known.layers)

    geometric, creatures = known.dream.presets["geometric"], known.dream.presets["creatures"]

    assert set(known.dream.layers) | set(geometric) | set(creatures) <= set(order)
    assert max(map(order.index, geometric)) < min(map(order.index, creatures))


def test_layers_in_any_order_and_repeated_come_out_once_in_the_networks_order() -> None:
    assert NETWORKS["squeezenet"].in_order(["fire7", "fire5", "fire7"]) == ("fire5", "fire7")
