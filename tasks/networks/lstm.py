"""The character-level LSTM: one-hot characters, LSTM layers, a logit per character."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from shared.errors import InvalidInput
from tasks.networks.lstm_recurrence import recurrence

FUSED_FROM_UNITS = 256
"""On a CPU, layers at least this wide go through our own recurrence, compiled by XLA. Measured on 2 cores, in
training: 1.3 times as fast as Keras' LSTM at 512 units, 0.9 times at 128. On a GPU Keras' goes through cuDNN."""

Pair = tuple[tf.Tensor, tf.Tensor]
State = list[Pair]
"""For each layer its output h and its cell c, (batch, units) each."""


class CharacterLstm:
    """A network with the weights of one Keras model, called on ids and with its state in the open."""

    def __init__(
        self,
        vocabulary: int,
        *,
        layers: int,
        units: int,
        dropout: float = 0.0,
        every: bool = True,
        seed: int = 0,
    ) -> None:
        """Build it, with random weights.

        Args:
            vocabulary: how many characters there are.
            every: predict what follows every character; else only what follows the last.
        """
        self.vocabulary, self.units, self.dropout, self.every = vocabulary, units, dropout, every
        self.cells = [
            keras.layers.LSTM(
                units,
                # The training functions ask for the states; the saved model has them as unused outputs.
                return_state=True,
                return_sequences=every or layer < layers - 1,
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 3 * layer),
                recurrent_initializer=keras.initializers.Orthogonal(seed=seed + 3 * layer + 1),
                name=f"lstm_{layer + 1}",
            )
            for layer in range(layers)
        ]
        self.dense = keras.layers.Dense(
            vocabulary,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed + 3 * layers),
            name="logits",
        )
        self.model = self._model()
        on_gpu = bool(tf.config.list_physical_devices("GPU"))
        self.fused = units >= FUSED_FROM_UNITS and not on_gpu

    def _model(self) -> keras.Model:
        """The layers as a plain Keras model, (batch, time, vocabulary) one-hot -> logits, for `model.keras`."""
        one_hot = hidden = keras.Input((None, self.vocabulary), name="one_hot")
        for number, cell in enumerate(self.cells, start=1):
            hidden, *_ = cell(hidden)
            if self.dropout:
                hidden = keras.layers.Dropout(self.dropout, seed=number, name=f"dropout_{number}")(hidden)
        return keras.Model(one_hot, self.dense(hidden), name="character_lstm")

    @property
    def variables(self) -> list[keras.Variable]:
        """Kernel, recurrent kernel and bias of each layer, then the dense layer's kernel and bias."""
        return [variable for layer in (*self.cells, self.dense) for variable in layer.trainable_variables]

    def weights(self) -> list[np.ndarray]:
        """The weights as arrays, in the order of `variables`."""
        return [variable.numpy().copy() for variable in self.variables]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Take over weights, in the order of `variables`."""
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def empty_state(self, batch: int) -> State:
        """The state before the first character."""
        zeros = tf.zeros((batch, self.units))
        return [(zeros, zeros) for _ in self.cells]

    def logits(
        self, ids: tf.Tensor, state: State, dropout_seed: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, State]:
        """What follows: (batch, time) ids -> (batch * time, vocabulary) logits, or (batch, vocabulary) of the last.

        Args:
            dropout_seed: (2,) integers that decide which outputs are left out; None leaves out none.
        """
        hidden = tf.one_hot(ids, self.vocabulary)
        after: State = []
        for layer, (cell, before) in enumerate(zip(self.cells, state, strict=True)):
            run = self._own if self.fused else self._keras
            sequence, *last = run(cell, hidden, before)
            after.append((last[0], last[1]))
            is_last = layer == len(self.cells) - 1
            hidden = last[0] if is_last and not self.every else sequence
            if self.dropout and dropout_seed is not None:
                hidden = _dropped(hidden, self.dropout, dropout_seed + tf.constant([layer, 0]))
        flat = tf.reshape(hidden, (-1, self.units))
        return tf.matmul(flat, self.dense.kernel.value) + self.dense.bias.value, after

    def _keras(self, cell: keras.layers.LSTM, inputs: tf.Tensor, before: Pair) -> list[tf.Tensor]:
        return list(cell(inputs, initial_state=list(before)))

    def _own(self, cell: keras.layers.LSTM, inputs: tf.Tensor, before: Pair) -> list[tf.Tensor]:
        kernel, recurrent, bias = (variable.value for variable in cell.trainable_variables)
        # Time first, as the recurrence walks; the projection of all steps is one matrix product.
        by_time = tf.transpose(inputs, (1, 0, 2))
        projected = tf.tensordot(by_time, tf.convert_to_tensor(kernel), 1) + bias
        sequence, h, c = recurrence(projected, tf.convert_to_tensor(recurrent), *before)
        return [tf.transpose(sequence, (1, 0, 2)), h, c]


def _dropped(values: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Leave out a share of the values and raise the others, so that the mean stays."""
    drawn = tf.random.stateless_uniform(tf.shape(values), seed, alg="philox")
    return tf.where(drawn >= rate, values / (1 - rate), 0.0)


def shape_of(weights: Sequence[np.ndarray]) -> tuple[int, int, int]:
    """Vocabulary, layers and units that fit these weights."""
    return weights[-1].shape[0], (len(weights) - 2) // 3, weights[-2].shape[0]


def weights_from(arrays: Mapping[str, np.ndarray], *, field: str) -> list[np.ndarray]:
    """Find an LSTM's weights among a file's named arrays, and check that they fit together.

    Args:
        arrays: by path, as `tasks.weights_file.read_arrays` gives them; a layer's arrays share a folder.

    Raises:
        InvalidInput: they are no character-level LSTM with one dense layer at its end; `field` names the file.
    """
    folders: dict[str, list[np.ndarray]] = {}
    for path, array in arrays.items():
        folders.setdefault(path.rpartition("/")[0], []).append(array)
    cells = [_cell_order(group) for group in folders.values() if len(group) == 3]
    dense = [sorted(group, key=np.ndim, reverse=True) for group in folders.values() if len(group) == 2]
    if not cells or len(dense) != 1:
        told = f"{len(cells)} groups of three arrays and {len(dense)} of two"
        raise InvalidInput(f"not an LSTM with one dense layer: the file holds {told}", field=field)
    weights = [*(array for cell in cells for array in cell), *dense[0]]
    _check_shapes(weights, field)
    return [np.ascontiguousarray(array, np.float32) for array in weights]


def _cell_order(group: list[np.ndarray]) -> list[np.ndarray]:
    """Kernel, recurrent kernel, bias: the recurrent one is (units, 4 units). Keras writes them in this order."""
    matrices = [array for array in group if array.ndim == 2]
    if len(matrices) == 2 and matrices[1].shape[1] != 4 * matrices[1].shape[0]:
        matrices.reverse()
    return [*matrices, *(array for array in group if array.ndim != 2)]


def _check_shapes(weights: list[np.ndarray], field: str) -> None:
    vocabulary, layers, units = (
        shape_of(weights) if weights[-1].ndim == 1 and weights[-2].ndim == 2 else (0, 0, 0)
    )
    expected: list[tuple[int, ...]] = []
    for layer in range(layers):
        wide = vocabulary if layer == 0 else units
        expected += [(wide, 4 * units), (units, 4 * units), (4 * units,)]
    expected += [(units, vocabulary), (vocabulary,)]
    found = [array.shape for array in weights]
    if found != expected:
        raise InvalidInput(f"the arrays are no chain of LSTM layers of one width: {found}", field=field)
    if not all(np.isfinite(array).all() for array in weights):
        raise InvalidInput("the weights hold NaN or Inf", field=field)
