"""Writing with a character-level LSTM: one compiled loop for many characters and many texts at once.

Everything runs on the CPU: one step of one text is smaller than the launch of a GPU's kernel, and so a text is
the same wherever it is written. Weights, state and temperatures are arguments of the compiled functions, which
are kept from job to job: nothing of a job stays in them.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from shared.vocabulary import Mode
from tasks.networks.lstm import shape_of

GREEDY_UP_TO = 1e-6
"""Temperatures up to this one are greedy: float32 logits are not told apart any finer."""
BLOCK = 1024
"""Characters that one call of a compiled function can write or read: the length of its arrays."""

Weights = list[tf.Tensor]
State = list[tuple[tf.Tensor, tf.Tensor]]


class Choice(NamedTuple):
    """How one of the possible next characters is taken."""

    temperatures: tf.Tensor
    """(texts,)"""
    top_k: tf.Tensor
    """Scalar; the whole vocabulary where nobody chose."""
    top_p: tf.Tensor
    """Scalar; 1 where nobody chose."""


# The mathematics of one step


def next_logits(weights: Weights, ids: tf.Tensor, state: State) -> tuple[tf.Tensor, State]:
    """One LSTM step of each text: (texts,) ids -> (texts, vocabulary) logits. Gates in Keras' order i, f, g, o."""
    after: State = []
    kernels = [weights[at : at + 3] for at in range(0, len(weights) - 2, 3)]
    hidden = None
    for (kernel, recurrent, bias), (h, c) in zip(kernels, state, strict=True):
        # The first layer's input is one-hot: its product with the kernel is a row of it.
        projected = tf.gather(kernel, ids) if hidden is None else tf.matmul(hidden, kernel)
        i, f, g, o = tf.split(projected + tf.matmul(h, recurrent) + bias, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        hidden = tf.sigmoid(o) * tf.tanh(c)
        after.append((hidden, c))
    return tf.matmul(hidden, weights[-2]) + weights[-1], after


def tempered(logits: tf.Tensor, temperatures: tf.Tensor) -> tf.Tensor:
    """softmax(logits / temperature) of each row; at 0, all on the likeliest character (of equals, the first).

    The greatest logit is subtracted before the division, so nothing overflows and no sum is 0 at any temperature.
    """
    greatest = tf.reduce_max(logits, axis=1, keepdims=True)
    places = tf.range(logits.shape[1])
    first = tf.reduce_min(tf.where(logits >= greatest, places, logits.shape[1]), axis=1)
    greedy = tf.one_hot(first, logits.shape[1])
    divided = (logits - greatest) / tf.maximum(temperatures, GREEDY_UP_TO)[:, None]
    return tf.where((temperatures <= GREEDY_UP_TO)[:, None], greedy, tf.nn.softmax(divided))


def restricted(probabilities: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor) -> tf.Tensor:
    """Nought for all but the top_k likeliest, and of these the fewest that together have top_p. Not rescaled."""
    ordered, places = tf.math.top_k(probabilities, k=probabilities.shape[1])
    before = tf.cumsum(ordered, axis=1, exclusive=True)
    total = tf.reduce_sum(tf.where(tf.range(ordered.shape[1]) < top_k, ordered, 0.0), axis=1, keepdims=True)
    kept = (before < top_p * total) & (tf.range(ordered.shape[1]) < top_k)
    ranks = tf.argsort(places, axis=1)
    return tf.where(tf.gather(kept, ranks, batch_dims=1), probabilities, 0.0)


def drawn(probabilities: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """The character of each row at which the running sum passes `uniform` in [0, 1) of the whole."""
    sums = tf.cumsum(probabilities, axis=1)
    # One rounding below the whole, so that what is last and impossible cannot be drawn.
    threshold = tf.minimum(uniform * sums[:, -1], sums[:, -1] * (1 - 2.0**-23))
    return tf.reduce_sum(tf.cast(sums <= threshold[:, None], tf.int32), axis=1)


def chosen(logits: tf.Tensor, choice: Choice, uniform: tf.Tensor, *, restrict: bool) -> tf.Tensor:
    """The next character of each text."""
    probabilities = tempered(logits, choice.temperatures)
    if restrict:
        probabilities = restricted(probabilities, choice.top_k, choice.top_p)
    return drawn(probabilities, uniform)


def surprise(logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """How badly the characters that came were foreseen (nats)."""
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=ids, logits=logits)


# The compiled loops. Arrays are of a fixed length, and how much of them is used is a tensor: one compilation
# serves all lengths.

Compiled = Callable[..., Any]


@functools.lru_cache(maxsize=32)
def carried_writer(shape: tuple[int, int, int], texts: int, restrict: bool) -> Compiled:
    """A function that writes on from a carried state; kept for each shape of network and number of texts."""

    @tf.function(jit_compile=True, autograph=False)
    def write(
        weights: Weights, state: State, ids: tf.Tensor, choice: Choice, uniforms: tf.Tensor, count: tf.Tensor
    ):
        def step(t: tf.Tensor, ids: tf.Tensor, state: State, written: tf.TensorArray):
            logits, state = next_logits(weights, ids, state)
            ids = chosen(logits, choice, uniforms[t], restrict=restrict)
            return t + 1, ids, state, written.write(t, ids)

        written = tf.TensorArray(tf.int32, size=BLOCK, element_shape=(texts,))
        _, ids, state, written = tf.while_loop(lambda t, *_: t < count, step, (0, ids, state, written))
        return written.stack(), state, ids

    return write


@functools.lru_cache(maxsize=32)
def carried_reader(shape: tuple[int, int, int]) -> Compiled:
    """A function that reads one text along and tells how badly it foresaw it."""

    @tf.function(jit_compile=True, autograph=False)
    def read(weights: Weights, state: State, ids: tf.Tensor, count: tf.Tensor):
        def step(t: tf.Tensor, state: State, surprises: tf.TensorArray):
            logits, state = next_logits(weights, ids[t][None], state)
            return t + 1, state, surprises.write(t, surprise(logits, ids[t + 1][None])[0])

        surprises = tf.TensorArray(tf.float32, size=BLOCK, element_shape=())
        _, state, surprises = tf.while_loop(lambda t, *_: t < count, step, (0, state, surprises))
        return surprises.stack(), state

    return read


@functools.lru_cache(maxsize=32)
def window_writer(shape: tuple[int, int, int], texts: int, window: int, restrict: bool) -> Compiled:
    """A function that writes as the Keras book does: the last `window` characters are read anew for each one."""

    @tf.function(jit_compile=True, autograph=False)
    def write(
        weights: Weights,
        seen: tf.Tensor,
        length: tf.Tensor,
        choice: Choice,
        uniforms: tf.Tensor,
        count: tf.Tensor,
    ):
        def step(t: tf.Tensor, seen: tf.Tensor, length: tf.Tensor, written: tf.TensorArray):
            logits = window_logits(weights, seen, length)
            ids = chosen(logits, choice, uniforms[t], restrict=restrict)
            seen = tf.concat([seen[:, 1:], ids[:, None]], axis=1)
            return t + 1, seen, tf.minimum(length + 1, window), written.write(t, ids)

        written = tf.TensorArray(tf.int32, size=BLOCK, element_shape=(texts,))
        _, seen, length, written = tf.while_loop(lambda t, *_: t < count, step, (0, seen, length, written))
        return written.stack(), seen, length

    return write


@functools.lru_cache(maxsize=32)
def window_reader(shape: tuple[int, int, int], window: int) -> Compiled:
    """A function that tells how badly each character is foreseen from the window before it."""

    @tf.function(jit_compile=True, autograph=False)
    def read(weights: Weights, seen: tf.Tensor, length: tf.Tensor, ids: tf.Tensor, count: tf.Tensor):
        def step(t: tf.Tensor, seen: tf.Tensor, length: tf.Tensor, surprises: tf.TensorArray):
            surprises = surprises.write(t, surprise(window_logits(weights, seen, length), ids[t][None])[0])
            seen = tf.concat([seen[:, 1:], ids[t][None, None]], axis=1)
            return t + 1, seen, tf.minimum(length + 1, window), surprises

        surprises = tf.TensorArray(tf.float32, size=BLOCK, element_shape=())
        _, seen, length, surprises = tf.while_loop(
            lambda t, *_: t < count, step, (0, seen, length, surprises)
        )
        return surprises.stack(), seen, length

    return read


def window_logits(weights: Weights, seen: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """What follows the last `length` of (texts, window) characters, read from an empty state."""
    texts, window = seen.shape
    state, vocabulary = empty_state(weights, texts), weights[-1].shape[0]

    def step(t: tf.Tensor, state: State, _: tf.Tensor):
        logits, state = next_logits(weights, seen[:, t], state)
        return t + 1, state, logits

    start = (window - length, state, tf.zeros((texts, vocabulary)))
    return tf.while_loop(lambda t, *_: t < window, step, start)[2]


def empty_state(weights: Sequence[tf.Tensor], texts: int) -> State:
    """The state before the first character."""
    zeros = tf.zeros((texts, weights[-2].shape[0]))
    return [(zeros, zeros) for _ in range((len(weights) - 2) // 3)]


# What tasks use


class Memory(Protocol):
    """What a model keeps of the text so far."""

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Take in a text; the surprise (nats) of each of its characters but the very first."""

    def spread(self, texts: int) -> None:
        """Go on as so many texts that begin alike."""

    def write(self, choice: Choice, uniforms: np.ndarray, count: int) -> np.ndarray:
        """Write `count` characters, at most BLOCK: (count, texts) ids."""

    def arrays(self) -> list[np.ndarray]:
        """All of it, for a checkpoint."""

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        """Go on from what `arrays` gave."""


class CarriedState:
    """The memory of a stateful model: the LSTM's state, and the newest character, which it has not seen yet."""

    def __init__(self, weights: Weights, *, restrict: bool) -> None:
        self.weights, self.restrict = weights, restrict
        self.shape = shape_of(weights)
        self.state = empty_state(weights, 1)
        self.newest = tf.zeros(0, tf.int32)

    def read(self, ids: np.ndarray) -> np.ndarray:
        ids = np.concatenate([self.newest.numpy(), ids]).astype(np.int32)
        found = [np.empty(0, np.float32)]
        for at in range(0, len(ids) - 1, BLOCK):
            piece = ids[at : at + BLOCK + 1]
            padded = np.pad(piece, (0, BLOCK + 1 - len(piece)))
            surprises, self.state = carried_reader(self.shape)(
                self.weights, self.state, padded, tf.constant(len(piece) - 1)
            )
            found.append(surprises.numpy()[: len(piece) - 1])
        self.newest = tf.constant(ids[-1:])
        return np.concatenate(found)

    def spread(self, texts: int) -> None:
        self.newest = tf.repeat(self.newest, texts, axis=0)
        self.state = [(tf.repeat(h, texts, axis=0), tf.repeat(c, texts, axis=0)) for h, c in self.state]

    def write(self, choice: Choice, uniforms: np.ndarray, count: int) -> np.ndarray:
        writer = carried_writer(self.shape, uniforms.shape[1], self.restrict)
        written, self.state, self.newest = writer(
            self.weights, self.state, self.newest, choice, uniforms, tf.constant(count)
        )
        return written.numpy()[:count]

    def arrays(self) -> list[np.ndarray]:
        return [self.newest.numpy(), *(array.numpy() for pair in self.state for array in pair)]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        self.newest, *flat = map(tf.constant, arrays)
        self.state = list(zip(flat[::2], flat[1::2], strict=True))


class SlidingWindow:
    """The memory of a window model: the last characters themselves, at the right of a window filled bit by bit."""

    def __init__(self, weights: Weights, window: int, *, restrict: bool) -> None:
        self.weights, self.window, self.restrict = weights, window, restrict
        self.shape = shape_of(weights)
        self.seen = tf.zeros((1, window), tf.int32)
        self.length = tf.constant(0)

    def read(self, ids: np.ndarray) -> np.ndarray:
        ids = ids.astype(np.int32)
        first = self.length.numpy() == 0
        found = []
        for at in range(0, len(ids), BLOCK):
            piece = ids[at : at + BLOCK]
            padded = np.pad(piece, (0, BLOCK - len(piece)))
            reader = window_reader(self.shape, self.window)
            surprises, self.seen, self.length = reader(
                self.weights, self.seen, self.length, padded, tf.constant(len(piece))
            )
            found.append(surprises.numpy()[: len(piece)])
        return np.concatenate(found)[int(first) :]

    def spread(self, texts: int) -> None:
        self.seen = tf.repeat(self.seen, texts, axis=0)

    def write(self, choice: Choice, uniforms: np.ndarray, count: int) -> np.ndarray:
        writer = window_writer(self.shape, uniforms.shape[1], self.window, self.restrict)
        written, self.seen, self.length = writer(
            self.weights, self.seen, self.length, choice, uniforms, tf.constant(count)
        )
        return written.numpy()[:count]

    def arrays(self) -> list[np.ndarray]:
        return [self.seen.numpy(), self.length.numpy()]

    def restore(self, arrays: Sequence[np.ndarray]) -> None:
        self.seen, self.length = map(tf.constant, arrays)


class Writer:
    """Continues one prompt in several texts at once; what it writes depends on its arguments alone."""

    def __init__(
        self,
        weights: Sequence[np.ndarray],
        *,
        mode: Mode,
        window: int,
        temperatures: Sequence[float],
        seed: Sequence[int],
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        """One text per temperature.

        Args:
            seed: numbers from which all that is drawn follows.
        """
        vocabulary = len(weights[-1])
        self.texts, self.seed, self.written = len(temperatures), seed, 0
        # XLA never lets go of what it has compiled. With as many columns as the next power of two there are nine
        # functions for a network instead of one for each number of texts; the columns beyond are dropped.
        self.columns = 1 << (self.texts - 1).bit_length()
        padded = [*temperatures, *[1.0] * (self.columns - self.texts)]
        restrict = top_k is not None or top_p is not None
        with tf.device("CPU"):
            tensors = [tf.constant(array, tf.float32) for array in weights]
            self.memory: Memory = (
                CarriedState(tensors, restrict=restrict)
                if mode == "stateful"
                else SlidingWindow(tensors, window, restrict=restrict)
            )
            self.choice = Choice(
                tf.constant(padded, tf.float32),
                tf.constant(min(top_k or vocabulary, vocabulary)),
                tf.constant(top_p or 1.0, tf.float32),
            )

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Take in the prompt, at least one character; the surprise (nats) of each but the first."""
        with tf.device("CPU"):
            surprises = self.memory.read(ids)
            self.memory.spread(self.columns)
        return surprises

    def write(self, most: int) -> np.ndarray:
        """Write at most so many further characters: (count, texts) ids. How they are portioned changes nothing."""
        block, begun = divmod(self.written, BLOCK)
        uniforms = np.random.default_rng([*self.seed, block]).random((BLOCK, self.texts), np.float32)
        uniforms = np.pad(uniforms, ((0, 0), (0, self.columns - self.texts)))
        count = min(most, BLOCK - begun)
        with tf.device("CPU"):
            ids = self.memory.write(self.choice, np.roll(uniforms, -begun, axis=0), count)
        self.written += count
        return ids[:, : self.texts]

    def state(self) -> dict[str, Any]:
        """All of it but the arguments, for a checkpoint."""
        return {"written": self.written} | {
            f"memory.{at}": array for at, array in enumerate(self.memory.arrays())
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave, in place of a prompt."""
        self.written = state["written"]
        names = [f"memory.{at}" for at in range(len(state)) if f"memory.{at}" in state]
        with tf.device("CPU"):
            self.memory.restore([state[name] for name in names])
