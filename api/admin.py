"""`dreamq admin drain`, `prune` and `doctor`: straight to Redis and storage, with the server's settings."""

import json
import re
from dataclasses import asdict

import click

from shared.doctor import examine
from shared.errors import RequestInvalid
from shared.queue import Queue
from shared.retention import Retention
from shared.settings import Settings

MARKS = {"ok": "green", "warn": "yellow", "fail": "red"}


def queue() -> Queue:
    """The queue that this host's settings describe; it gives up on a Redis that is away within seconds."""
    return Queue.from_settings(Settings.from_environment(), impatient=True)


@click.command()
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


@click.command()
@click.option(
    "--days", type=click.IntRange(1), help="Remove what is older (default: the setting RETENTION_DAYS)."
)
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
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
        click.echo(json.dumps(asdict(pruned), indent=2))
        return
    done = "would be removed" if dry_run else "removed"
    click.echo(
        f"{len(pruned.checkpoints)} checkpoints, {len(pruned.jobs)} jobs, {len(pruned.uploads)} uploads and "
        f"{len(pruned.leftovers)} leftovers {done}"
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
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
        click.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    ctx.exit(any(finding.level == "fail" for finding in findings))
