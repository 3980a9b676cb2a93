"""Write what the documentation says of the code from the code: `make docs`. A test compares the two."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from api import cli, submit
from shared.kinds import KINDS as KNOWN
from shared.kinds.base import JobParams
from shared.kinds.style_transfer import STYLE_DEFAULTS
from shared.pictures import PictureInfo
from shared.placement import class_for
from shared.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
KINDS = {kind: params for kind, params in KNOWN.items() if params.__module__.startswith("shared.kinds.")}
"""The kinds that dreamq comes with, without those of EXTRA_KINDS."""

KINDS_INTRODUCTION = """
Written by `make docs` from the parameters' own definitions in `shared/kinds/`. A server tells the same, as JSON
schemas, at `/v1/kinds`; on the command line `dreamq submit KIND --help` does. A parameter without a default must be
given. An *upload* is the id that an upload was answered with; the command line takes a file's path instead.
""".strip()


def documents() -> dict[Path, str]:
    """Each file that is generated, whole or in part, and what it should hold."""
    readme, scaling, style = (
        ROOT / name for name in ("README.md", "docs/scaling.md", "docs/style-transfer.md")
    )
    text = replaced(readme.read_text(), "kinds", kinds_table())
    return {
        readme: replaced(text, "settings", settings_table()),
        ROOT / "docs/kinds.md": kinds_page(),
        scaling: replaced(scaling.read_text(), "memory", memory_table()),
        style: replaced(style.read_text(), "layers", layers_table()),
        ROOT / "docs/command-line.md": command_line_page(),
    }


def replaced(text: str, name: str, content: str) -> str:
    """The text with new content between the comments that mark a generated part."""
    marked = rf"(<!-- {name}: [^\n]* -->\n).*?(<!-- /{name} -->)"
    found, count = re.subn(marked, lambda match: f"{match[1]}\n{content}\n{match[2]}", text, flags=re.DOTALL)
    assert count == 1, f"one part named {name!r} is marked"
    return found


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def one_line(text: str) -> str:
    return " ".join(text.split())


def settings_table() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{told(field.default)}`"
        rows.append((f"`{name.upper()}`", default, one_line(field.description or "")))
    return table(("variable", "default", "meaning"), rows)


def told(value: Any) -> str:
    """A value as one would write it."""
    if isinstance(value, Path):
        return f"./{value}"
    return json.dumps(value) if not isinstance(value, str) else value


class Photos:
    """What a submit looks at, where every upload is a picture of one size."""

    settings = Settings()
    largest_worker_bytes = None

    def __init__(self, width: int, height: int) -> None:
        self.info = PictureInfo(width=width, height=height, format="JPEG")

    def picture(self, upload_id: str, field: str) -> PictureInfo:
        return self.info

    def path(self, upload_id: str, field: str) -> str:
        raise LookupError(field)

    def job(self, job_id: str, field: str) -> Any:
        raise LookupError(field)

    def artifact(self, job_id: str, name: str, field: str) -> bytes:
        raise LookupError(field)


_UPLOAD, _JOB = "0" * 64, "0" * 26
_DREAM: dict[str, Any] = {"image": _UPLOAD}
_PAINT: dict[str, Any] = {"content_image": _UPLOAD, "style_images": [_UPLOAD]}
_SMALL, _HD, _CAMERA, _LARGE = (1024, 768), (1920, 1080), (4000, 3000), (8000, 6000)
FORECASTS: list[tuple[str, tuple[int, int] | None, dict[str, Any], dict[str, Any]]] = [
    # A kind, the size of its pictures, what it must be given, and what of its parameters is not the default.
    *(("deepdream", size, _DREAM, {}) for size in (_SMALL, _HD, _CAMERA, _LARGE)),
    ("style_transfer", _CAMERA, _PAINT, {}),
    *(("style_transfer", _CAMERA, _PAINT, {"size_px": side_px}) for side_px in (1024, 2048, 4096)),
    ("style_transfer", _CAMERA, _PAINT, {"size_px": 4096, "tile_px": 4096}),
    ("lstm_train", None, {"corpus": "python_docs"}, {}),
    ("lstm_train", None, {"corpus": "python_docs"}, {"layers": 3, "units": 1024, "window": 200}),
    ("lstm_sample", None, {"model_job": _JOB}, {}),
    ("vae_train", None, {"dataset": "fashion_mnist"}, {}),
    ("vae_train", None, {"dataset": "cifar10"}, {"batch_size": 512}),
    ("gan_train", None, {"dataset": "fashion_mnist"}, {}),
    ("gan_train", None, {"dataset": "cifar10"}, {"image_size": 128, "batch_size": 256}),
    ("vae_sample", None, {"model_job": _JOB}, {}),
    ("gan_sample", None, {"model_job": _JOB}, {}),
]


def memory_table() -> str:
    """What each kind forecasts at a few sizes, and the memory class that follows."""
    rows = []
    for kind, size, given, changed in FORECASTS:
        params = KINDS[kind].model_validate({**given, **changed})
        forecast = params.forecast_bytes(Photos(*(size or (1, 1))))
        of = [f"`{name}={told(value)}`" for name, value in changed.items()]
        of += [f"{size[0]} x {size[1]} px"] if size else []
        of += [f"`{given[name]}`" for name in ("corpus", "dataset") if name in given]
        said = f"{forecast / 2**30:.2f} GiB" if forecast >= 2**20 else "little"
        rows.append((f"`{kind}`", ", ".join(of) or "defaults", said, f"`{class_for(forecast)}`"))
    return table(("kind", "of", "forecast", "class"), rows)


def layers_table() -> str:
    """What style transfer looks at with each network."""
    rows = []
    for network, own in STYLE_DEFAULTS.items():
        weights = ", ".join(f"`{name}` {weight:g}" for name, weight in own.style_layers.items())
        rows.append((f"`{network}`", f"`{own.content_layer}`", weights))
    return table(("network", "content layer", "style layers and their weights"), rows)


def kinds_table() -> str:
    rows = [(f"[`{kind}`](docs/kinds.md#{kind})", summary(params)) for kind, params in KINDS.items()]
    return table(("kind", "what it does"), rows)


def summary(params: type[JobParams]) -> str:
    """The first sentence of what a kind says of itself."""
    return one_line((params.__doc__ or "").split("\n\n")[0])


def kinds_page() -> str:
    """All kinds with all their parameters, from their schemas."""
    parts = ["# Kinds of job", KINDS_INTRODUCTION]
    for kind, params in KINDS.items():
        schema = params.model_json_schema()
        needed = schema.get("required", [])
        rows = [
            (
                f"`{name}`",
                values(field, schema),
                default(name, field, needed),
                one_line(field.get("description", "")),
            )
            for name, field in schema["properties"].items()
        ]
        doc = re.sub(r"\n +", "\n", (params.__doc__ or "").strip())
        parts += [f"## {kind}", doc, table(("parameter", "values", "default", "meaning"), rows).rstrip()]
    return "\n\n".join(parts) + "\n"


def default(name: str, field: dict[str, Any], needed: list[str]) -> str:
    if name in needed:
        return "needed"
    if field.get("default") is None:
        return ""
    return f"`{told(field['default'])}`"


def values(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Which values a field takes, in words: its type, choices and limits."""
    if "$ref" in field:
        return values(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in field:
        return " or ".join(values(choice, schema) for choice in field["anyOf"])
    if "enum" in field or "const" in field:
        return ", ".join(f"`{told(choice)}`" for choice in field.get("enum", [field.get("const")]))
    match field.get("type"):
        case "array":
            least, most = field.get("minItems"), field.get("maxItems")
            count = f"{least or 0} to {most} " if most else f"at least {least} " if least else ""
            return f"list of {count}{values(field.get('items', {}), schema)}"
        case "object":
            of = field.get("additionalProperties")
            return f"map of names to {values(of, schema)}" if isinstance(of, dict) else "map"
        case "string" if "format" in field:
            return {"upload": f"upload ({field.get('media')})", "job": "job id"}.get(
                field["format"], field["format"]
            )
        case "null":
            return "null"
        case kind:
            return one_line(f"{kind or 'any'} {limits(field)}")


def limits(field: dict[str, Any]) -> str:
    """The range of a number, or the length of a text."""
    signs = {
        "minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<",
        "minLength": "length ≥", "maxLength": "length ≤",
    }  # fmt: skip
    return ", ".join(f"{sign} {field[name]}" for name, sign in signs.items() if name in field)


def command_line_page() -> str:
    """What `--help` says of each command."""
    parts = ["# The dreamq command", "Written by `make docs` from the commands' own help."]
    parts += [f"## {name}\n\n```\n{text}\n```" for name, text in helps(cli.main, "dreamq")]
    return "\n\n".join(parts) + "\n"


def helps(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """A command's name and help, then those of the commands below it."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=100, max_content_width=100)
    if isinstance(command, submit.SubmitCommands):
        yield (
            context.command_path,
            f"{context.get_usage()}\n\n  {command.help}",
        )  # the kinds have a page of their own
        return
    yield context.command_path, context.get_help()
    for below in command.list_commands(context) if isinstance(command, click.Group) else []:
        found = command.get_command(context, below)
        assert found is not None
        yield from helps(found, below, context)


def main() -> None:
    """Write every document that differs from the code."""
    for path, text in documents().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"{path.relative_to(ROOT)}: written")


if __name__ == "__main__":
    main()
