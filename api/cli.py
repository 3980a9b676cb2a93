"""The `dreamq` command: a client of the API, and `dreamq admin` for operators on the server's host.

Exit codes: 0 done; 1 the job failed or was cancelled; 2 the command or the job's parameters were refused;
3 the server cannot be reached or is not ready; 130 interrupted (a job that was watched goes on).
"""

import json
import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api import admin as admin_commands
from api import keys, options
from api.client import ENDED, ApiError, Client, Unavailable
from api.watch import watch_job
from shared.errors import DreamqError
from shared.settings import Settings

EXIT_FAILED, EXIT_REFUSED, EXIT_UNAVAILABLE = 1, 2, 3
_BRIEF = 120  # characters

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class Failure(click.ClickException):
    """An error on one line, with an exit code of its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class Commands(click.Group):
    """A group whose commands' errors are one line that says what to do."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except ApiError as error:
            raise Failure(
                advised(error), EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_REFUSED
            ) from error
        except DreamqError as error:
            raise Failure(error.message, EXIT_REFUSED) from error


def advised(error: ApiError) -> str:
    """An error's message and what to do next."""
    advice = {
        "unreachable": "start one with `make serve`, or set DREAMQ_URL to where it is",
        "unauthorized": "set DREAMQ_API_KEY to a key that `dreamq admin keys add` printed on the server",
        "job_not_found": "`dreamq list` shows the jobs there are",
        "kind_not_found": "`dreamq kinds` shows the kinds there are",
        "idempotency_conflict": "choose another --idempotency-key",
    }.get(error.code)
    message = f"{error.message.rstrip('.')}: {advice}" if advice else error.message
    field = (error.field or "").partition(".")[0]
    return message if field in message else f"{field}: {message}"


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


class SubmitCommands(click.Group):
    """`dreamq submit KIND`: a command for each kind, its options made from the kind's parameters."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every kind."""
        from shared.kinds import KINDS

        return list(KINDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of one kind."""
        from shared.kinds import KINDS, no_such_kind

        if cmd_name not in KINDS:
            ctx.fail(no_such_kind(cmd_name))
        return submit_command(cmd_name)


class SubmitCommand(click.Command):
    """A kind's command: it takes options only, and a word beside them was mostly meant for the one before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options."""
        typed = list(args)
        ctx.allow_extra_args = True
        super().parse_args(ctx, args)
        if ctx.args:
            ctx.fail(self._advice(ctx.args[0], typed))
        return ctx.args

    def _advice(self, stray: str, typed: list[str]) -> str:
        """What to say of a word that belongs to no option."""
        # Of the options that take a value: whether they take several.
        flags = {
            flag: option.multiple
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for flag in option.opts
        }
        # The same word may stand there as an option's value, too.
        strays = [
            place
            for place, word in enumerate(typed)
            if word == stray and (place == 0 or typed[place - 1] not in flags)
        ]
        before = typed[: strays[-1]] if strays else []
        places = [place for place, word in enumerate(before) if word.partition("=")[0] in flags]
        if places:
            flag, equals, value = before[places[-1]].partition("=")
            if flags[flag]:
                first = value if equals else before[places[-1] + 1]
                return (
                    f"{stray!r} belongs to no option; repeat it for each value: {flag} {first} {flag} {stray}"
                )
        return f"{stray!r} belongs to no option: a kind's parameters are all options, listed by --help"


@main.group(cls=SubmitCommands, subcommand_metavar="KIND [OPTIONS]")
def submit() -> None:
    """Queue a job and print its id. `dreamq submit KIND --help` shows the kind's parameters."""


def submit_command(kind: str) -> click.Command:
    """The command that submits one kind."""
    from shared.kinds import KINDS

    params = KINDS[kind]

    @click.pass_obj
    def run(client: Client, /, **given: Any) -> None:
        submit_job(client, kind, given)

    help_text = (params.__doc__ or "").strip()
    return SubmitCommand(
        kind, callback=run, params=[*options.options_of(params), *job_options()], help=help_text
    )


def job_options() -> list[click.Parameter]:
    """The options that jobs of all kinds have."""
    choice = click.Choice(["low", "normal", "high"])
    said = {
        "--priority": "Who goes first.",
        "--label": "A label to find the job by.",
        "--depends-on": "A job that must have succeeded before.",
        "--idempotency-key": "Submitting again with the same key makes no second job.",
        "--watch": "Show the job's progress until it ends.",
        "--wait": "Say nothing until the job ends.",
        "--json": "Print JSON, for programs.",
    }
    return [
        click.Option(
            ["--priority"], type=choice, default="normal", show_default=True, help=said["--priority"]
        ),
        click.Option(["--label", "job_labels"], multiple=True, metavar="NAME=VALUE", help=said["--label"]),
        click.Option(["--depends-on", "upstream"], multiple=True, metavar="JOB", help=said["--depends-on"]),
        click.Option(["--idempotency-key"], metavar="KEY", help=said["--idempotency-key"]),
        click.Option(["--watch"], is_flag=True, help=said["--watch"]),
        click.Option(["--wait"], is_flag=True, help=said["--wait"]),
        click.Option(["--json", "as_json"], is_flag=True, help=said["--json"]),
    ]


def submit_job(client: Client, kind: str, given: dict[str, Any]) -> None:
    """Check, upload, submit, and follow if asked to."""
    from shared.kinds import KINDS

    params = options.values_of(KINDS[kind], given)
    labels = dict(pair_of(text) for text in given["job_labels"])
    params = options.with_files(params, lambda file: client.upload(file.path))
    job = client.submit(
        kind,
        params,
        priority=given["priority"],
        depends_on=given["upstream"],
        labels=labels,
        idempotency_key=given["idempotency_key"],
    )
    quiet = given["as_json"]
    if not quiet:
        warn_of_no_worker(client)
    if given["watch"] or given["wait"]:
        if not quiet:
            click.echo(job["id"])
        follow(
            client,
            job["id"],
            plain=given["wait"],
            quiet=quiet or (given["wait"] and not given["watch"]),
            as_json=quiet,
        )
    elif quiet:
        print_json(job)
    else:
        click.echo(job["id"])
        click.echo(f"watch it: dreamq watch {job['id']}", err=True)


def warn_of_no_worker(client: Client) -> None:
    """Say when a job that was just submitted waits for somebody to start a worker."""
    found = client.workers()
    if not any(
        worker.get("state", "ready") in ("ready", "starting") and not worker.get("lost") for worker in found
    ):
        why = "those there are take none (dreamq workers)" if found else "start one: python -m workers"
        click.echo(f"no worker takes jobs now, so this one waits: {why}", err=True)


def pair_of(text: str) -> tuple[str, str]:
    """`name=value` as a pair."""
    name, separator, value = text.partition("=")
    if not separator:
        raise click.BadParameter("give each as NAME=VALUE", param_hint="--label")
    return name, value


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
        raise click.exceptions.Exit(130) from None
    job = client.job(job_id)
    if as_json:
        print_json(job)
    else:
        tell_end(job)
    if job["status"] != "succeeded":
        raise click.exceptions.Exit(EXIT_FAILED)


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


def first_line(text: str) -> str:
    """The first line of a description."""
    return text.strip().partition("\n")[0]


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


@main.group(cls=Commands)
def admin() -> None:
    """For operators, on a host with the server's settings; needs no running server."""


for command in (admin_commands.drain, admin_commands.prune, admin_commands.doctor):
    admin.add_command(command)


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


if __name__ == "__main__":
    main()
