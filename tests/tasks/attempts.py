"""Attempts at a job that are interrupted where a test wants it."""

from collections.abc import Callable

from shared.job import JobStatus, Worker, new_token
from shared.kinds import KINDS
from shared.queue import Queue
from tasks.job_context import JobContext
from workers import child
from workers.run_job import run_job

WORKER = Worker(name="test", host="localhost", device="CPU", pid=1)


class InterruptedContext(JobContext):
    """A job's context in which a stop is asked for as soon as a step is reached."""

    stop_at: int
    reason: str

    def report(self, step: int, *args, **kwargs) -> None:
        if step >= self.stop_at:
            self.queue.store.request_stop(self.claim, self.reason)
            self._told_at = float("-inf")  # so that this report asks whether to stop
        super().report(step, *args, **kwargs)


def begin(queue: Queue, job_id: str, kind: type[JobContext] = JobContext) -> JobContext:
    """Claim a job as a worker does."""
    claim = queue.store.claim(job_id, token=new_token(), worker=WORKER)
    assert claim is not None
    return kind(queue, queue.get(job_id), claim)


def interrupt(
    queue: Queue, job_id: str, run: Callable, *, stop_at: int, reason: str = "shutdown"
) -> BaseException:
    """Run a job's task until the step `stop_at`, then give the job back to the queue; what the task raised."""
    context = begin(queue, job_id, InterruptedContext)
    context.stop_at, context.reason = stop_at, reason
    job = queue.get(job_id)
    params = KINDS[job.kind].model_validate(job.params)
    child.seed(params.seed or 0)
    try:
        run(params, context)
    except BaseException as stop:  # a StopRequested is no Exception
        queue.store.release(context.claim, reason, loss=False, max_losses=3)
        return stop
    raise AssertionError(f"the job was done before step {stop_at}")


def finish(queue: Queue, job_id: str):
    """Run a job to its end as a worker does, and give it."""
    run_job(job_id)
    job = queue.get(job_id)
    assert job.status == JobStatus.SUCCEEDED, job.error
    return job
