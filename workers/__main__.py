"""python -m workers: one Celery worker per GPU of this machine, or one on the CPU."""

import argparse
import importlib.util
import logging
import sys

from shared.errors import DreamqError
from shared.settings import Settings
from workers.devices import choose, find_devices
from workers.stop_signals import StopSignals


def main(arguments: list[str] | None = None) -> int:
    """Run workers until SIGTERM or Ctrl-C drains them; the exit status."""
    options = parse(arguments)
    logging.basicConfig(
        level=options.loglevel.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        Settings.from_environment()  # each worker reads them again; here they are refused once, in one line
        # Not before: whatever knows of kinds reads the settings as it is imported.
        from shared.placement import checked_classes, checked_queues
        from workers.launcher import Launcher

        classes, queues = checked_classes(options.classes), checked_queues(options.queues)
        devices = choose(find_devices(), options.devices)
    except DreamqError as error:
        print(f"python -m workers: {error.message}", file=sys.stderr)
        return 2
    if importlib.util.find_spec("tensorflow") is None:
        print(
            "python -m workers: TensorFlow is not installed here; install requirements.txt", file=sys.stderr
        )
        return 2
    Launcher(devices, queues=queues, classes=classes, loglevel=options.loglevel).run(StopSignals())
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workers",
        description="One Celery worker per GPU of this machine, or one on the CPU. SIGTERM or Ctrl-C drains: "
        "running jobs are checkpointed and go back to the queue.",
    )
    parser.add_argument(
        "--devices",
        default="all",
        help="all (default), cpu, or indices and UUIDs of GPUs separated by commas",
    )
    parser.add_argument("--queues", help="the kinds to serve, separated by commas (default: all)")
    parser.add_argument(
        "--classes",
        default="",
        help="the memory classes to serve, such as 24g,48g (default: those that the device holds)",
    )
    parser.add_argument("--loglevel", default="info", choices=["debug", "info", "warning", "error"])
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
