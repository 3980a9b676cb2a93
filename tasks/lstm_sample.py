"""Write with a trained character-level LSTM: continue a prompt, once or many times."""

import json
import math
import time
from typing import Any

import numpy as np

from shared.errors import InvalidInput, JobCancelled
from shared.kinds.lstm_sample import LstmSampleParams
from shared.vocabulary import Vocabulary
from tasks.job_context import JobContext
from tasks.networks.lstm import shape_of, weights_from
from tasks.networks.lstm_writing import BLOCK, Writer
from tasks.texts import samples_page
from tasks.weights_file import read_arrays

CALL_S = 0.25
"""How long one call should write: text streams as often, and a cancel waits for its end."""
_FIRST_CALL = 16
_FOR_PROMPT = 1  # what random numbers are for, beside the seed


def run(params: LstmSampleParams, job: JobContext) -> None:
    """Continue the prompt; leave `result.txt` to read and `result.json` to work with."""
    vocabulary, weights = load_model(params, job)
    writing = Writing(params, job, vocabulary, weights)
    writing.begin()
    try:
        while writing.writer.written < params.length:
            writing.go_on()
    except JobCancelled:
        writing.leave("partial")
        raise
    writing.leave("result")


def load_model(params: LstmSampleParams, job: JobContext) -> tuple[Vocabulary, list[np.ndarray]]:
    """What the model knows and its weights, from a training or from uploads; of both files, only the data.

    Raises:
        InvalidInput: they are no LSTM's, or do not belong together.
    """
    if params.model_job is not None:
        field, fields = "model_job", "model_job"
        weights_path = job.model_path(params.model_job, "model.keras")
        vocabulary_path = job.model_path(params.model_job, "vocabulary.json")
    else:
        field, fields = "weights", "vocabulary"
        weights_path = job.upload_path(params.weights or "")
        vocabulary_path = job.upload_path(params.vocabulary or "")
    vocabulary = Vocabulary.parse(vocabulary_path.read_bytes(), field=fields)
    weights = weights_from(read_arrays(weights_path, field=field), field=field)
    size, layers, units = shape_of(weights)
    if size != len(vocabulary.characters):
        message = f"the weights are for {size} characters, the vocabulary has {len(vocabulary.characters)}"
        raise InvalidInput(message, field=fields)
    job.provenance["network"] = {"layers": layers, "units": units, "mode": vocabulary.mode}
    return vocabulary, weights


class Writing:
    """The texts of one job, as far as they are written."""

    def __init__(
        self, params: LstmSampleParams, job: JobContext, vocabulary: Vocabulary, weights: list[np.ndarray]
    ) -> None:
        self.params, self.job, self.vocabulary = params, job, vocabulary
        self.temperatures = [
            temperature for temperature in params.temperatures for _ in range(params.samples)
        ]
        self.prompt = self._prompt()
        self.writer = Writer(
            weights,
            mode=vocabulary.mode,
            window=vocabulary.window,
            temperatures=self.temperatures,
            seed=[params.seed or 0],
            top_k=params.top_k,
            top_p=params.top_p,
        )
        self.ids = np.empty((params.length, len(self.temperatures)), np.uint16)
        self.call = _FIRST_CALL
        self.surprise: float | None = None

    def _prompt(self) -> str:
        """The prompt as the model reads it, or a place of its text; what became of it is told in the summary."""
        prompt, strange = self.params.check_prompt(self.vocabulary)
        if not prompt:
            places = self.vocabulary.places
            place = places[
                np.random.default_rng([self.params.seed or 0, 0, _FOR_PROMPT]).integers(len(places))
            ]
            self.job.summary["prompt_offset"] = place.offset
            prompt = place.text
        if strange:
            self.job.summary["unknown_characters"] = strange
        self.job.summary["prompt"] = prompt
        return prompt

    def begin(self) -> None:
        """Read the prompt, or go on from the newest checkpoint."""
        state = self.job.resume()
        if state is not None:
            self.writer.restore(state)
            self.ids[: self.writer.written] = state["ids"]
            self.surprise = state["surprise"]
            return
        place = {character: index for index, character in enumerate(self.vocabulary.characters)}
        surprises = self.writer.read(np.array([place[character] for character in self.prompt], np.int32))
        self.surprise = float(np.mean(surprises, dtype=np.float64)) if len(surprises) else None

    def go_on(self) -> None:
        """Write a piece of all texts, about as long as CALL_S allows, and tell of it."""
        begun = self.writer.written
        started = time.monotonic()
        ids = self.writer.write(min(self.call, self.params.length - begun))
        # The first call compiles, so it says nothing of the others: hence growth step by step.
        spent_s = time.monotonic() - started
        self.call = max(1, min(BLOCK, 4 * self.call, int(len(ids) * self._call_s / spent_s) + 1))
        self.ids[begun : begun + len(ids)] = ids
        if self.params.stream:
            for sample, temperature in enumerate(self.temperatures):
                chunk = self._text(ids[:, sample])
                self.job.text(chunk, sample=sample, temperature=temperature, at=begun)
        self.job.report(self.writer.written, self.params.length, "writing", checkpoint=self._state)

    @property
    def _call_s(self) -> float:
        # Each text is an event of its own.
        return CALL_S * max(1.0, len(self.temperatures) / 16) if self.params.stream else CALL_S

    def _state(self) -> dict[str, Any]:
        return self.writer.state() | {
            "ids": self.ids[: self.writer.written].copy(),
            "surprise": self.surprise,
        }

    def _text(self, ids: np.ndarray) -> str:
        return "".join(self.vocabulary.characters[place] for place in ids)

    def leave(self, name: str) -> None:
        """Save the texts as far as they are written."""
        texts = [self._text(column) for column in self.ids[: self.writer.written].T]
        samples = list(zip(self.temperatures, texts, strict=True))
        page = f"{self.prompt}{texts[0]}\n" if len(texts) == 1 else samples_page(self.prompt, samples)
        written = [{"temperature": temperature, "text": text} for temperature, text in samples]
        told: dict[str, Any] = {"prompt": self.prompt, "samples": written}
        self.job.summary["characters"] = self.writer.written
        if self.params.score_prompt and self.surprise is not None:
            score = self.surprise / math.log(2)
            told["prompt_bits_per_character"] = self.job.summary["prompt_bits_per_character"] = score
        self.job.save_artifact(f"{name}.txt", page.encode())
        self.job.save_artifact(f"{name}.json", json.dumps(told, ensure_ascii=False, indent=1).encode())
