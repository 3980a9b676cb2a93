"""Train a character-level LSTM language model on a text."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from shared.errors import InvalidInput
from shared.job import Job
from shared.kinds.base import Inputs, JobId, JobParams, TextId
from shared.texts import TextInfo, inspect_text, known_encoding, lowercase, vocabulary_differences
from shared.vocabulary import LARGEST, Mode, Vocabulary

Corpus = Literal["python_docs", "nietzsche"]
Temperature = Annotated[float, Field(ge=0, le=1000)]

CORPORA: dict[Corpus, TextInfo] = {
    # Length and vocabulary as far as memory is concerned; the worker's own Python decides what its docs say.
    "python_docs": TextInfo(600_000, "".join(map(chr, range(32, 160))), False),
    "nietzsche": TextInfo(600_893, "".join(map(chr, range(32, 128))), False),
}
WINDOW_STEP = 3
LEARNING_RATES = {"rmsprop": 0.01, "adam": 0.002}


class LstmTrainParams(JobParams):
    """Train a character-level LSTM language model on a text."""

    kind: ClassVar[str] = "lstm_train"
    trains: ClassVar[bool] = True

    text: TextId | None = None
    """The text to learn from, as an upload; this or `corpus`."""
    corpus: Corpus | None = None
    """A built-in text: `python_docs` (CPython's own documentation, always there) or `nietzsche` (by download)."""
    encoding: str = "utf-8"
    """How the upload is encoded. A byte that cannot be is refused with its offset, nothing is ever dropped."""
    lowercase: bool = False
    """Put the text into lower case first."""
    mode: Mode = "stateful"
    """`stateful` predicts every next character and carries its state along the text. `window` is the Keras book's way:
    windows of the text with step 3, each with one target, each read from an empty state. The two are not the same
    function: a window model has never seen a carried state, so each new character costs it a whole window."""
    window: int = Field(60, ge=1, le=10_000)
    """Characters per training window (in stateful mode: after how many the gradient is cut off)."""
    layers: int = Field(1, ge=1, le=8)
    """LSTM layers, one on top of the other."""
    units: int = Field(128, ge=1, le=4096)
    """Units of each LSTM layer."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of each layer's outputs left out in training."""
    batch_size: int = Field(128, ge=1, le=4096)
    """Windows per step; a short text makes it smaller, with a warning."""
    epochs: int = Field(20, ge=1, le=10_000)
    """Passes over the text."""
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    """The Keras book's RMSprop, or Adam."""
    learning_rate: float | None = Field(None, gt=0)
    """Default: 0.01 with RMSprop, as in the Keras book, and 0.002 with Adam."""
    clip_norm: float | None = Field(5.0, gt=0)
    """Gradients of a larger norm, over all weights, are scaled down to it; null for no limit."""
    validation_fraction: float = Field(0.05, ge=0, le=0.5)
    """Share of the text, at its end, that is not trained on but measured with; no window crosses the split."""
    sample_temperatures: list[Temperature] = Field([0.2, 0.5, 1.0, 1.2], max_length=16)
    """Samples after each epoch, one per temperature, each starting from the same place of the text."""
    sample_length: int = Field(400, ge=1, le=10_000)
    """New characters per sample."""
    start_from_job: JobId | None = None
    """Start from the weights of an earlier training with the same characters, layers and units."""

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        known_encoding(value)
        return value

    @property
    def effective_learning_rate(self) -> float:
        """The learning rate, chosen or default."""
        return self.learning_rate or LEARNING_RATES[self.optimizer]

    def check(self, inputs: Inputs) -> None:
        """Refuse a text that cannot be read or is too short, a model that does not fit it, and too much memory.

        Raises:
            InvalidInput: naming the field.
        """
        if (self.text is None) == (self.corpus is None):
            given = "both are given" if self.text else "neither is given"
            raise InvalidInput(f"either text or corpus says what to learn from; {given}", field="text")
        info = self._info(inputs)
        self.check_text(info)
        if self.start_from_job is not None:
            self._check_start(inputs.job(self.start_from_job, "start_from_job"), info, inputs)
        self._check_memory(inputs)

    def check_text(self, info: TextInfo) -> None:
        """Refuse a text from which nothing can be learnt with these parameters."""
        field = "text" if self.text else "corpus"
        if info.blank or not info.characters:
            raise InvalidInput("the text is empty, or nothing but white space", field=field)
        if info.characters < self.window + 1:
            raise InvalidInput(
                f"the text has {info.characters} characters; with a window of {self.window} "
                f"it takes at least {self.window + 1}",
                field=field,
            )
        if len(info.vocabulary) > LARGEST:
            many = len(info.vocabulary)
            message = f"the text has {many} different characters, more than {LARGEST}; is it {self.encoding}?"
            raise InvalidInput(message, field="encoding")

    def check_vocabulary(self, old: str, new: str) -> None:
        """Refuse to start from a model that knows other characters than the text has."""
        if differences := vocabulary_differences(old, new):
            raise InvalidInput(f"the vocabularies differ: {differences}", field="start_from_job")

    def _info(self, inputs: Inputs) -> TextInfo:
        if self.corpus is not None:
            return CORPORA[self.corpus]
        return inspect_text(inputs.path(self.text or "", "text"), self.encoding, field="text")

    def _check_start(self, start: Job, info: TextInfo, inputs: Inputs) -> None:
        if start.kind != self.kind:
            raise InvalidInput(
                f"job {start.id} is of the kind {start.kind}, not {self.kind}", field="start_from_job"
            )
        for name in ("layers", "units"):
            if start.params[name] != getattr(self, name):
                message = f"{name} is {getattr(self, name)}, but {start.params[name]} in job {start.id}"
                raise InvalidInput(message, field=name)
        if not start.status.ended:
            return
        vocabulary = Vocabulary.parse(
            inputs.artifact(start.id, "vocabulary.json", "start_from_job"), field="start_from_job"
        )
        if self.corpus is None:
            self.check_vocabulary(vocabulary.characters, self._characters(info))

    def _characters(self, info: TextInfo) -> str:
        characters = lowercase(info.vocabulary) if self.lowercase else info.vocabulary
        return "".join(sorted(set(characters)))

    def _check_memory(self, inputs: Inputs) -> None:
        limit = inputs.largest_worker_bytes
        if limit is None or self.forecast_bytes(inputs) <= limit:
            return
        smaller = self.batch_size
        while smaller > 1 and self.model_copy(update={"batch_size": smaller}).forecast_bytes(inputs) > limit:
            smaller //= 2
        fits = self.model_copy(update={"batch_size": smaller}).forecast_bytes(inputs) <= limit
        needed_gib, limit_gib = self.forecast_bytes(inputs) / 2**30, limit / 2**30
        needed = f"about {needed_gib:.1f} GiB are needed, the largest worker has {limit_gib:.1f}"
        if fits:
            raise InvalidInput(f"{needed}; a batch_size of {smaller} fits", field="batch_size")
        raise InvalidInput(f"{needed}; fewer units or layers need less", field="units")

    def forecast_bytes(self, inputs: Inputs) -> int:
        """Weights with their gradients, slots and copies; a batch's activations; the text as ids (bytes)."""
        info = self._info(inputs)
        vocabulary = len(info.vocabulary)
        weights, wide = 0, vocabulary
        for _ in range(self.layers):
            weights += 4 * self.units * (wide + self.units + 1)
            wide = self.units
        weights += vocabulary * (self.units + 1)
        # Per character of a batch: gates, states and their gradients in each layer; logits and theirs.
        activations = self.batch_size * self.window * (self.layers * 16 * self.units + 4 * vocabulary)
        ids = info.characters * (1 if vocabulary <= 256 else 2)
        order = info.characters // WINDOW_STEP * 4 if self.mode == "window" else 0
        return 4 * (8 * weights + activations) + ids + order
