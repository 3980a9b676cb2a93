"""Texts as both sides see them: decoded strictly, piece by piece, and counted in code points."""

import codecs
import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInput

CODE_POINTS = 0x110000
CHUNK_BYTES = 1 << 20
BOM = "\ufeff"

_NOT_TEXT = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined", "mbcs", "oem"}
"""Codecs that Python counts as text encodings, though no file is written in them (or not on this system)."""


class TextInfo(NamedTuple):
    """What is known of a text after one pass over it."""

    characters: int
    """Its length in code points."""
    vocabulary: str
    """Its different characters, by code point."""
    blank: bool
    """Whether it is nothing but white space."""


def known_encoding(name: str) -> str:
    """The codec's own name of a text encoding.

    Raises:
        ValueError: there is no such encoding, or it is none for text files.
    """
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError) as error:
        raise ValueError(
            f"there is no encoding {name!r}; utf-8, latin-1 and cp1252 are the most common"
        ) from error
    if not codec._is_text_encoding or codec.incrementaldecoder is None or codec.name in _NOT_TEXT:
        raise ValueError(
            f"{name!r} is no encoding of text files; utf-8, latin-1 and cp1252 are the most common"
        )
    return codec.name


def decoded(path: str, encoding: str, *, field: str) -> Iterator[str]:
    """The text of a file in pieces of about 1 MB. A byte order mark at the start of UTF-8 is no part of the text.

    Raises:
        InvalidInput: a byte that this encoding cannot have, with its offset in the file; nothing is ever dropped.
    """
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    read, first = 0, True
    with open(path, "rb") as file:
        while True:
            data = file.read(CHUNK_BYTES)
            read += len(data)
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                # `error.object` is what the decoder had kept of earlier pieces, and this one.
                offset = read - len(error.object) + error.start
                raise InvalidInput(_wrong_byte(error, offset, encoding), field=field) from error
            except UnicodeError as error:
                raise InvalidInput(f"not a text in {encoding}: {error}", field=field) from error
            if first and text:
                text, first = text.removeprefix(BOM), False
            if text:
                yield text
            if not data:
                return


def code_points(text: str) -> NDArray[np.uint32]:
    """The characters of a string as numbers, one each."""
    # Lone surrogates cannot come from a file, but from JSON.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@functools.lru_cache(maxsize=256)
def inspect_text(path: str, encoding: str, *, field: str) -> TextInfo:
    """Look a text through, in one pass and little memory. (An upload never changes under its name.)

    Raises:
        InvalidInput: as `decoded`.
    """
    seen = np.zeros(CODE_POINTS, bool)
    characters, blank = 0, True
    for text in decoded(path, encoding, field=field):
        seen[code_points(text)] = True
        characters += len(text)
        blank = blank and text.isspace()
    return TextInfo(characters, "".join(map(chr, np.flatnonzero(seen))), blank)


def lower(character: str) -> str:
    """The lower case of one character, where that is one character too; else itself (`İ` has two).

    So a text keeps its length, and the letters their places. The Greek final sigma stays a plain one.
    """
    lowered = character.lower()
    return lowered if len(lowered) == 1 else character


def lowercase(text: str) -> str:
    """A text in lower case, character by character."""
    return "".join(map(lower, text))


def named(characters: str) -> str:
    """Characters as a message can show them: each quoted, white space and controls escaped, at most 20."""
    shown = ", ".join(repr(character) for character in characters[:20])
    return shown + (f" and {len(characters) - 20} more" if len(characters) > 20 else "")


def vocabulary_differences(old: str, new: str) -> str:
    """What two vocabularies do not share, in words; empty when they are the same."""
    told = []
    if added := "".join(character for character in new if character not in old):
        told.append(f"the model has never seen {named(added)}")
    if missing := "".join(character for character in old if character not in new):
        told.append(f"the text lacks {named(missing)}")
    return "; ".join(told)


def _wrong_byte(error: UnicodeDecodeError, offset: int, encoding: str) -> str:
    byte = error.object[error.start]
    return (
        f"byte {offset} (0x{byte:02x}) is not {encoding} ({error.reason}); "
        "name the encoding that the text is written in, such as latin-1, or convert it"
    )
