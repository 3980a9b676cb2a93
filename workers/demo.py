"""make demo: real jobs on real pictures, driven as a user would, with the `dreamq` command."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.errors import DreamqError
from workers.embedded import DEFAULT_PORT, HOST, LOOK_EVERY_S, PortTaken, Stack, StackRuns, check_port

RESULTS = Path("demo-results")


def photo(package: str, path: str) -> str:
    """A picture that an installed package brings along, found without importing the package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is in requirements.txt"
    assert spec.origin is not None
    return str(Path(spec.origin).parent / path)


@dataclass(frozen=True)
class DemoJob:
    """One job of the demo, as the arguments of `dreamq submit`."""

    title: str
    arguments: Sequence[str]
    shows: str = "result.png"
    """The file that one should look at."""


def jobs() -> list[DemoJob]:
    """What the demo runs, in order."""
    cat = photo("skimage", "data/chelsea.png")  # Chelsea, by Stefan van der Walt (CC0), 451x300
    flower = photo("sklearn", "datasets/images/flower.jpg")  # by vultilion (CC BY 2.0), 640x427
    style = ["--content-image", cat, "--style-images", flower, "--size-px", "256"]
    return [
        DemoJob("DeepDream on a cat", ["deepdream", "--image", cat, "--network", "squeezenet"]),
        DemoJob("The cat painted with a flower", ["style_transfer", *style, "--network", "squeezenet"]),
        DemoJob(
            "A map of handwritten digits, from a variational autoencoder",
            ["vae_train", "--dataset", "digits", "--epochs", "100", "--batch-size", "32", "--seed", "1"],
            shows="latent-grid.png",
        ),
    ]


class DemoFailed(DreamqError):
    """A job of the demo did not succeed."""

    code = "demo_failed"


@contextmanager
def server() -> Iterator["Server"]:
    """A stack of our own; where `make serve` runs in this folder already, that one."""
    os.environ.pop("API_KEYS_FILE", None)  # nobody but the demo calls its server
    stack = Stack(Path("data"), port=free_port())
    try:
        with stack.running():
            yield Server(stack.url, stack)
    except StackRuns as taken:
        if taken.url is None:
            raise
        print(f"dreamq: taking the server that runs here already, {taken.url}", flush=True)
        yield Server(taken.url)


def free_port() -> int:
    """The port of `make serve` if it is free, so that the URLs we print work with it later; else any."""
    try:
        check_port(DEFAULT_PORT)
    except PortTaken:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            return int(probe.getsockname()[1])
    return DEFAULT_PORT


class Server:
    """The server that the demo talks to, and the stack behind it when that is ours to look after."""

    def __init__(self, url: str, stack: Stack | None = None) -> None:
        self.url = url
        self.stack = stack

    def run(self, job: DemoJob) -> None:
        """Submit one job, show its progress, fetch its files. Raises DemoFailed when it does not succeed."""
        print(f"\n== {job.title}", flush=True)
        job_id = self.dreamq("submit", *job.arguments, "--watch").split()[0]
        folder = RESULTS / job_id
        self.dreamq("get", job_id, "--into", str(folder))
        print(f"  result   {(folder / job.shows).resolve()}")
        print(f"  at       {self.url}/v1/jobs/{job_id}/artifacts/{job.shows}", flush=True)

    def dreamq(self, *arguments: str) -> str:
        """Run the `dreamq` command, its progress in sight; what it printed. Raises DemoFailed when it fails."""
        print(f"$ dreamq {' '.join(arguments)}", flush=True)
        command = [sys.executable, "-m", "api.cli", *arguments]
        environment = {**os.environ, "DREAMQ_URL": self.url}
        # It prints an id, or a few file names: less than a pipe holds, so it never waits for us to read.
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                while process.poll() is None:
                    self.look_after_stack()
            finally:
                process.terminate()
            output, _ = process.communicate()
        if process.returncode != 0:
            raise DemoFailed(f"`dreamq {arguments[0]}` failed (exit status {process.returncode})")
        return output

    def look_after_stack(self) -> None:
        """A moment's wait. Raises PartFailed when a part died for good, KeyboardInterrupt when we were told to stop."""
        if self.stack is None:
            time.sleep(LOOK_EVERY_S)
            return
        self.stack.step()
        if self.stack.stop_signals.requested:
            raise KeyboardInterrupt


def main() -> int:
    """Run the demo; the exit status."""
    started = time.monotonic()
    print("dreamq: starting Redis, a worker and the API ...", flush=True)
    try:
        with server() as running:
            for job in jobs():
                running.run(job)
    except DreamqError as error:
        print(f"dreamq: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndreamq: interrupted", file=sys.stderr)
        return 130
    print(
        f"\nDone in {time.monotonic() - started:.0f} s. Everything the jobs made is in {RESULTS.resolve()}."
    )
    print("`make serve` keeps a server running; the URLs above work again with it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
