"""What the LSTM's form is worth: against the Keras book's recipe (8.1), and against plain torch where it is installed.

    python -m tests.benchmarks.lstm [--seconds 30] [--megabytes 100]

Prints, all measured in this one run: (a) writing, per character; (b) training, target characters per second;
(c) validation bits per character after equal time; (d) peak memory on a large text.
"""

import argparse
import importlib
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from shared.kinds.lstm_train import LstmTrainParams
from shared.texts import TextInfo
from tasks.batches import StreamBatches, split
from tasks.lstm_trainer import Trainer
from tasks.networks.lstm import CharacterLstm
from tasks.networks.lstm_writing import Writer
from tasks.texts import Text, encode, python_docs

WINDOW, BATCH, STEP = 60, 128, 3
ROUNDS = 3


class Book:
    """The Keras book's recipe, as a reader types it in: one-hot windows with one target each, `fit`, `predict`."""

    def __init__(self, vocabulary: int, layers: int, units: int) -> None:
        self.vocabulary = vocabulary
        self.model = keras.Sequential([keras.Input((WINDOW, vocabulary))])
        for layer in range(layers):
            self.model.add(keras.layers.LSTM(units, return_sequences=layer < layers - 1))
        self.model.add(keras.layers.Dense(vocabulary, activation="softmax"))
        self.model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.RMSprop(0.01))

    def windows(self, ids: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One-hot windows and their targets."""
        pieces = ids[starts[:, None] + np.arange(WINDOW + 1)]
        one_hot = np.eye(self.vocabulary, dtype=bool)[pieces]
        return one_hot[:, :-1], one_hot[:, -1]

    def fit(self, ids: np.ndarray, starts: np.ndarray) -> None:
        """Train once on the windows that begin at `starts`."""
        self.model.fit(*self.windows(ids, starts), batch_size=BATCH, verbose=0)

    def write(self, ids: np.ndarray, length: int, temperature: float = 0.5) -> None:
        """Continue 60 characters, each new one by `predict` on the window before it."""
        text, random = list(ids[:WINDOW]), np.random.default_rng(0)
        for _ in range(length):
            sampled = np.eye(self.vocabulary, dtype=bool)[text[-WINDOW:]][None]
            p = np.exp(np.log(self.model.predict(sampled, verbose=0)[0].astype("float64")) / temperature)
            text.append(int(np.argmax(random.multinomial(1, p / p.sum()))))

    def bits_per_character(self, ids: np.ndarray) -> float:
        """The mean over 2,000 windows spread over a text."""
        starts = np.linspace(0, len(ids) - WINDOW - 1, 2000).astype(int)
        return float(self.model.evaluate(*self.windows(ids, starts), batch_size=BATCH, verbose=0)) / math.log(
            2
        )


class Ours:
    """The same through dreamq's own parts."""

    def __init__(self, text: Text, ids: np.ndarray, layers: int, units: int) -> None:
        self.network = CharacterLstm(len(text.characters), layers=layers, units=units, seed=1)
        params = LstmTrainParams(corpus="python_docs", layers=layers, units=units, seed=1)
        self.batches = StreamBatches(ids, window=WINDOW, batch_size=BATCH)
        self.trainer = Trainer(self.network, params, self.batches.batch_size)
        self.order, self.done = self.batches.order(1, 0), 0

    def train(self, steps: int) -> None:
        """Some steps, over as many epochs as they fill."""
        for _ in range(steps):
            epoch, step = divmod(self.done, self.batches.steps)
            if step == 0:
                self.order = self.batches.order(1, epoch)
                self.trainer.begin_epoch()
            self.trainer.step(self.batches.batch(self.order, step), self.done)
            self.done += 1

    def writer(self, ids: np.ndarray) -> Writer:
        """A writer that has read 60 characters and compiled its loop."""
        weights = self.network.weights()
        writer = Writer(weights, mode="stateful", window=WINDOW, temperatures=[0.5], seed=[1])
        writer.read(ids[:WINDOW])
        writer.write(1)
        return writer


class Torch:
    """Plain torch: nn.LSTM, many-to-many, RMSprop."""

    def __init__(self, torch: Any, vocabulary: int, layers: int, units: int) -> None:
        self.torch, self.vocabulary = torch, vocabulary
        self.lstm = torch.nn.LSTM(vocabulary, units, layers, batch_first=True)
        self.dense = torch.nn.Linear(units, vocabulary)
        self.weights = [*self.lstm.parameters(), *self.dense.parameters()]
        self.optimizer = torch.optim.RMSprop(self.weights, lr=0.01, alpha=0.9)

    def train(self, batches: StreamBatches, steps: int) -> None:
        """Some steps with the state carried along."""
        functional, state, order = self.torch.nn.functional, None, batches.order(1, 0)
        for step in range(steps):
            ids, targets = (
                self.torch.from_numpy(array.astype(np.int64)) for array in batches.batch(order, step)
            )
            hidden, state = self.lstm(functional.one_hot(ids, self.vocabulary).float(), state)
            state = tuple(array.detach() for array in state)
            loss = functional.cross_entropy(self.dense(hidden).flatten(0, 1), targets.flatten())
            self.optimizer.zero_grad()
            loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.weights, 5.0)
            self.optimizer.step()


def seconds(work: Callable[[], Any]) -> float:
    """How long something takes (s)."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medians(works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median time of each (s), measured in turns so that a busy moment of the machine meets all."""
    for work in works.values():
        work()  # compiles
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(found[name] for found in rounds) for name in works}


def compare_writing(text: Text) -> None:
    """(a) microseconds per character."""
    for layers, units, many, few in ((1, 128, 10_000, 10), (2, 512, 500, 3)):
        book, ours = Book(len(text.characters), layers, units), Ours(text, text.ids, layers, units)
        writer = ours.writer(text.ids)

        def write(writer: Writer = writer, many: int = many) -> None:
            end = writer.written + many
            while writer.written < end:
                writer.write(end - writer.written)

        found = medians({"book": lambda book=book, few=few: book.write(text.ids, few), "ours": write})
        book_us, ours_us = found["book"] / few * 1e6, found["ours"] / many * 1e6
        told = f"{ours_us:.1f} us per character, the book's way {book_us:,.0f} us"
        print(f"(a) writing, {layers}x{units}: {told}: {book_us / ours_us:,.0f} times as fast", flush=True)


def compare_training(text: Text) -> None:
    """(b) target characters per second."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        torch = None
        print("(b) torch is not installed, so it is left out")
    for layers, units, steps, book_batches in ((1, 128, 8, 4), (2, 512, 1, 1)):
        vocabulary, targets = len(text.characters), steps * BATCH * WINDOW
        book, ours = Book(vocabulary, layers, units), Ours(text, text.ids, layers, units)
        starts = np.arange(book_batches * BATCH) * STEP
        works = {
            "the book's way": lambda book=book, starts=starts: book.fit(text.ids, starts),
            "ours": lambda ours=ours, steps=steps: ours.train(steps),
        }
        if torch is not None:
            other = Torch(torch, vocabulary, layers, units)
            works["torch"] = lambda other=other, ours=ours, steps=steps: other.train(ours.batches, steps)
        found = medians(works)
        speeds = {name: targets / took for name, took in found.items()}
        speeds["the book's way"] = len(starts) / found["the book's way"]
        told = [
            f"{name} {speed:,.0f} ({speeds['ours'] / speed:.2f} times as fast)"
            for name, speed in speeds.items()
            if name != "ours"
        ]
        print(
            f"(b) training, {layers}x{units}: {speeds['ours']:,.0f} targets/s; " + "; ".join(told), flush=True
        )


def compare_learning(text: Text, each_s: float) -> None:
    """(c) validation bits per character after equal time, compilation not counted."""
    learned, held_back = split(text.ids, validation_fraction=0.05, window=WINDOW)
    assert held_back is not None
    book, ours = Book(len(text.characters), 1, 128), Ours(text, learned, 1, 128)
    random = np.random.default_rng(1)

    def some_windows() -> np.ndarray:
        return random.integers(0, (len(learned) - WINDOW - 1) // STEP, 16 * BATCH) * STEP

    works = {"book": lambda: book.fit(learned, some_windows()), "ours": lambda: ours.train(4)}
    for work in works.values():
        work()
        end = time.perf_counter() + each_s
        while time.perf_counter() < end:
            work()
    validation = StreamBatches(held_back, window=WINDOW, batch_size=BATCH)
    own = ours.trainer.evaluate(validation, on_step=lambda: None) / math.log(2)
    told = f"{own:.2f} bits per character, the book's way {book.bits_per_character(held_back):.2f}"
    print(f"(c) after {each_s:g} s of training, 1x128, on text not trained on: {told}", flush=True)


def measure_memory(megabytes: int) -> None:
    """(d) the peak of a process that encodes a text and trains on it, against one with a small text."""
    peaks = {
        size: int(subprocess.check_output([sys.executable, "-m", __spec__.name, "--peak", str(size)]))
        for size in (1, megabytes)
    }
    more = (peaks[megabytes] - peaks[1]) / (megabytes - 1) / 2**20
    told = f"peak {peaks[megabytes] / 2**20:,.0f} MB, {peaks[1] / 2**20:,.0f} MB of it without the text"
    print(f"(d) memory, a text of {megabytes} MB: {told}: {more:.2f} times its size", flush=True)


def print_peak(megabytes: int) -> None:
    """The peak memory (bytes) of some steps on a text of this size, which is made piece by piece, as if read."""
    piece = python_docs().encode("ascii", "replace").decode()[: 1 << 18]
    pieces = megabytes * 4
    info = TextInfo(len(piece) * pieces, "".join(sorted(set(piece))), False)
    text = encode(lambda: (piece for _ in range(pieces)), info, in_lower_case=False)
    Ours(text, text.ids, 1, 128).train(10)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Measure all four, or one process' peak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30, help="training time of (c), each way")
    parser.add_argument("--megabytes", type=int, default=100, help="size of the text of (d)")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peak:
        print_peak(chosen.peak)
        return
    docs = python_docs()
    info = TextInfo(len(docs), "".join(sorted(set(docs))), False)
    text = encode(lambda: [docs], info, in_lower_case=False)
    compare_writing(text)
    compare_training(text)
    compare_learning(text, chosen.seconds)
    measure_memory(chosen.megabytes)


if __name__ == "__main__":
    main()
