"""Models that several tests use, trained once: their jobs are put into each test's own storage."""

import shutil
from collections.abc import Callable
from pathlib import Path

from shared.job import Job, JobStatus
from shared.settings import Settings


def trained_once(kept: Path, settings: Settings, train: Callable[[], Job]) -> str:
    """The id of a training job that this storage has: trained now, or copied from the folder `kept`.

    A queue reads a job that its Redis does not know from storage.
    """
    jobs = Path(settings.storage_url, "jobs")
    known = next(kept.iterdir(), None)
    if known is not None:
        shutil.copytree(known, jobs / known.name)
        return known.name
    job = train()
    assert job.status == JobStatus.SUCCEEDED, job.error
    shutil.copytree(jobs / job.id, kept / job.id)
    return job.id
