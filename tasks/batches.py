"""In which order a training reads its text: a function of seed and epoch, so that a resumed job goes on exactly."""

from typing import Protocol

import numpy as np

from shared.kinds.lstm_train import WINDOW_STEP

Batch = tuple[np.ndarray, np.ndarray]
"""Characters (batch, window) int32, and what follows: (batch, window) in stateful mode, (batch,) in window mode."""


class Batches(Protocol):
    """A text cut into steps of equal shape."""

    batch_size: int
    steps: int
    """Steps per epoch."""
    targets: int
    """Predicted characters per step."""

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """What one epoch's order is, as `batch` takes it."""

    def fixed_order(self) -> np.ndarray:
        """The order in which to validate: always the same."""

    def batch(self, order: np.ndarray, step: int) -> Batch:
        """One step's characters and targets."""


class StreamBatches:
    """Many-to-many: the text as `batch_size` streams side by side, each read from its start to its end.

    Each step goes on where the one before stopped, so the LSTM's state can be carried along. The streams begin
    at another place in each epoch, as far as the text leaves room: so windows are cut differently, and the
    characters at the end get their turn.
    """

    def __init__(self, ids: np.ndarray, *, window: int, batch_size: int) -> None:
        pairs = len(ids) - 1
        self.ids, self.window = ids, window
        self.batch_size = min(batch_size, pairs // window)
        self.steps = pairs // self.batch_size // window
        self.targets = self.batch_size * window
        self._room = pairs - self.batch_size * self.steps * window

    def order(self, seed: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).integers(0, self._room + 1)

    def fixed_order(self) -> np.ndarray:
        return np.int64(0)

    def batch(self, order: np.ndarray, step: int) -> Batch:
        streams = np.arange(self.batch_size) * self.steps * self.window
        starts = order + streams + step * self.window
        pieces = self.ids[starts[:, None] + np.arange(self.window + 1)].astype(np.int32)
        return pieces[:, :-1], pieces[:, 1:]


class WindowBatches:
    """The Keras book's way (8.1): windows that start every third character, shuffled, one target each."""

    def __init__(self, ids: np.ndarray, *, window: int, batch_size: int) -> None:
        self.ids, self.window = ids, window
        self.windows = (len(ids) - window - 1) // WINDOW_STEP + 1
        self.batch_size = min(batch_size, self.windows)
        # A last, smaller batch would be compiled anew; another epoch's order has its windows elsewhere.
        self.steps = self.windows // self.batch_size
        self.targets = self.batch_size

    def order(self, seed: int, epoch: int) -> np.ndarray:
        order = self.fixed_order()
        np.random.default_rng([seed, epoch]).shuffle(order)
        return order

    def fixed_order(self) -> np.ndarray:
        return np.arange(self.windows, dtype=np.int32 if self.windows < 2**31 else np.int64)

    def batch(self, order: np.ndarray, step: int) -> Batch:
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size].astype(np.int64)
        pieces = self.ids[(chosen * WINDOW_STEP)[:, None] + np.arange(self.window + 1)].astype(np.int32)
        return pieces[:, :-1], pieces[:, -1]


def batches_of(ids: np.ndarray, *, mode: str, window: int, batch_size: int) -> Batches:
    """The text as `mode` reads it; it must have at least window + 1 characters."""
    kind = StreamBatches if mode == "stateful" else WindowBatches
    return kind(ids, window=window, batch_size=batch_size)


def split(
    ids: np.ndarray, *, validation_fraction: float, window: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cut a text in two, at one place, so that no window is on both sides; None where a part would be too short."""
    at = len(ids) - int(len(ids) * validation_fraction)
    if not validation_fraction or min(at, len(ids) - at) < window + 1:
        return ids, None
    return ids[:at], ids[at:]
