"""The pretrained networks hold real ImageNet weights, wherever these come from; proven by what the networks see."""

import hashlib
import http.server
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from shared.errors import JobCancelled, WeightsUnavailable
from shared.networks import NETWORKS
from tasks import download
from tasks.networks import pretrained, weights
from tasks.networks.pooling import BinomialPooling, BlockMaxPooling
from tasks.networks.pretrained import deprocess, load, preprocess
from tasks.networks.squeezenet import build_squeezenet, packaged_weights, set_packaged_weights


def photo(path: Path, side_px: int) -> np.ndarray:
    """A photo as a batch of one square picture in 0..255."""
    return np.asarray(Image.open(path).convert("RGB").resize((side_px, side_px)), np.float32)[None]


# What the networks see


# ImageNet classes: 281 tabby, 282 tiger cat, 285 Egyptian cat, 832 stupa, 967 espresso.
def test_squeezenet_sees_a_cat_a_stupa_and_an_espresso(chelsea: Path, china: Path, tmp_path: Path) -> None:
    network = load("squeezenet", ["conv10"], weights_dir=tmp_path)

    def classes(path: Path) -> np.ndarray:
        maps = network.activations(photo(path, 227))["conv10"]
        return keras.ops.convert_to_numpy(keras.ops.softmax(keras.ops.mean(maps, axis=(1, 2))))[0]

    cat, temple, coffee = classes(chelsea), classes(china), classes(chelsea.with_name("coffee.png"))
    assert set(np.argsort(cat)[-3:]) == {281, 282, 285}
    assert cat.argmax() == 285
    assert cat[[281, 282, 285]].sum() > 0.98
    assert temple.argmax() == 832
    assert coffee[967] > 0.95


# Published values of the ImageNet weights (kernel[row, column, in, out] or bias[out]); bias[0] stands for all layers.
PUBLISHED_KERNELS = {
    ("block1_conv1", (0, 0, 0, 0)): 0.42947057,
    ("block1_conv2", (2, 2, 63, 63)): 0.016082443,
    ("block5_conv1", (1, 0, 63, 269)): -0.011236359,
    ("block5_conv3", (0, 2, 0, 400)): -0.008714244,
}
PUBLISHED_BIASES = {
    ("block1_conv1", 25): 0.7446502,
    ("block2_conv1", 1): 0.06440781,
    ("block5_conv2", 510): 0.23517226,
}


def test_vgg16_has_the_published_values(vgg16_weights_dir: Path) -> None:
    model = load("vgg16", ["block5_conv3"], weights_dir=vgg16_weights_dir).model

    for (layer, place), value in PUBLISHED_KERNELS.items():
        assert keras.ops.convert_to_numpy(model.get_layer(layer).kernel)[place] == pytest.approx(
            value, rel=1e-6
        )
    for (layer, channel), value in PUBLISHED_BIASES.items():
        assert keras.ops.convert_to_numpy(model.get_layer(layer).bias)[channel] == pytest.approx(
            value, rel=1e-6
        )


def channel_means_cosine(network: pretrained.PretrainedNetwork, one: Path, other: Path) -> float:
    layer = network.layers[-1]
    a, b = (np.mean(network.activations(photo(path, 224))[layer], axis=(0, 1, 2)) for path in (one, other))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_vgg16_tells_a_temple_from_a_flower_and_random_weights_do_not(
    vgg16_weights_dir: Path, china: Path, tmp_path: Path
) -> None:
    keras.utils.set_random_seed(0)
    pretrained.build("vgg16").save_weights(tmp_path / "vgg16.weights.h5")

    real = load("vgg16", ["block5_conv3"], weights_dir=vgg16_weights_dir)
    random = load("vgg16", ["block5_conv3"], weights_dir=tmp_path)

    # Measured: 0.16 with ImageNet's weights, 0.99 with random ones.
    assert channel_means_cosine(real, china, china.with_name("flower.jpg")) < 0.25
    assert channel_means_cosine(random, china, china.with_name("flower.jpg")) > 0.95


# Value ranges


@pytest.mark.parametrize("network", NETWORKS)
def test_deprocessing_undoes_preprocessing(network: str) -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (4, 5, 3)).astype(np.float32)

    np.testing.assert_allclose(deprocess(network, preprocess(network, picture)), picture, atol=1e-4)


@pytest.mark.parametrize("network", ["inception_v3", "vgg16", "vgg19"])
def test_preprocessing_is_that_of_keras(network: str) -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (4, 5, 3)).astype(np.float32)

    theirs = getattr(keras.applications, network).preprocess_input(picture.copy())

    np.testing.assert_allclose(preprocess(network, picture), theirs, atol=1e-4)


# Networks in the process


def test_the_same_layers_in_any_order_are_the_same_network(tmp_path: Path) -> None:
    first = load("squeezenet", ["fire5", "fire7"], weights_dir=tmp_path)

    assert load("squeezenet", ["fire7", "fire5"], weights_dir=tmp_path) is first


def test_a_network_ends_at_its_last_layer_and_cannot_be_trained(tmp_path: Path) -> None:
    model = load("squeezenet", ["fire2", "fire5"], weights_dir=tmp_path).model

    assert "fire5" in {layer.name for layer in model.layers}
    assert "fire6_squeeze1x1" not in {layer.name for layer in model.layers}
    assert model.trainable_weights == []


def test_average_pooling_takes_the_place_of_max_pooling_with_the_same_weights(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)

    by_max = load("squeezenet", ["conv1", "fire2"], weights_dir=tmp_path).activations(picture)
    by_mean = load("squeezenet", ["conv1", "fire2"], pooling="average", weights_dir=tmp_path).activations(
        picture
    )

    np.testing.assert_array_equal(by_max["conv1"], by_mean["conv1"])
    assert np.mean(by_mean["fire2"]) < np.mean(by_max["fire2"])


@pytest.mark.parametrize("shape", [(8, 6), (7, 9)])
def test_max_pooling_written_out_has_the_values_and_the_gradient_of_max_pooling(
    shape: tuple[int, int],
) -> None:
    """Of whole numbers from 0 to 3, so that most blocks hold their maximum several times."""
    features = tf.constant(np.random.default_rng(0).integers(0, 4, (2, *shape, 5)), tf.float32)
    plain, written = keras.layers.MaxPooling2D(2), BlockMaxPooling(2)
    weights = tf.range(2.0 * 5 * (shape[0] // 2) * (shape[1] // 2))

    def value_and_gradient(pool: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = pool(features)
            weighted = tf.reduce_sum(tf.reshape(pooled, [-1]) * weights)
        return pooled.numpy(), tape.gradient(weighted, features).numpy()

    for mine, expected in zip(value_and_gradient(written), value_and_gradient(plain), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_what_is_written_for_xla_is_the_same_network(tmp_path: Path) -> None:
    pretrained.build("vgg16").save_weights(tmp_path / "vgg16.weights.h5")
    network = load("vgg16", ["block1_conv1", "block3_conv1"], weights_dir=tmp_path)
    picture = np.random.default_rng(0).uniform(0, 255, (1, 37, 46, 3)).astype(np.float32)

    written = network.written_for_xla

    assert sum(isinstance(layer, BlockMaxPooling) for layer in written.model.layers) == 2
    assert {id(weight) for weight in written.model.weights} == {
        id(weight) for weight in network.model.weights
    }
    for layer, expected in network.activations(picture).items():
        np.testing.assert_array_equal(written.activations(picture)[layer], expected)


def test_only_pooling_of_two_by_two_cells_is_written_out() -> None:
    layers = keras.layers
    assert BlockMaxPooling.suits(layers.MaxPooling2D(2))
    for other in (
        layers.MaxPooling2D(3, strides=2),
        layers.MaxPooling2D(2, strides=1),
        layers.MaxPooling2D(2, padding="same"),
        layers.AveragePooling2D(2),
    ):
        assert not BlockMaxPooling.suits(other)


def test_inception_v3_from_a_file_is_the_network_that_was_saved(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    saved = pretrained.build("inception_v3")
    saved.save_weights(tmp_path / "inception_v3.weights.h5")
    picture = np.random.default_rng(0).uniform(0, 255, (1, 75, 75, 3)).astype(np.float32)

    network = load("inception_v3", ["mixed10"], weights_dir=tmp_path)

    expected = saved(preprocess("inception_v3", picture), training=False)
    np.testing.assert_allclose(network.activations(picture)["mixed10"], expected, rtol=1e-4, atol=1e-5)
    content = (tmp_path / "inception_v3.weights.h5").read_bytes()
    assert network.weights_sha256 == hashlib.sha256(content).hexdigest()


def test_an_average_over_windows_that_overlap_counts_every_cell_alike() -> None:
    """1 2 1 over 4 along each side, in steps of 2: a cell lies in the middle of one window, or at the edge of two."""
    cells = np.random.default_rng(0).normal(size=(1, 9, 12, 2)).astype(np.float32)
    layer = BinomialPooling(3, strides=2)
    with tf.GradientTape() as tape:
        variable = tf.Variable(cells)
        pooled = layer(variable)
        total = tf.reduce_sum(pooled)

    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    assert pooled.shape == (1, 4, 5, 2)
    assert float(pooled[0, 1, 2, 0]) == pytest.approx((cells[0, 2:5, 4:7, 0] * weights).sum(), abs=1e-6)
    inside = tape.gradient(total, variable).numpy()[0, 1:-1, 1:-2]
    np.testing.assert_allclose(inside, 0.25, rtol=1e-6)


def test_squeezenet_pools_by_such_averages_and_vgg_by_plain_ones(settings, vgg16_weights_dir) -> None:
    squeezenet = load("squeezenet", ["fire5"], weights_dir=settings.weights_dir, pooling="average")
    vgg16 = load("vgg16", ["block3_conv1"], weights_dir=vgg16_weights_dir, pooling="average")

    for network, pooling in ((squeezenet, BinomialPooling), (vgg16, keras.layers.AveragePooling2D)):
        found = [
            type(layer) for layer in network.model.layers if isinstance(layer, keras.layers.AveragePooling2D)
        ]
        assert found == [pooling] * 2
        assert not any(isinstance(layer, keras.layers.MaxPooling2D) for layer in network.model.layers)


# Weights from files


def squeezenet_file(path: Path, fill: float) -> None:
    """SqueezeNet's weights, all of one value, as a file."""
    model = build_squeezenet()
    model.set_weights([np.full(array.shape, fill, np.float32) for array in model.get_weights()])
    model.save_weights(path)


def test_a_file_in_the_weights_folder_comes_before_the_package_and_is_read_again_when_replaced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "squeezenet.weights.h5"
    squeezenet_file(path, 0.5)
    first = load("squeezenet", ["conv1"], weights_dir=tmp_path)
    squeezenet_file(path, 0.25)
    os.utime(path, ns=(0, 1))

    second = load("squeezenet", ["conv1"], weights_dir=tmp_path)

    assert np.unique(first.model.get_weights()[0]) == 0.5
    assert np.unique(second.model.get_weights()[0]) == 0.25
    assert first.weights_sha256 != second.weights_sha256


@pytest.mark.parametrize("damage", ["cut off", "empty", "no HDF5", "another network's"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "squeezenet.weights.h5"
    squeezenet_file(path, 0.5)
    if damage == "another network's":
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    else:
        content = path.read_bytes()
        path.write_bytes(
            {"cut off": content[: len(content) // 2], "empty": b"", "no HDF5": b"<html>"}[damage]
        )

    with pytest.raises(
        WeightsUnavailable, match=rf"{path}.*Delete it, and put squeezenet.weights.h5 in its place"
    ):
        load("squeezenet", ["conv1"], weights_dir=tmp_path)


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch harmed",)


def test_nothing_but_arrays_is_read_from_the_packaged_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(WeightsUnavailable, match="system is not admitted"):
        set_packaged_weights(build_squeezenet(), pickle.dumps({"conv1": Harmful()}))

    assert not Path("harmed").exists()


@pytest.mark.parametrize("length", [0, 100, 2_000_000])
def test_a_cut_off_packaged_pickle_is_refused(length: int) -> None:
    packaged = packaged_weights()
    assert packaged is not None

    with pytest.raises(WeightsUnavailable, match="install ndf"):
        set_packaged_weights(build_squeezenet(), packaged.read_bytes()[:length])


# Weights from a server


class Server:
    """A server on loopback that gives out one file, or part of it, and counts how often it was asked."""

    def __init__(self, content: bytes, sent_bytes: int | None = None) -> None:
        self.requests = 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:sent_bytes])

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Let a server of our own publish VGG16's weights, with the checksum of what it is given."""
    servers: list[Server] = []

    def start(content: bytes, *, sent_bytes: int | None = None, md5: str | None = None) -> Server:
        server = Server(content, sent_bytes)
        servers.append(server)
        published = weights.PUBLISHED["vgg16"]
        file = weights.PublishedFile(
            published.folder, published.name, md5 or hashlib.md5(content).hexdigest()
        )
        monkeypatch.setitem(weights.PUBLISHED, "vgg16", file)
        monkeypatch.setattr(weights, "DOWNLOAD_URL", server.url)
        return server

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def keras_file(model: keras.Model, path: Path) -> bytes:
    """A model's weights in the older HDF5 layout in which the Keras project publishes them."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name for layer in model.layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.1.0"
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{index}:0" for index in range(len(layer.weights))]
            group.attrs["weight_names"] = names
            for name, array in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(name, data=array)
    return path.read_bytes()


def test_weights_are_downloaded_once_into_the_weights_folder(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    keras.utils.set_random_seed(2)
    model = pretrained.build("vgg16")
    server = serve(keras_file(model, tmp_path / "published.h5"))
    folder = tmp_path / "weights"

    networks = [load("vgg16", [layer], weights_dir=folder) for layer in ("block1_conv1", "block2_conv1")]

    assert server.requests == 1
    assert [path.name for path in folder.glob("[!.]*")] == [weights.PUBLISHED["vgg16"].name]
    assert not list(folder.glob(".fetching*"))
    np.testing.assert_array_equal(
        networks[1].model.get_weights()[-2], model.get_layer("block2_conv1").get_weights()[0]
    )


def test_processes_that_need_the_same_weights_fetch_them_once(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(b"w" * 5_000_000)

    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: weights.find("vgg16", tmp_path), range(4)))

    assert server.requests == 1
    assert [path.read_bytes() for path in paths] == [b"w" * 5_000_000]


@pytest.mark.parametrize("fault", [{"sent_bytes": 1000}, {"md5": "0" * 32}])
def test_a_download_that_breaks_off_or_differs_leaves_no_file(
    serve: Callable[..., Server], tmp_path: Path, fault: dict[str, object]
) -> None:
    serve(b"w" * 100_000, **fault)

    with pytest.raises(WeightsUnavailable, match="arrived with the checksum"):
        weights.find("vgg16", tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == [f".{weights.PUBLISHED['vgg16'].name}.lock"]


def test_a_download_tells_how_far_it_is_and_can_be_given_up(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    serve(b"w" * 3_000_000)
    told = []

    def on_fetched(done: int, whole: int) -> None:
        told.append((done, whole))
        raise JobCancelled

    with pytest.raises(JobCancelled):
        weights.find("vgg16", tmp_path, on_fetched)

    assert told == [(2**20, 3_000_000)]
    assert [path.name for path in tmp_path.iterdir()] == [f".{weights.PUBLISHED['vgg16'].name}.lock"]


def test_a_machine_without_a_network_is_told_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "DOWNLOAD_URL", "http://127.0.0.1:1")  # nothing listens there

    with pytest.raises(WeightsUnavailable) as refused:
        weights.find("vgg19", tmp_path)

    for told in (
        "vgg19.weights.h5",
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        str(tmp_path),
        "squeezenet",
    ):
        assert told in refused.value.message


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(weights, "DOWNLOAD_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(download, "CONNECT_TIMEOUT_S", 0.2)

        with pytest.raises(WeightsUnavailable, match=r"no answer from .* within 0.2 s"):
            weights.find("vgg16", tmp_path)


def test_a_weights_folder_that_cannot_be_written_is_named(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    serve(b"w")
    (tmp_path / "file").touch()

    with pytest.raises(WeightsUnavailable, match=str(tmp_path / "file")):
        weights.find("vgg16", tmp_path / "file" / "weights")
