"""A job followed to its end: its progress on a terminal as a live bar, plain lines where there is no terminal."""

import time
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.client import ENDED, Client, JobEvent
from api.exits import EXIT_FAILED, EXIT_INTERRUPTED
from api.printing import print_json, tell_end

_LINE_EVERY_S = 2.0
_METRICS_SHOWN = 3


def follow(
    client: Client, job_id: str, *, plain: bool = False, quiet: bool = False, as_json: bool = False
) -> None:
    """Follow a job to its end; the exit code says how it ended."""
    try:
        if quiet:
            client.wait(job_id)
        else:
            watch_job(client, job_id, plain=plain)
    except KeyboardInterrupt:
        click.echo(
            f"\nnot watching any more; the job goes on: dreamq watch {job_id}, or dreamq cancel {job_id}",
            err=True,
        )
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
    job = client.job(job_id)
    if as_json:
        print_json(job)
    else:
        tell_end(job)
    if job["status"] != "succeeded":
        raise click.exceptions.Exit(EXIT_FAILED)


def watch_job(client: Client, job_id: str, *, plain: bool = False) -> None:
    """Show what happens to a job until it ends."""
    console = Console(stderr=True, highlight=False)
    if plain or not console.is_terminal:
        watch_lines(client, job_id, console)
    else:
        watch_bar(client, job_id, console)


def watch_lines(client: Client, job_id: str, console: Console) -> None:
    """A line for each change, and one every few seconds while steps are made."""
    last, told_at = "", float("-inf")
    for event in client.events(job_id):
        line = line_of(event)
        if not line or line == last:
            continue
        if (
            event.type == "progress"
            and time.monotonic() - told_at < _LINE_EVERY_S
            and not is_last_step(event.data)
        ):
            continue
        if event.type == "progress":
            told_at = time.monotonic()
        console.print(line, markup=False, soft_wrap=True)
        last = line


def line_of(event: JobEvent) -> str:
    """An event in words; '' for what need not be said."""
    match event.type:
        case "status":
            return "" if event.data.get("status") in ENDED else standing(event.data)
        case "progress":
            of_total = f" of {event.data['total']}" if event.data["total"] else ""
            return f"step {event.data['step']}{of_total}  {told(event.data)}".rstrip()
        case "artifact":
            return f"file {event.data.get('name', '')}"
        case "text":
            return str(event.data.get("text", "")).rstrip("\n")
    return ""


_WHY = {
    "worker_lost": "its worker was lost",
    "shutdown": "its worker shut down",
    "stalled": "it made no step for too long",
    "out_of_memory": "the system killed its process for want of memory",
    "device_failed": "its device failed",
    "stopped": "it was stopped while its worker could not reach the storage",
    "internal": "its worker could not run it",
    "storage_unavailable": "its worker could not reach the storage",
}


def standing(status: dict[str, Any]) -> str:
    """A job's status in words; one that was running and is not any more with why, and what becomes of it."""
    word, reason = str(status.get("status", "")), status.get("reason")
    if word == "running" and status.get("cancel_requested"):
        return "running (cancel requested)"
    if word == "running" and status.get("attempt", 1) > 1:
        return f"running (attempt {status['attempt']})"
    if word != "queued" or not reason:
        return word
    step = status.get("goes_on_from_step")
    then = "begins anew" if step is None else f"goes on from its checkpoint of step {step}"
    return f"queued again: {_WHY.get(reason, reason)}; it {then}"


def is_last_step(progress: dict[str, Any]) -> bool:
    """Whether all steps are made."""
    return bool(progress["step"] >= progress["total"])


def told(progress: dict[str, Any]) -> str:
    """Message and the first metrics: `octave 2 of 3  loss 3.214`."""
    metrics = list((progress.get("metrics") or {}).items())[:_METRICS_SHOWN]
    parts = [progress.get("message") or ""]
    parts += [f"{name} {'-' if value is None else format(value, '.4g')}" for name, value in metrics]
    return "  ".join(part for part in parts if part)


def watch_bar(client: Client, job_id: str, console: Console) -> None:
    """A live bar; files and text scroll by above it."""
    columns = (
        TextColumn("{task.fields[status]}", markup=False, style="bold"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}", markup=False, style="dim"),
    )
    text = ""
    with Progress(*columns, console=console, transient=False) as progress:
        bar = progress.add_task("", total=None, status=client.job(job_id)["status"], told="")
        for event in client.events(job_id):
            if event.type == "status":
                progress.update(bar, status=event.data.get("status", ""))
                if event.data.get("reason"):
                    console.print(standing(event.data), markup=False)
            elif event.type == "progress":
                total = event.data["total"] or None
                progress.update(bar, completed=event.data["step"], total=total, told=told(event.data))
            elif event.type == "text":
                text += str(event.data.get("text", ""))
                *lines, text = text.split("\n")
                for line in lines:
                    console.print(line, markup=False)
            elif line := line_of(event):
                console.print(line, markup=False, style="dim")
        if text:
            console.print(text, markup=False)
