"""What the commands print: a job in words, tables for people, JSON for programs."""

import json
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.client import ENDED

_BRIEF = 120  # characters

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def described(job: dict[str, Any]) -> list[tuple[str, str]]:
    """A job in words, line by line."""
    progress, status = job["progress"], job["status"]
    if job["cancel_requested"] and status not in ENDED:
        status += " (cancel requested)"
    lines = [("job", job["id"]), ("kind", job["kind"]), ("status", status)]
    if job["queue_position"]:
        lines.append(("position", str(job["queue_position"])))
    if progress["total"]:
        step = f"{progress['step']} of {progress['total']}"
        lines.append(("progress", f"{step}  {progress['message']}".rstrip()))
    if job["attempts"][1:] or status == "queued":
        lines += [
            (
                "attempt",
                f"{attempt['attempt']}: {attempt['reason']} on {attempt['worker']}, {attempt['ended_at']}",
            )
            for attempt in job["attempts"]
            if attempt["ended_at"]
        ]
    if job["worker"]:
        lines.append(("worker", f"{job['worker']['name']} ({job['worker']['device']})"))
    if job["error"]:
        lines.append(("error", f"{job['error']['message']} ({job['error']['code']})"))
    lines += [("warning", f"{warning['message']} ({warning['code']})") for warning in job["warnings"]]
    lines += [("summary", f"{name}: {brief(value)}") for name, value in job["summary"].items()]
    lines += [(name, job[f"{name}_at"]) for name in ("created", "started", "finished") if job[f"{name}_at"]]
    lines += [("file", f"{artifact['name']}  {artifact['bytes']:,} bytes") for artifact in job["artifacts"]]
    return lines


def brief(value: Any) -> str:
    """A value of a summary on one line; `--json` shows all of it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 3]}..."


def tell_end(job: dict[str, Any]) -> None:
    """How a job ended, and what to do next."""
    if job["status"] == "failed":
        click.echo(f"failed: {job['error']['message']} ({job['error']['code']})", err=True)
    else:
        click.echo(job["status"])
    for warning in job["warnings"]:
        click.echo(f"warning: {warning['message']} ({warning['code']})", err=True)
    if job["artifacts"]:
        names = [artifact["name"] for artifact in job["artifacts"]]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        click.echo(f"it left {', '.join(names[-3:])}{more}: fetch with dreamq get {job['id']}", err=True)


def minute(time: str) -> str:
    """A time of the API, to the second, as people write it."""
    return time[:19].replace("T", " ")


def labels_of(job: dict[str, Any]) -> str:
    """A job's labels as they are given."""
    return ", ".join(f"{name}={value}" for name, value in job["labels"].items())


def percent(job: dict[str, Any]) -> str:
    """How far a job is, in percent of its steps."""
    progress = job["progress"]
    return f"{100 * progress['step'] // progress['total']}%" if progress["total"] else ""


def first_line(text: str) -> str:
    """The first line of a description."""
    return text.strip().partition("\n")[0]


def activity(worker: dict[str, Any]) -> str:
    """What a worker runs; else `idle`, or why it takes nothing (`drained`, `quarantined`, ...), or that it is lost."""
    state, jobs = str(worker.get("state", "ready")), ", ".join(worker.get("jobs", []))
    if worker.get("lost"):
        return f"lost: silent since {minute(worker['heard_at'])}" + (f", with {jobs}" if jobs else "")
    return jobs or ("idle" if state == "ready" else state)


def print_table(columns: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> None:
    """A table for people; plain columns where there is no terminal."""
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # Text: what comes from users is no markup
    if console.is_terminal:
        console.print(table)
        return
    for row in [columns, *rows]:
        click.echo("\t".join(map(str, row)))


def print_json(value: Any) -> None:
    """JSON on standard output."""
    click.echo(json.dumps(value, indent=2))
