"""A process that trains one network after the other keeps none of them."""

import gc

import keras
import numpy as np
import tensorflow as tf

from tasks.optimizers import LocalAdam


def graphs() -> int:
    """How many traced graphs are alive."""
    gc.collect()
    return sum(type(thing).__name__ == "FuncGraph" for thing in gc.get_objects())


def descend(optimizer: keras.optimizers.Optimizer) -> np.ndarray:
    """Ten compiled steps towards 0 from (3, 4)."""
    weights = keras.Variable([3.0, 4.0])
    optimizer.build([weights])

    @tf.function
    def steps():
        for _ in tf.range(10):
            with tf.GradientTape() as tape:
                loss = keras.ops.sum(weights**2)
            optimizer.apply(tape.gradient(loss, [weights]), [weights])

    steps()
    return weights.numpy()


def test_the_steps_are_those_of_keras_adam():
    assert (descend(LocalAdam(0.1, beta_1=0.5)) == descend(keras.optimizers.Adam(0.1, beta_1=0.5))).all()


def test_a_training_that_has_ended_leaves_no_graph_behind():
    before = graphs()
    for _ in range(2):
        descend(LocalAdam(0.1))

    assert graphs() <= before
