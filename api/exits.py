"""How a command ends when it cannot do what it was told: one line that says what to do, and an exit code."""

from typing import Any

import click

from api.client import ApiError, Unavailable
from shared.errors import DreamqError

EXIT_FAILED, EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_INTERRUPTED = 1, 2, 3, 130


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
