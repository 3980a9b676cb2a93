"""The `dreamq` command: a client of the API, and `dreamq admin` for operators on the server's host.

Exit codes: 0 done; 1 the job failed or was cancelled; 2 the command or the job's parameters were refused;
3 the server cannot be reached or is not ready; 130 interrupted (a job that was watched goes on).
"""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from api import admin, submit
from api.client import ENDED, ApiError, Client
from api.exits import EXIT_FAILED, Commands, Failure
from api.printing import (
    activity,
    as_json,
    described,
    first_line,
    labels_of,
    minute,
    percent,
    print_json,
    print_table,
    tell_end,
)
from api.watch import follow


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--url",
    envvar="DREAMQ_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="The server.",
)
@click.pass_context
def main(ctx: click.Context, url: str) -> None:
    """Dream, paint, write: submit jobs to a dreamq server, watch them, fetch what they made.

    A server with API keys wants one in DREAMQ_API_KEY.

    Exit codes: 0 done; 1 the job failed or was cancelled; 2 refused; 3 the server is not there; 130 interrupted.
    """
    ctx.obj = Client(url, os.environ.get("DREAMQ_API_KEY"))


main.add_command(submit.submit)
main.add_command(admin.admin)


@main.command()
@click.argument("job_id", metavar="JOB")
@as_json
@click.pass_obj
def watch(client: Client, job_id: str, as_json: bool) -> None:
    """Show a job's progress until it ends. Ctrl-C leaves the job running."""
    client.job(job_id)
    follow(client, job_id, quiet=as_json, as_json=as_json)


@main.command()
@click.argument("job_id", metavar="JOB")
@as_json
@click.pass_obj
def status(client: Client, job_id: str, as_json: bool) -> None:
    """Show a job."""
    job = client.job(job_id)
    if as_json:
        print_json(job)
        return
    for name, value in described(job):
        click.echo(f"{name:<10}{value}")


@main.command("list")
@click.option(
    "--status",
    type=click.Choice(["waiting", "queued", "running", *sorted(ENDED)]),
    help="Jobs in this status only.",
)
@click.option("--kind", help="Jobs of this kind only.")
@click.option("--label", metavar="NAME[=VALUE]", help="Jobs with this label only.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True, help="How many at most.")
@click.option("--cursor", help="Where an earlier list ended.")
@as_json
@click.pass_obj
def list_jobs(client: Client, /, as_json: bool, **filters: Any) -> None:
    """List jobs, newest first."""
    page = client.jobs(**filters)
    if as_json:
        print_json(page)
        return
    rows = [
        (job["id"], job["kind"], job["status"], percent(job), minute(job["created_at"]), labels_of(job))
        for job in page["jobs"]
    ]
    print_table(("job", "kind", "status", "progress", "created (UTC)", "labels"), rows)
    if not rows:
        chosen = any(filters[name] for name in ("status", "kind", "label", "cursor"))
        click.echo(
            "no job fits" if chosen else "there are no jobs yet: dreamq submit KIND makes one", err=True
        )
    if page["next_cursor"]:
        click.echo(f"more: dreamq list --cursor {page['next_cursor']}", err=True)


@main.command()
@click.argument("job_id", metavar="JOB")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--into",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder; by default one named as the job.",
)
@as_json
@click.pass_obj
def get(client: Client, job_id: str, names: tuple[str, ...], into: Path | None, as_json: bool) -> None:
    """Download a job's files, all of them or those named, also while it runs."""
    folder = into or Path(job_id)
    paths = client.download(
        job_id, folder, names or None, tell=lambda path: None if as_json else click.echo(path)
    )
    if as_json:
        print_json([str(path) for path in paths])
    elif not paths:
        job = client.job(job_id)
        if job["status"] in ENDED:
            tell_end(job)
            raise Failure(f"job {job_id} left no files", EXIT_FAILED)
        click.echo(f"job {job_id} has no files yet: it is {job['status']}", err=True)


@main.command()
@click.argument("job_id", metavar="JOB")
@as_json
@click.pass_obj
def cancel(client: Client, job_id: str, as_json: bool) -> None:
    """Ask for a job's cancel; what it has made so far is kept."""
    job = client.cancel(job_id)
    if as_json:
        print_json(job)
    elif job["status"] in ENDED:
        click.echo(
            f"{job['id']} has {job['status']}"
            if job["status"] != "cancelled"
            else f"{job['id']} is cancelled"
        )
    else:
        click.echo(f"{job['id']} will stop at its next step")


@main.command()
@click.argument("kind", required=False)
@as_json
@click.pass_obj
def kinds(client: Client, kind: str | None, as_json: bool) -> None:
    """List the kinds of job that the server knows."""
    found = [known for known in client.kinds() if kind in (None, known["kind"])]
    if kind and not found:
        meant = get_close_matches(kind, [known["kind"] for known in client.kinds()], n=1)
        guess = f" (did you mean {meant[0]}?)" if meant else ""
        raise ApiError(404, "kind_not_found", f"there is no kind {kind!r}{guess}")
    if as_json:
        print_json(found[0] if kind else found)
        return
    print_table(
        ("kind", "what it does"), [(known["kind"], first_line(known["description"])) for known in found]
    )
    click.echo("parameters: dreamq submit KIND --help", err=True)


@main.command()
@as_json
@click.pass_obj
def workers(client: Client, as_json: bool) -> None:
    """List the workers and what they run."""
    found = client.workers()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            worker["name"],
            worker.get("host", ""),
            worker.get("device", ""),
            activity(worker),
        )
        for worker in found
    ]
    print_table(("worker", "host", "device", "runs"), rows)
    if not found:
        click.echo("no worker is there; jobs wait until one is: python -m workers", err=True)


if __name__ == "__main__":
    main()
