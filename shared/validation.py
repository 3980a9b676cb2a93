"""What pydantic finds wrong, in dreamq's words: which field, and what it takes instead."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.errors import InvalidInput, RequestInvalid
from shared.job import ID_PATTERN, Priority

SHA256_PATTERN = r"^[0-9a-f]{64}$"
JOB_ID_PATTERN = r"^[0-9a-z]{20,40}$"
CURSOR_PATTERN = r"^\d{1,16}-[0-9a-z]{26}$"
LABEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
IDEMPOTENCY_KEY_PATTERN = r"^[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?$"

JobId = Annotated[str, Field(pattern=ID_PATTERN)]
LabelName = Annotated[str, Field(strict=True, pattern=LABEL_NAME_PATTERN)]
LabelValue = Annotated[str, Field(strict=True, max_length=255)]
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
_LONGEST_PART = 80
_SHAPE = re.compile(
    r"(literal|constrained|function|nullable|dict|list|tuple|lax|json)[-\[].*|int|float|str|bool"
)
"""What pydantic adds to a place to say which of several shapes it tried there."""


_KEY = "[key]"
"""What pydantic adds to the place of a name that is wrong itself."""
_NOTHING = object()

Place = tuple[int | str, ...]


class Finding(NamedTuple):
    """The first thing that is wrong with what was given."""

    type: str
    """Pydantic's name for it."""
    field: str
    """Where: names and numbers with dots between; "" for the whole."""
    message: str
    """What is wrong, without the field's name."""
    input: Any


def first_finding(error: ValidationError, given: object) -> Finding:
    """What to tell of a model's trouble; a misspelt name first, since it may be why another field is missing.

    Args:
        given: what the model was to be made of.
    """
    # A default that is made from another field is not made when that field is wrong: a consequence, not a cause.
    found = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
    first = min(found, key=lambda one: one["type"] != "extra_forbidden")
    place = _place(first, given)
    # A field that takes several shapes has an error for each.
    messages = dict.fromkeys(_said(one) for one in found if _place(one, given) == place)
    message = ", or ".join(messages).replace(", or must be ", ", or ")
    field = ".".join(_cut(str(part)) for part in place if part != _KEY)
    return Finding(first["type"], field, message, first["input"])


def _cut(part: str) -> str:
    return part if len(part) <= _LONGEST_PART else f"{part[: _LONGEST_PART - 1]}…"


def _place(found: Mapping[str, Any], given: object) -> Place:
    """Where one of pydantic's errors is, without what it says of the shape that it tried there."""
    loc = found["loc"]
    if not loc:
        return ()
    ways = [((loc[0], *parts), end) for parts, end in _ways(loc[1:], _inside(given, loc[0]))]
    # A name among the user's own may look like a shape: that way is right which leads to what pydantic looked at.
    return next((place for place, end in ways if end is found["input"]), ways[0][0])


def _ways(loc: Place, value: object) -> Iterator[tuple[Place, object]]:
    """All that a place may mean, likeliest first, each with what stands there."""
    if not loc:
        yield (), value
        return
    part, rest = loc[0], loc[1:]
    inside = _inside(value, part)
    shape = isinstance(part, str) and _SHAPE.fullmatch(part)
    if inside is not _NOTHING or not shape:
        yield from (((part, *parts), end) for parts, end in _ways(rest, inside))
    if shape:
        yield from _ways(rest, value)


def _inside(value: object, part: int | str) -> object:
    """What stands under a name or number in a value."""
    if isinstance(value, Mapping):
        return value.get(part, _NOTHING)
    if isinstance(value, list | tuple) and isinstance(part, int) and 0 <= part < len(value):
        return value[part]
    return _NOTHING


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


def request_invalid(error: ValidationError, given: object, known: Mapping[str, Any]) -> RequestInvalid:
    """The trouble with a request, as our error; `known` are the fields that there are."""
    first = first_finding(error, given)
    if first.type == "extra_forbidden":
        message = f"there is no field {first.field!r} here; there are {', '.join(known)}"
    elif first.type == "missing":
        message = f"{first.field} is required"
    else:
        message = f"{first.field}: {first.message}"
    return RequestInvalid(message, field=first.field)


class ParamsInvalid(InvalidInput):
    """A parameter is not what its kind takes."""

    def __init__(self, error: ValidationError, given: object, known: Iterable[str]) -> None:
        """In our words what a parameters' model found.

        Args:
            given: the parameters as they came.
            known: those that the kind has.
        """
        self.finding = first = first_finding(error, given)
        field = first.field or "params"
        if first.type == "extra_forbidden":
            message = f"there is no parameter {field!r}; there are {', '.join(known)}"
        elif first.type == "missing":
            message = f"{field} is required"
        else:
            message = f"{field}: {first.message} (given: {_shown(first.input)})"
        super().__init__(message, field=field)


def _shown(value: object) -> str:
    """The beginning of a value as Python writes it."""
    try:
        return _cut(repr(value))
    except Exception:  # whatever a caller's own class raises; and Python writes no number of over 4300 digits
        return f"what cannot be shown, of type {type(value).__name__}"


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
            raise request_invalid(error, given, cls.model_fields) from error
