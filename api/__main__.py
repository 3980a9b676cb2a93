"""python -m api: serve the HTTP API and the web page."""

import click

from shared.errors import DreamqError
from shared.settings import Settings


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; beyond loopback, API keys are needed.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 = any free one.",
)
@click.option("--access-log", is_flag=True, help="Print a line for each request.")
def main(host: str, port: int, access_log: bool) -> None:
    """Serve dreamq's HTTP API and web page.

    Settings come from the environment: REDIS_URL, STORAGE_URL, API_KEYS_FILE, ...
    """
    try:
        settings = Settings.from_environment()
        # Imported here: the kinds read the settings as they are imported, and --help needs none of it.
        from api.server import serve

        serve(settings, host, port, access_log=access_log)
    except DreamqError as error:
        raise click.ClickException(error.message) from error


if __name__ == "__main__":
    main(prog_name="python -m api")
