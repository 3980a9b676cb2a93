"""A submitted job, as a Python program holds it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.job_store import Event

if TYPE_CHECKING:
    from shared.queue import Queue


class JobHandle:
    """One job, on the queue that took it."""

    def __init__(self, queue: "Queue", job_id: str) -> None:
        self._queue = queue
        self.id = job_id

    def __repr__(self) -> str:
        return f"<job {self.id}>"

    def status(self) -> dict[str, Any]:
        """The whole job as the API would show it (its `status` among the rest)."""
        return self._queue.get(self.id).view()

    def wait(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Wait for the job's end and return the job.

        Raises:
            TimeoutError: it had not ended after `timeout_s`; it goes on all the same.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for _ in self._queue.events(self.id, block_s=1):
            if deadline is not None and time.monotonic() > deadline:
                if self._queue.get(self.id).status.ended:
                    break
                raise TimeoutError(f"job {self.id} has not ended after {timeout_s} s")
        return self.status()

    def cancel(self) -> None:
        """Ask for the job's cancel."""
        self._queue.cancel(self.id)

    def events(self, after: str = "0") -> Iterator[Event]:
        """What happens to the job, until it ends."""
        return (event for event in self._queue.events(self.id, after=after) if event is not None)

    def artifacts(self) -> list[dict[str, Any]]:
        """The files it has left so far."""
        return list(self.status()["artifacts"])

    def download(self, folder: str | Path) -> list[Path]:
        """Copy its files into `folder`; the paths written."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for artifact in self._queue.get(self.id).artifacts:
            target = folder / artifact.name
            target.write_bytes(self._queue.storage.read(artifact.path))
            written.append(target)
        return written
