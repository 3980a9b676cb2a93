"""Training texts: uploads and built-in corpora, as one small integer per character."""

import hashlib
import os
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.errors import DataUnavailable
from shared.kinds.lstm_train import CORPORA, LstmTrainParams
from shared.texts import CODE_POINTS, TextInfo, code_points, decoded, inspect_text, lower
from tasks.job_context import JobContext

NIETZSCHE_URL = "https://s3.amazonaws.com/text-datasets/nietzsche.txt"
NIETZSCHE_CHARACTERS = CORPORA["nietzsche"].characters  # "Corpus length: 600893", the Keras book, 8.1
DOWNLOAD_TIMEOUT_S = 20
_TABLE = ("|", "+-", "+=")

Pieces = Callable[[], Iterable[str]]
"""A text in pieces, from its start each time it is called: it is read twice, and never in memory as a whole."""


class Text(NamedTuple):
    """A text as training takes it."""

    ids: np.ndarray
    """(length,) uint8 or uint16: the place of each character in `characters`."""
    characters: str
    """The vocabulary, by code point."""

    def excerpt(self, start: int, length: int) -> str:
        """A piece of the text as a string."""
        return "".join(self.characters[place] for place in self.ids[start : start + length])


def load_text(params: LstmTrainParams, job: JobContext) -> Text:
    """The text that a training asks for, checked as at submit.

    Raises:
        InvalidInput: it cannot be read, or is too short.
        DataUnavailable: the corpus is neither here nor to be had.
    """
    if params.corpus is not None:
        text = read_corpus(params.corpus, job.settings.weights_dir)
        job.provenance["text_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        info = TextInfo(len(text), "".join(sorted(set(text))), text.isspace())
        pieces: Pieces = lambda: [text]  # noqa: E731
    else:
        path = str(job.upload_path(params.text or ""))
        job.provenance["text_sha256"] = params.text
        info = inspect_text(path, params.encoding, field="text")
        pieces = lambda: decoded(path, params.encoding, field="text")  # noqa: E731
    params.check_text(info)
    return encode(pieces, info, in_lower_case=params.lowercase)


def encode(pieces: Pieces, info: TextInfo, *, in_lower_case: bool) -> Text:
    """Number the characters of a text; beside the ids, only one piece of it is in memory."""
    meant = {character: lower(character) if in_lower_case else character for character in info.vocabulary}
    characters = "".join(sorted(set(meant.values())))
    place = {character: index for index, character in enumerate(characters)}
    dtype = np.uint8 if len(characters) <= 256 else np.uint16
    table = np.zeros(CODE_POINTS, dtype)
    for character, other in meant.items():
        table[ord(character)] = place[other]
    ids, done = np.empty(info.characters, dtype), 0
    for piece in pieces():
        ids[done : done + len(piece)] = table[code_points(piece)]
        done += len(piece)
    return Text(ids, characters)


def samples_page(prompt: str, samples: Sequence[tuple[float, str]]) -> str:
    """Texts as one page to read, each below its temperature and after its prompt."""
    return (
        "\n\n".join(f"----- temperature {temperature:g}\n{prompt}{text}" for temperature, text in samples)
        + "\n"
    )


def read_corpus(name: str, folder: Path) -> str:
    """A built-in text; downloads are kept in `folder`.

    Raises:
        DataUnavailable: saying which file to put where.
    """
    return python_docs() if name == "python_docs" else nietzsche(folder)


def python_docs() -> str:
    """CPython's own documentation: what `help()` says on each topic, as the running Python has it; no tables."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataUnavailable(
            "this Python comes without pydoc_data, its documentation; install it whole"
        ) from error
    text = "\n\n".join(topics[name].strip("\n") for name in sorted(topics)) + "\n"
    # A row of a table is mostly the blanks that fill its cells, which is what a model would then learn to write.
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(_TABLE))


def nietzsche(folder: Path) -> str:
    """The text that the Keras book's chapter trains on, from `folder` or, the first time, by download."""
    path = folder / "nietzsche.txt"
    if not path.exists():
        _download(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataUnavailable(f"{path.absolute()} cannot be read: {error}") from error
    if len(text) != NIETZSCHE_CHARACTERS:
        message = (
            f"{path.absolute()} has {len(text)} characters, not {NIETZSCHE_CHARACTERS}; {_where_from(path)}"
        )
        raise DataUnavailable(message)
    return text


def _download(path: Path) -> None:
    try:
        with urllib.request.urlopen(NIETZSCHE_URL, timeout=DOWNLOAD_TIMEOUT_S) as answer:
            data = answer.read(4 * NIETZSCHE_CHARACTERS)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several workers may fetch it at once: each renames a whole file of its own.
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        raise DataUnavailable(f"nietzsche.txt cannot be downloaded ({error}); {_where_from(path)}") from error


def _where_from(path: Path) -> str:
    return f"fetch {NIETZSCHE_URL} and put it at {path.absolute()}"
