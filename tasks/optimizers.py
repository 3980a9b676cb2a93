"""Adam for trainings on one device, in a process that trains many networks one after the other."""

from collections.abc import Sequence
from typing import Any

import keras


class LocalAdam(keras.optimizers.Adam):
    """Keras' Adam without the sum over replicas, of which there is one.

    That sum registers a gradient of its own with TensorFlow each time a function with an update is traced. The
    registration is never undone and holds the whole graph, so every training would leave some 10 MiB behind.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return list(grads_and_vars)
