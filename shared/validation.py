"""What pydantic finds wrong, in dreamq's words: which field, and what it takes instead."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import RequestInvalid
from shared.job import ID_PATTERN, Priority

SHA256_PATTERN = r"^[0-9a-f]{64}$"
JOB_ID_PATTERN = r"^[0-9a-z]{20,40}$"
CURSOR_PATTERN = r"^\d{1,16}-[0-9a-z]{26}$"
LABEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
IDEMPOTENCY_KEY_PATTERN = r"^[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?$"

JobId = Annotated[str, Field(pattern=ID_PATTERN)]
LabelName = Annotated[str, Field(pattern=LABEL_NAME_PATTERN)]
LabelValue = Annotated[str, Field(max_length=255)]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=32)]
DependsOn = Annotated[list[JobId], Field(max_length=100)]

_UPLOAD_FIRST = "upload the file first, and name the id that is answered"
_FORMS = {
    SHA256_PATTERN: _UPLOAD_FIRST,
    JOB_ID_PATTERN: "not the id of a job",
    ID_PATTERN: "not the id of a job",
    CURSOR_PATTERN: "not one that a list call answered",
    LABEL_NAME_PATTERN: "a label's name has 1 to 63 letters, digits, dots, dashes and underscores, and begins with "
    "a letter or a digit",
    IDEMPOTENCY_KEY_PATTERN: "1 to 255 printable ASCII characters, without spaces at its ends",
}
"""What is said of a text that does not have the form of its field."""
_TYPES = {
    "missing": "is required",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "finite_number": "must be a finite number",
    "string_unicode": "must be text without halves of surrogate pairs",
    "dict_type": "must be an object: names, each with a value",
    "mapping_type": "must be an object: names, each with a value",
    "model_type": "must be an object: names, each with a value",
}
_BY_START = {
    "int_": "must be a whole number",
    "float_": "must be a number",
    "bool_": "must be true or false",
    "string_type": "must be text",
    "string_sub_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
}
_SHAPE = re.compile(
    r"(literal|constrained|function|nullable|dict|list|tuple|lax|json)[-\[].*|int|float|str|bool"
)
"""What pydantic adds to a place to say which of several shapes it tried there."""


class Finding(NamedTuple):
    """The first thing that is wrong with what was given."""

    type: str
    """Pydantic's name for it."""
    field: str
    """Where: names and numbers with dots between; "" for the whole."""
    message: str
    """What is wrong, without the field's name."""
    input: Any


def first_finding(error: ValidationError) -> Finding:
    """What to tell of a model's trouble; a misspelt name first, since it may be why another field is missing."""
    # A default that is made from another field is not made when that field is wrong: a consequence, not a cause.
    found = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
    first = min(found, key=lambda one: one["type"] != "extra_forbidden")
    field = _place(first["loc"])
    # A field that takes several shapes has an error for each.
    messages = dict.fromkeys(_said(one) for one in found if _place(one["loc"]) == field)
    message = ", or ".join(messages).replace(", or must be ", ", or ")
    return Finding(first["type"], field, message, first["input"])


def _place(loc: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in loc]
    return ".".join(
        [*parts[:1], *(part for part in parts[1:] if part != "[key]" and not _SHAPE.fullmatch(part))]
    )


def _said(found: Mapping[str, Any]) -> str:
    """One of pydantic's errors in our words."""
    kind, context = found["type"], found.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return _form(context["pattern"])
    if kind in _TYPES:
        return _TYPES[kind].format_map(context)
    for start, words in _BY_START.items():
        if kind.startswith(start):
            return words
    message = str(found["msg"]).removeprefix("Value error, ").replace(" after validation", "")
    return re.sub(r"^(Input|String|List|Dictionary|Tuple) should (be|have) ", r"must \2 ", message)


def _form(pattern: str) -> str:
    """What is said of a text that does not match."""
    if pattern not in _FORMS and "[0-9a-f]{64}" in pattern:
        return f"{_UPLOAD_FIRST}, or one of {', '.join(pattern.strip('^()$').split('|')[1:])}"
    return _FORMS.get(pattern, f"does not have the form {pattern}")


def request_invalid(error: ValidationError, known: Mapping[str, Any]) -> RequestInvalid:
    """The trouble with a request, as our error; `known` are the fields that there are."""
    first = first_finding(error)
    if first.type == "extra_forbidden":
        message = f"there is no field {first.field!r} here; there are {', '.join(known)}"
    elif first.type == "missing":
        message = f"{first.field} is required"
    else:
        message = f"{first.field}: {first.message}"
    return RequestInvalid(message, field=first.field)


class Wishes(BaseModel):
    """What may be said of a job of any kind, beside its parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: Priority = "normal"
    depends_on: DependsOn = []
    labels: Labels = {}
    idempotency_key: Annotated[str, Field(pattern=IDEMPOTENCY_KEY_PATTERN)] | None = None

    @classmethod
    def checked(cls, **given: Any) -> "Wishes":
        """What was given.

        Raises:
            RequestInvalid: it cannot be used; `field` names what.
        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise request_invalid(error, cls.model_fields) from error
