"""A real Redis, a storage of its own for each test, and ways to run one job in this process or in real workers."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before anything reads the environment: the tests' own kind, and a TensorFlow that speaks only of errors.
os.environ["EXTRA_KINDS"] = "tests.faults.steps"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest
from redis import Redis

from shared.job import Job
from shared.queue import Queue
from shared.settings import Settings
from workers.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server of our own, gone when the tests end."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An empty Redis and an empty storage, in the environment too; short leases."""
    Redis.from_url(redis_server.url).flushall()
    settings = Settings(
        redis_url=redis_server.url,
        storage_url=str(tmp_path / "storage"),
        weights_dir=tmp_path / "weights",
        lease_s=3,
        extra_kinds="tests.faults.steps",
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def queue(settings: Settings) -> Queue:
    """The queue on `settings`."""
    return Queue.from_settings(settings)


@pytest.fixture
def client(settings: Settings) -> Any:
    """A test client of the API, on `settings`."""
    from api.app import create_app

    return create_app(settings).test_client()


@pytest.fixture
def run(queue: Queue) -> Callable[..., Job]:
    """Submit a job and run it to its end in this process, through the task that a worker would run."""
    from workers.run_job import run_job

    def run_kind(kind: str, **params: Any) -> Job:
        job = queue.submit(kind, params)
        run_job(job.id)
        return queue.get(job.id)

    return run_kind


@pytest.fixture(scope="session")
def chelsea() -> Path:
    """A cat, 451x300 (scikit-image, CC0)."""
    import skimage.data

    return Path(skimage.data.__file__).parent / "chelsea.png"


@pytest.fixture(scope="session")
def china() -> Path:
    """A temple, 640x427 (scikit-learn, CC BY 2.0, photographer named there)."""
    import sklearn.datasets

    return Path(sklearn.datasets.__file__).parent / "images" / "china.jpg"
