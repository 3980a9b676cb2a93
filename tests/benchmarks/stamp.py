"""A kind whose one line says when it ran."""

import time
from typing import TYPE_CHECKING, ClassVar

from shared.kinds.base import JobParams

if TYPE_CHECKING:
    from tasks.job_context import JobContext


class StampParams(JobParams):
    """Write down when the first line ran."""

    kind: ClassVar[str] = "stamp"
    task: ClassVar[str] = "tests.benchmarks.stamp"
    imports: ClassVar[tuple[str, ...]] = ()


PARAMS = StampParams


def run(params: StampParams, job: "JobContext") -> None:
    """Write down when the first line ran."""
    job.summary["at"] = time.time()
