"""The characters that a language model knows, and what else one must know to write with it: `vocabulary.json`."""

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shared.errors import InvalidInput
from shared.texts import lowercase, named
from shared.validation import first_finding

Mode = Literal["stateful", "window"]
Unknown = Literal["refuse", "drop", "replace"]

REPLACEMENT = " "
LARGEST = 1 << 16
"""Ids fit into 16 bits. (All of Unicode's Chinese characters are more, the texts that use them are not.)"""


class Place(BaseModel):
    """A piece of the training text, kept as a prompt for those who give none."""

    model_config = ConfigDict(frozen=True)

    offset: int
    """Where it starts in the text (characters)."""
    text: str


class Vocabulary(BaseModel):
    """What `vocabulary.json` holds. The id of a character is its place in `characters`."""

    model_config = ConfigDict(frozen=True)

    characters: str = Field(min_length=1, max_length=LARGEST)
    mode: Mode = "stateful"
    """How the model was trained, and so how it writes: with a carried state, or from the last `window` characters."""
    window: int = Field(60, ge=1, le=10_000)
    lowercase: bool = False
    """Whether the training text was put into lower case; a prompt then is, too."""
    places: tuple[Place, ...] = ()

    @field_validator("characters")
    @classmethod
    def _all_different(cls, value: str) -> str:
        if len(set(value)) != len(value):
            raise ValueError("the same character stands there twice")
        return value

    @classmethod
    def parse(cls, data: bytes, *, field: str) -> Self:
        """Read `vocabulary.json`, or what else people keep: a list of characters, or a map from character to id.

        Raises:
            InvalidInput: it is none of these; `field` is the parameter that named the file.
        """
        try:
            found = json.loads(data)
            if isinstance(found, dict) and "characters" in found:
                return cls.model_validate(found)
            return cls.model_validate({"characters": "".join(_in_order(found))})
        except ValidationError as error:
            raise InvalidInput(
                f"not a vocabulary: {first_finding(error, data).message}", field=field
            ) from error
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"not a vocabulary: {error}", field=field) from error

    def known(self, prompt: str, unknown: Unknown) -> tuple[str, str]:
        """A prompt as the model can read it, and the characters of it that the model has never seen.

        Raises:
            InvalidInput: there are such characters and `unknown` is `refuse`, or nothing of the prompt is left.
        """
        text = lowercase(prompt) if self.lowercase else prompt
        strange = "".join(dict.fromkeys(character for character in text if character not in self.characters))
        if not strange:
            return text, ""
        if unknown == "refuse":
            message = f"the model has never seen {named(strange)}; leave them out, or set unknown to drop or replace"
            raise InvalidInput(message, field="prompt")
        replacement = REPLACEMENT if unknown == "replace" else ""
        if replacement not in self.characters:
            raise InvalidInput(
                "the model has never seen a space, so nothing can be replaced by it", field="unknown"
            )
        kept = text.translate(dict.fromkeys(map(ord, strange), replacement))
        if not kept:
            raise InvalidInput(f"nothing is left of the prompt without {named(strange)}", field="prompt")
        return kept, strange


def _in_order(found: Any) -> list[str]:
    """The characters of a list, or of a map from character to id, by id."""
    if isinstance(found, dict) and sorted(found.values(), key=str) == sorted(range(len(found)), key=str):
        found = sorted(found, key=lambda character: int(found[character]))
    if not isinstance(found, list) or not all(isinstance(item, str) and len(item) == 1 for item in found):
        raise ValueError("neither vocabulary.json, nor a list of characters, nor a map from character to id")
    return found
