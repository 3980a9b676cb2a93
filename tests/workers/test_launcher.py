"""python -m workers: real launchers with real Celery workers on the CPU."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psutil
import pytest

from shared.job import JobStatus
from shared.placement import queues_served
from shared.queue import Queue
from tests.faults.steps import chain
from tests.workers.processes import descendants, python_process, running, until
from workers.__main__ import main
from workers.devices import Device, cpu
from workers.launcher import celery_command, ending, wait_before_restart_s, worker_environment

GPU = Device("NVIDIA H100 80GB HBM3", "GPU-aaaaaaaa-1111-2222-3333-444444444444", 80 * 2**30)


@pytest.fixture
def launch(queue: Queue) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start `python -m workers` on the CPU and wait until its workers have registered."""
    with ExitStack() as stack:

        def start(*, devices: str = "cpu", workers: int = 1) -> "subprocess.Popen[str]":
            process = stack.enter_context(
                python_process("-m", "workers", "--queues", "steps", "--devices", devices)
            )
            until(lambda: len(queue.workers()) == workers, what="the workers' registration")
            return process

        yield start


def celery_processes(launcher: "subprocess.Popen[str]") -> list[psutil.Process]:
    """The main processes of the launcher's Celery workers."""
    return psutil.Process(launcher.pid).children()


def test_a_worker_is_an_ordinary_celery_worker_with_one_process():
    command = celery_command("cpu-1", queues="deepdream,vae_train", loglevel="warning")

    assert command[:6] == [sys.executable, "-m", "celery", "-A", "shared.celery_app", "worker"]
    assert command[command.index("--concurrency") + 1] == "1"
    assert command[command.index("--hostname") + 1] == "cpu-1@%h"
    assert command[command.index("--queues") + 1] == "deepdream,vae_train"
    assert "--queues" not in celery_command("cpu-1")


def test_a_worker_sees_its_gpu_and_no_other():
    environment = worker_environment(GPU, {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0,1"})

    assert environment["CUDA_VISIBLE_DEVICES"] == GPU.uuid
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert environment["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert environment["PATH"] == "/bin"
    assert json.loads(environment["DREAMQ_DEVICE"]) == {
        "name": GPU.name,
        "uuid": GPU.uuid,
        "memory_bytes": GPU.memory_bytes,
    }


def test_a_worker_on_the_cpu_sees_no_gpu_at_all():
    assert worker_environment(cpu(), {})["CUDA_VISIBLE_DEVICES"] == "-1"


def test_two_workers_of_one_host_are_told_apart_and_known_to_celerys_own_tools(launch, queue):
    launcher = launch(devices="cpu,cpu", workers=2)
    command = [sys.executable, "-m", "celery", "-A", "shared.celery_app", "inspect", "registered", "--json"]

    told = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)

    workers = queue.workers()
    assert sorted(told) == sorted({worker["name"] for worker in workers})
    assert all("tasks.steps" in tasks for tasks in told.values())
    assert [worker["queues"] for worker in workers] == [
        sorted(queues_served("steps", cpu().memory_bytes))
    ] * 2
    assert [worker["memory_bytes"] for worker in workers] == [cpu().memory_bytes] * 2
    assert [process.environ()["CUDA_VISIBLE_DEVICES"] for process in celery_processes(launcher)] == [
        "-1",
        "-1",
    ]


def test_a_drain_checkpoints_the_job_returns_it_to_the_queue_and_exits_0_however_often_it_is_asked(
    launch, queue
):
    launcher = launch()
    job = queue.submit("steps", {"steps": 2000, "step_s": 0.02, "seed": 1})
    until(lambda: queue.get(job.id).progress.step > 3, what="progress of the job")

    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        launcher.send_signal(number)

    assert launcher.wait(timeout=60) == 0
    drained = queue.get(job.id)
    assert drained.status is JobStatus.QUEUED
    assert drained.losses == 0
    assert drained.checkpoints


def test_a_worker_that_dies_is_started_again_and_its_job_ends_as_if_nothing_had_been(launch, queue):
    launcher = launch()
    [first] = celery_processes(launcher)
    job = queue.submit("steps", {"steps": 100, "step_s": 0.02, "seed": 1, "checkpoint_every": 20})
    until(lambda: queue.get(job.id).progress.step > 20, what="progress of the job")

    first.kill()

    until(lambda: queue.get(job.id).status is JobStatus.SUCCEEDED, what="the job's end")
    [second] = celery_processes(launcher)
    assert second.pid != first.pid
    with queue.open_artifact(job.id, "result.txt") as result:
        assert result.read().decode() == chain(steps=100, seed=1)


def test_kill_9_of_the_launcher_leaves_no_orphans(launch):
    launcher = launch()
    tree = descendants(launcher.pid)
    assert tree

    launcher.kill()

    until(lambda: not any(running(process) for process in tree), what="the end of all below the launcher")


def test_the_third_ctrl_c_does_not_wait_for_a_job_that_hangs(launch, queue):
    launcher = launch()
    job = queue.submit("steps", {"trouble": "deaf"})
    until(lambda: queue.get(job.id).status is JobStatus.RUNNING, what="the job's start")
    tree = descendants(launcher.pid)

    for _ in range(2):
        launcher.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for the job
            launcher.wait(timeout=0.5)
    launcher.send_signal(signal.SIGINT)

    assert launcher.wait(timeout=10) == 0
    until(lambda: not any(running(process) for process in tree), what="the end of all below the launcher")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--devices", "7"], {}, "no device '7' here"),
        ([], {"LEASE_S": "soon"}, "LEASE_S='soon'"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start_in_one_line(arguments, environment, told):
    command = [sys.executable, "-m", "workers", *arguments]

    ended = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )

    assert ended.returncode == 2
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--queues", "steps,deepdraem"], "no kind 'deepdraem'"),
        (["--classes", "12g"], "no memory class '12g'"),
    ],
)
def test_a_misspelt_queue_is_refused_by_name(arguments, told, capsys):
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_a_worker_that_keeps_dying_is_left_alone_for_longer_and_longer_up_to_a_minute():
    assert [wait_before_restart_s(deaths) for deaths in range(1, 10)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_how_a_process_ended_is_told_in_words():
    assert ending(1) == "exit status 1"
    assert ending(-signal.SIGKILL) == "killed by SIGKILL"
