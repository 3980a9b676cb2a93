"""`dreamq admin`: straight to Redis, storage and the file of keys, with the server's settings."""

import re
from dataclasses import asdict
from pathlib import Path

import click

from api import keys
from api.exits import EXIT_REFUSED, Commands, Failure
from api.printing import as_json, print_json, print_table
from shared.doctor import examine
from shared.errors import RequestInvalid
from shared.queue import Queue
from shared.retention import Retention
from shared.settings import Settings

MARKS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.group(cls=Commands)
def admin() -> None:
    """For operators, on a host with the server's settings; needs no running server."""


def queue() -> Queue:
    """The queue that this host's settings describe; it gives up on a Redis that is away within seconds."""
    return Queue.from_settings(Settings.from_environment(), impatient=True)


@admin.command()
@click.argument("host")
@click.option("--undo", is_flag=True, help="Put the host back in service.")
@click.option("--ahead", is_flag=True, help="Also a host on which no worker runs now.")
def drain(host: str, undo: bool, ahead: bool) -> None:
    """Take HOST out of service: its workers checkpoint what they run, give it back to the queue, and end.

    A worker that is started there meanwhile takes no jobs until the host is back in service.
    """
    registry = queue().registry
    if undo:
        if not registry.undrain(host):
            raise RequestInvalid(
                f"{host} is not drained; drained are: {', '.join(registry.drained_hosts()) or 'none'}"
            )
        click.echo(f"{host} is back in service")
        return
    if not re.fullmatch(r"\S+", host):
        raise RequestInvalid(f"{host!r} is no host's name: `dreamq workers` shows those with workers")
    hosts = [worker["host"] for worker in registry.all()]
    if host not in hosts and not ahead:
        known = ", ".join(sorted(set(hosts))) or "none"
        raise RequestInvalid(
            f"no worker is on a host {host!r}, those with workers: {known}; --ahead drains it all the same"
        )
    registry.drain(host)
    click.echo(
        f"{host} is being drained: its workers ({hosts.count(host)}) give back their jobs and end within a minute; "
        "`dreamq workers` shows those left"
    )


@admin.command()
@click.option(
    "--days", type=click.IntRange(1), help="Remove what is older (default: the setting RETENTION_DAYS)."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@as_json
def prune(days: int | None, dry_run: bool, as_json: bool) -> None:
    """Remove old jobs: checkpoints first, then the jobs, then uploads that no job names, and what writers that were
    killed have left.

    Nothing of a job that has not ended is touched, nor what such a job names: its model, its pictures.
    """
    found = queue()
    days = days or found.settings.retention_days
    if days is None:
        raise RequestInvalid("say how old: --days N, or set RETENTION_DAYS")
    pruned = Retention(found, days, dry_run=dry_run).prune()
    if as_json:
        print_json(asdict(pruned))
        return
    done = "would be removed" if dry_run else "removed"
    click.echo(
        f"{len(pruned.checkpoints)} checkpoints, {len(pruned.jobs)} jobs, {len(pruned.uploads)} uploads and "
        f"{len(pruned.leftovers)} leftovers {done}"
    )


@admin.command()
@as_json
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check what dreamq stands on: Redis, storage, clocks, workers. Exit code 1 when a check fails."""
    findings = []
    for finding in examine(queue()):
        findings.append(finding)
        if not as_json:
            click.echo(
                f"{click.style(f'{finding.level:4}', fg=MARKS[finding.level])}  {finding.subject}: {finding.told}"
            )
            if finding.advice:
                click.echo(f"      -> {finding.advice}")
    if as_json:
        print_json([finding._asdict() for finding in findings])
    ctx.exit(any(finding.level == "fail" for finding in findings))


@admin.group("keys")
def admin_keys() -> None:
    """API keys: add, list, remove. They are kept, as hashes, in the file that API_KEYS_FILE names."""


def key_file() -> Path:
    """Where the keys are kept. Raises Failure when that is not set."""
    path = Settings.from_environment().api_keys_file
    if path is None:
        raise Failure("no file for API keys is set: set API_KEYS_FILE, here and for the server", EXIT_REFUSED)
    return path


@admin_keys.command("add")
@click.argument("name")
def add_key(name: str) -> None:
    """Make a key called NAME and show it; it cannot be shown again."""
    key = keys.add(key_file(), name)
    click.echo(key)
    click.echo(
        "this is the only time it is shown; clients send it as DREAMQ_API_KEY, or Authorization: Bearer",
        err=True,
    )


@admin_keys.command("list")
@as_json
def list_keys(as_json: bool) -> None:
    """List the keys' names."""
    path = key_file()
    found = keys.read(path) if path.exists() else []
    if as_json:
        print_json([{"name": key.name, "created_at": key.created_at} for key in found])
        return
    print_table(("name", "made"), [(key.name, key.created_at) for key in found])


@admin_keys.command("remove")
@click.argument("name")
def remove_key(name: str) -> None:
    """Remove the key called NAME; it is refused from then on."""
    keys.remove(key_file(), name)
    click.echo(f"removed {name}")
