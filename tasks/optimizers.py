"""Keras' optimizers for trainings on one device, in a process that trains many networks one after the other."""

from collections.abc import Sequence
from typing import Any

import keras


class OneReplica:
    """Mixed into a Keras optimizer, it leaves out the sum of the gradients over replicas, of which there is one.

    That sum registers a gradient of its own with TensorFlow each time a function with an update is traced. The
    registration is never undone and holds the whole graph, so every training would leave some MiB behind.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        return list(grads_and_vars)


class LocalAdam(OneReplica, keras.optimizers.Adam):
    """Adam."""


class LocalRMSprop(OneReplica, keras.optimizers.RMSprop):
    """RMSprop."""
