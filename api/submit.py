"""`dreamq submit KIND`: a command for each kind, made from the kind's parameters."""

from typing import Any

import click

from api import options
from api.client import Client
from api.printing import print_json
from api.watch import follow


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


@click.group(cls=SubmitCommands, subcommand_metavar="KIND [OPTIONS]")
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
