"""A process that trains one network after the other keeps none of them."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

from shared.job import JobStatus
from tasks.networks.lstm_recurrence import recurrence
from tasks.optimizers import LocalAdam, LocalRMSprop
from workers.run_job import run_job

TEXT = "The quick brown fox jumps over the lazy dog.\n" * 12


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


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (LocalAdam, keras.optimizers.Adam, {"beta_1": 0.5}),
        (LocalAdam, keras.optimizers.Adam, {}),
        (LocalRMSprop, keras.optimizers.RMSprop, {}),
    ],
)
def test_the_steps_are_those_of_keras_optimizer(ours, theirs, options):
    assert (descend(ours(0.1, **options)) == descend(theirs(0.1, **options))).all()


@pytest.mark.parametrize("optimizer", [LocalAdam, LocalRMSprop])
def test_a_training_that_has_ended_leaves_no_graph_behind(optimizer):
    before = graphs()
    for _ in range(2):
        descend(optimizer(0.1))

    assert graphs() <= before


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
def test_an_lstm_training_job_leaves_no_graph_behind(optimizer, queue):
    text, before = queue.upload(TEXT.encode()).id, graphs()
    small = {"units": 8, "window": 10, "batch_size": 4, "epochs": 1, "sample_temperatures": []}
    job = queue.submit("lstm_train", {"text": text, "optimizer": optimizer, **small})
    run_job(job.id)

    assert queue.get(job.id).status == JobStatus.SUCCEEDED
    assert graphs() <= before


def test_gradients_of_the_own_recurrence_leave_nothing_behind_that_a_second_training_would_add_to():
    def gradient_of_one_training():
        @tf.function
        def gradient(projected, recurrent, state):
            with tf.GradientTape() as tape:
                tape.watch(recurrent)
                outputs, *_ = recurrence(projected, recurrent, state, state)
            return tape.gradient(outputs, recurrent)

        gradient(tf.ones((3, 2, 8)), tf.ones((2, 8)), tf.zeros((2, 2)))

    gradient_of_one_training()  # what it leaves is that of this shape
    before = graphs()
    gradient_of_one_training()

    assert graphs() <= before
