"""What a kind may look at while its parameters are checked at submit."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from shared.errors import ArtifactNotFound, InvalidInput, JobNotFound, UploadNotFound
from shared.job import Job
from shared.pictures import PictureInfo, inspect_picture, is_black
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.queue import Queue

T = TypeVar("T")


@functools.lru_cache(maxsize=1024)
def _inspected(path: str, max_pixels: int) -> PictureInfo:
    # An upload never changes under its name, so each is looked through once.
    return inspect_picture(path, max_pixels=max_pixels)


@functools.lru_cache(maxsize=1024)
def _is_black(path: str, max_pixels: int) -> bool:
    return is_black(path, max_pixels=max_pixels)


class SubmitInputs:
    """The uploads and jobs that parameters name, seen from a queue."""

    def __init__(self, queue: "Queue") -> None:
        self.queue = queue
        self.settings: Settings = queue.settings

    @property
    def largest_worker_bytes(self) -> int | None:
        """Memory of the largest registered worker's device; None while no worker is known.

        Where workers come and go, the setting LARGEST_DEVICE_GB counts as one that may come.
        """
        sizes = [int(worker["memory_bytes"]) for worker in self.queue.workers() if worker.get("memory_bytes")]
        if sizes and self.settings.largest_device_gb:
            sizes.append(int(self.settings.largest_device_gb * 2**30))
        return max(sizes, default=None)

    def path(self, upload_id: str, field: str) -> str:
        """A local path of an upload's bytes; `InvalidInput` names `field` when there is no such upload."""
        try:
            return str(self.queue.storage.upload_path(upload_id))
        except UploadNotFound as error:
            raise InvalidInput(error.message, field=field) from error

    def picture(self, upload_id: str, field: str) -> PictureInfo:
        """Check an uploaded picture whole (header, size, truncation); `InvalidInput` names `field`."""
        return self._looked_at(_inspected, upload_id, field)

    def is_black(self, upload_id: str, field: str) -> bool:
        """Whether an uploaded picture is black or transparent all over; `InvalidInput` names `field`."""
        return self._looked_at(_is_black, upload_id, field)

    def _looked_at(self, look: Callable[[str, int], T], upload_id: str, field: str) -> T:
        path = self.path(upload_id, field)
        try:
            return look(path, self.settings.max_image_pixels)
        except InvalidInput as error:
            raise InvalidInput(error.message, field=field) from error

    def job(self, job_id: str, field: str) -> Job:
        """An earlier job; `InvalidInput` names `field` when there is none."""
        try:
            return self.queue.get(job_id)
        except JobNotFound as error:
            raise InvalidInput(f"there is no job {job_id}", field=field) from error

    def artifact(self, job_id: str, name: str, field: str) -> bytes:
        """The bytes of a small artifact of an earlier job; `InvalidInput` names `field` when it left none."""
        try:
            with self.queue.open_artifact(job_id, name) as opened:
                return opened.read()
        except (JobNotFound, ArtifactNotFound) as error:
            raise InvalidInput(f"job {job_id} has left no {name}", field=field) from error
