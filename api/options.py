"""A kind's parameters as command-line options, made from the JSON schema of its model."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import click

from shared.kinds.base import JobParams
from shared.validation import ParamsInvalid

Schema = dict[str, Any]

_UPLOAD_ID = re.compile(r"[0-9a-f]{64}")
_METAVARS = {"integer": "INTEGER", "number": "NUMBER", "boolean": "true|false", "string": "TEXT"}


class LocalFile(NamedTuple):
    """A file named on the command line, to be uploaded before the job is submitted."""

    path: Path


def options_of(params: type[JobParams]) -> list[click.Option]:
    """An option for each parameter of a kind."""
    schema = params.model_json_schema()
    required = schema.get("required", [])
    fields = schema["properties"]
    own_first = sorted(fields, key=lambda name: name in JobParams.model_fields)
    return [option(name, fields[name], schema.get("$defs", {}), name in required) for name in own_first]


def option(name: str, field: Schema, definitions: Mapping[str, Schema], required: bool) -> click.Option:
    """The option of one parameter; left out, the server's default counts."""
    shapes = branches(field, definitions)
    flag = f"--{name.replace('_', '-')}"
    text = " ".join(str(field.get("description", "")).split())
    if field.get("default") is not None:
        text += f"  [default: {shown(field['default'])}]"
    bounds = limits(shapes)
    if bounds:
        text += f"  [{bounds}]"
    if any(shape.get("type") == "array" for shape in shapes):
        text += "  [several: repeat it, or put commas between]"
    if [shape.get("type") for shape in shapes] == ["boolean"]:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=text, required=required)
    return click.Option(
        [flag, name],
        multiple=any(shape.get("type") in ("object", "array") for shape in shapes),
        required=required,
        help=text,
        metavar=metavar(shapes, definitions),
    )


def branches(field: Schema, definitions: Mapping[str, Schema]) -> list[Schema]:
    """The shapes that a value may have, references resolved and null left out."""
    if "$ref" in field:
        return branches(definitions[field["$ref"].rpartition("/")[2]], definitions)
    for union in ("anyOf", "oneOf"):
        if union in field:
            return [shape for member in field[union] for shape in branches(member, definitions)]
    return [] if field.get("type") == "null" else [field]


def choices(shape: Schema) -> list[Any] | None:
    """The values of an enumeration, None for a shape that is none."""
    if "const" in shape:
        return [shape["const"]]
    return list(shape["enum"]) if "enum" in shape else None


def metavar(shapes: list[Schema], definitions: Mapping[str, Schema]) -> str:
    """What stands for the value in --help."""
    names = []
    for shape in shapes:
        values = choices(shape)
        if values is not None:
            names += [shown(value) for value in values if value != ""]
        elif shape.get("type") == "object":
            names.append("NAME=VALUE")
        elif shape.get("type") == "array":
            names.append(metavar(branches(shape.get("items", {}), definitions), definitions))
        else:
            names.append(
                {"upload": "FILE", "job": "JOB"}.get(
                    shape.get("format", ""), _METAVARS.get(shape.get("type", ""), "TEXT")
                )
            )
    return "|".join(dict.fromkeys(names))


def limits(shapes: list[Schema]) -> str:
    """The least and the greatest number that is taken."""
    said = []
    for shape in shapes:
        signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
        said += [f"{sign} {shape[name]}" for name, sign in signs.items() if name in shape]
    return ", ".join(said)


def shown(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={inner}" for name, inner in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def values_of(params: type[JobParams], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that were given, in their types, with a `LocalFile` wherever a file has to be uploaded.

    Raises:
        click.BadParameter: a value cannot be used; told before anything is uploaded.
    """
    schema = params.model_json_schema()
    found: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        value = given.get(name)
        if value is None or value == ():
            continue
        hint = f"--{name.replace('_', '-')}"
        try:
            found[name] = converted(value, field, schema.get("$defs", {}))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=hint) from error
    given = with_files(found, lambda file: "0" * 64)
    try:
        params.model_validate(given)
    except ParamsInvalid as error:
        first = error.finding
        named = [f"--{first.field.partition('.')[0].replace('_', '-')}"] if first.field else None
        message = first.message
        if message == "not the id of a job":
            message = f"{first.input!r:.80} is not the id of a job: `dreamq list` shows the jobs there are"
        raise click.BadParameter(message, param_hint=named) from error
    return found


def converted(value: Any, field: Schema, definitions: Mapping[str, Schema]) -> Any:
    """What was typed, as the first shape that it fits. Raises ValueError when it fits none."""
    if isinstance(value, bool):
        return value
    texts = [value] if isinstance(value, str) else list(value)
    if texts == ["null"] and {"type": "null"} in field.get("anyOf", []):
        return None
    shapes = branches(field, definitions)
    if (
        len(texts) == 1
        and texts[0].startswith("{")
        and any(shape.get("type") == "object" for shape in shapes)
    ):
        return cast(Any, json.loads(texts[0], object_pairs_hook=each_once))
    by_type: dict[str, Schema] = {shape.get("type", ""): shape for shape in shapes}
    if "object" in by_type and all("=" in text for text in texts):
        return members(texts, by_type["object"], definitions)
    plain = [shape for shape in shapes if shape.get("type") not in ("object", "array")]
    if plain and len(texts) == 1:
        try:
            return scalar(texts[0], plain)
        except ValueError:
            if "array" not in by_type:
                raise
    if "array" in by_type:
        inner = branches(by_type["array"].get("items") or {}, definitions)
        return [value for text in texts for value in listed(text, inner)]
    raise ValueError("give each as NAME=VALUE" if "object" in by_type else "give it once")


def members(texts: list[str], shape: Schema, definitions: Mapping[str, Schema]) -> dict[str, Any]:
    """An object from `name=value`, given one by one or, where the values are no texts, with commas between."""
    if shape.get("additionalProperties") != {"type": "string"}:
        texts = [part.strip() for text in texts for part in text.split(",")]
    pairs = []
    for text in texts:
        name, separator, word = text.partition("=")
        if not separator:
            raise ValueError(f"{text!r} is not NAME=VALUE")
        pairs.append((name, scalar(word, member(shape, name, definitions))))
    return each_once(pairs)


def each_once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these names, none of which may come twice: one of the two values would be lost."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is given twice")
        found[name] = value
    return found


def listed(text: str, shapes: list[Schema]) -> list[Any]:
    """One member of a list, or several with commas between (a file's name may have a comma in it)."""
    try:
        return [scalar(text, shapes)]
    except ValueError:
        if "," not in text:
            raise
    return [scalar(part.strip(), shapes) for part in text.split(",")]


def member(shape: Schema, name: str, definitions: Mapping[str, Schema]) -> list[Schema]:
    """The shapes that one member of an object may have."""
    others = shape.get("additionalProperties")
    return branches(
        shape.get("properties", {}).get(name) or (others if isinstance(others, dict) else {}), definitions
    )


def scalar(text: str, shapes: list[Schema]) -> Any:
    """One typed word as a value. Raises ValueError when it fits none of the shapes."""
    for shape in shapes:
        for choice in choices(shape) or ():
            if text == str(choice):
                return choice
    kinds = {shape.get("type"): shape for shape in shapes if choices(shape) is None}
    number = re.fullmatch(r"[+-]?\d+", text)
    if "integer" in kinds and number:
        return int(text)
    if "number" in kinds:
        try:
            return int(text) if number else float(text)
        except ValueError:
            pass
    if "boolean" in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if "string" in kinds:
        return uploadable(text, kinds["string"]) if kinds["string"].get("format") == "upload" else text
    if not shapes or None in kinds:
        return text
    raise ValueError(f"{text!r} is not {metavar(shapes, {})}")


def uploadable(text: str, shape: Schema) -> LocalFile | str:
    """A file to upload, the id of one that was uploaded before, or the name of something built in."""
    built_in = shape.get("built_in", [])
    path = Path(text).expanduser()
    if text in built_in or _UPLOAD_ID.fullmatch(text):
        return text
    if path.is_file():
        return LocalFile(path)
    if path.is_dir():
        packed = "" if shape.get("media", "").startswith(("image/", "text/")) else ", such as a zip of it"
        raise ValueError(f"{text!r} is a folder: name a file{packed}")
    instead = f", and nothing built in of that name: there are {', '.join(built_in)}" if built_in else ""
    raise ValueError(f"there is no file {text!r}{instead}")


def with_files(value: Any, replace: Callable[[LocalFile], str]) -> Any:
    """The same value with something else in place of each `LocalFile`."""
    if isinstance(value, LocalFile):
        return replace(value)
    if isinstance(value, dict):
        return {name: with_files(inner, replace) for name, inner in value.items()}
    if isinstance(value, list):
        return [with_files(inner, replace) for inner in value]
    return value
