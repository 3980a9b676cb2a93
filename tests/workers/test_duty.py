"""Hosts taken out of service, and devices that keep failing: with real workers where it is about processes."""

import json
import os
import signal
import socket
import time
from contextlib import ExitStack

import pytest

from shared.job import JobStatus, Worker
from tests.faults.steps import chain
from tests.workers.processes import python_process, until
from workers.duty import Duty, device_failed, lacks_memory
from workers.run_job import run_job

HOST = socket.gethostname()
LONG_ENOUGH_S = 3
"""In so long a worker that takes jobs has one: it asks each second, once its pool process is up (1 to 2 s)."""
GPU = json.dumps({"name": "NVIDIA H100 80GB HBM3", "uuid": "GPU-aaaaaaaa", "memory_bytes": 80 * 2**30})
ME = Worker(name=f"direct-{os.getpid()}@{HOST}", host=HOST, device="gpu", pid=os.getpid())


def error(name: str, message: str) -> Exception:
    """An exception as TensorFlow names it, without TensorFlow."""
    return type(name, (Exception,), {})(message)


@pytest.mark.parametrize(
    ("name", "message", "kind"),
    [
        ("InternalError", "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered", "device"),
        ("UnknownError", "Failed to get convolution algorithm: CUDNN_STATUS_INTERNAL_ERROR", "device"),
        ("InternalError", "Blas xGEMM launch failed: CUBLAS_STATUS_EXECUTION_FAILED", "device"),
        ("InternalError", "CUBLAS_STATUS_ALLOC_FAILED", "memory"),
        ("InternalError", "failed copying to /device:GPU:0: Dst tensor is not initialized.", "memory"),
        ("ResourceExhaustedError", "OOM when allocating tensor with shape[64,64]", "memory"),
        ("InternalError", "required broadcastable shapes", "neither"),
        ("ValueError", "CUDA_ERROR_ILLEGAL_ADDRESS", "neither"),
    ],
)
def test_a_broken_device_is_told_from_a_full_one_and_from_a_broken_computation(name, message, kind):
    raised = error(name, message)

    assert (device_failed(raised), lacks_memory(raised)) == (kind == "device", kind == "memory")


@pytest.fixture
def on_broken_gpu(queue, monkeypatch):
    """Run a job in this process on a GPU that fails; the job."""
    monkeypatch.setenv("DREAMQ_DEVICE", GPU)

    def run(message: str = "CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error"):
        def fail(*_):
            raise error("InternalError", message)

        job = queue.submit("steps", {"steps": 2, "seed": 1})
        with monkeypatch.context() as broken:
            broken.setattr("tests.faults.steps.misbehave", fail)
            run_job(job.id)
        return queue.get(job.id)

    return run


def test_a_job_on_which_the_device_failed_goes_back_to_the_queue(queue, on_broken_gpu):
    job = on_broken_gpu()

    assert (job.status, job.losses, job.attempts[0].reason) == (JobStatus.QUEUED, 1, "device_failed")
    run_job(job.id)
    assert queue.open_artifact(job.id, "result.txt").read().decode() == chain(2, 1)


def test_a_device_that_fails_on_three_jobs_in_a_row_is_quarantined(queue, on_broken_gpu):
    duty = Duty(queue.registry, ME)
    assert duty.look()

    seen = []
    for _ in range(3):
        on_broken_gpu()
        duty.look()
        seen.append(duty.state)

    assert seen == ["ready", "ready", "quarantined"]
    assert not duty.takes_jobs


def test_one_job_that_fails_on_it_again_and_again_does_not_condemn_a_device(queue, on_broken_gpu):
    job = on_broken_gpu()
    for _ in range(3):
        queue.registry.note_device_failure(ME.name, job.id)

    assert queue.registry.device_failures(ME.name) == 1


def test_a_job_that_succeeds_clears_the_device_and_one_without_memory_does_neither(queue, run, on_broken_gpu):
    on_broken_gpu()
    on_broken_gpu()
    full = on_broken_gpu("CUDNN_STATUS_ALLOC_FAILED")
    assert (full.error.code, queue.registry.device_failures(ME.name)) == ("gpu_out_of_memory", 2)

    run("steps", steps=1)

    assert queue.registry.device_failures(ME.name) == 0


@pytest.fixture
def launch(queue):
    """Start `python -m workers` with one worker and wait until it is registered."""
    with ExitStack() as stack:

        def start(**environment: str):
            process = stack.enter_context(
                python_process("-m", "workers", "--devices", "cpu", "--queues", "steps", **environment)
            )
            until(queue.workers, what="the worker's registration")
            return process

        yield start


def test_a_drained_hosts_worker_gives_its_job_back_and_ends_and_the_next_waits_for_the_host(queue, launch):
    launcher = launch()
    job = queue.submit("steps", {"steps": 2000, "step_s": 0.02, "seed": 1})
    until(lambda: queue.get(job.id).progress.step > 3, what="progress of the job")

    queue.registry.drain(HOST)
    assert launcher.wait(timeout=60) == 0  # nobody starts it again
    returned = queue.get(job.id)
    assert (returned.status, returned.losses, bool(returned.checkpoints)) == (JobStatus.QUEUED, 0, True)

    again = launch()
    assert [worker["state"] for worker in queue.workers()] == ["drained"]
    time.sleep(LONG_ENOUGH_S)
    assert queue.get(job.id).attempt == 1

    queue.registry.undrain(HOST)
    until(lambda: queue.get(job.id).attempt == 2, what="the job's next attempt")
    assert [worker["state"] for worker in queue.workers()] == ["ready"]
    again.send_signal(signal.SIGTERM)
    assert again.wait(timeout=60) == 0


def test_a_worker_whose_device_takes_its_process_along_three_times_quarantines_itself(queue):
    command = [
        "-m",
        "celery",
        "-A",
        "shared.celery_app",
        "worker",
        "-n",
        "gpu-1@%h",
        "-Q",
        "steps",
        "-l",
        "error",
    ]
    with python_process(*command, DREAMQ_DEVICE=GPU, MAX_LOSSES="0"):
        for _ in range(3):
            dying = queue.submit("steps", {"trouble": "die"})
            until(lambda dying=dying: queue.get(dying.id).status.ended, what="the job's end")
        [worker] = until(
            lambda: [worker for worker in queue.workers() if worker["state"] == "quarantined"],
            what="quarantine",
        )
        waiting = queue.submit("steps", {"steps": 1})

        assert worker["device"] == "NVIDIA H100 80GB HBM3"
        assert queue.get(dying.id).error.code == "worker_lost"
        time.sleep(LONG_ENOUGH_S)
    assert queue.get(waiting.id).status is JobStatus.QUEUED
