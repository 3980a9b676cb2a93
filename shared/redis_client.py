"""The connection to Redis, and what matters to us of the server behind it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import AuthenticationError, DataError, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import ConnectionError as refused
from redis.exceptions import TimeoutError as silent
from redis.retry import Retry

from shared.errors import QueueUnavailable

P = "dreamq:"
"""What every key of ours begins with."""

Client = Any
"""A `redis.Redis` that decodes its replies. Its own types name the replies of every mode at once, bytes and text,
which says nothing of ours; what each call returns is said by the methods that make it."""


def connect(url: str, *, impatient: bool = False) -> Client:
    """A client for `url`. Impatient: for a server that must answer its own clients within seconds."""
    timeout_s, retries = (1.0, 1) if impatient else (10.0, 3)
    return Redis.from_url(
        url,
        decode_responses=True,
        socket_timeout=timeout_s,
        socket_connect_timeout=min(timeout_s, 5.0),
        health_check_interval=25,
        # A timeout is not tried again by an impatient client: two would pass the 3 s that it has.
        retry=Retry(
            ExponentialBackoff(cap=0.5, base=0.05), retries, (refused,) if impatient else (refused, silent)
        ),
    )


@contextmanager
def reachable() -> Iterator[None]:
    """Turn any trouble with Redis into `QueueUnavailable`; a value that Redis can't take is a fault of ours."""
    try:
        yield
    except DataError:
        raise
    except RedisError as error:
        raise QueueUnavailable(f"{_trouble(error)} ({error}); try again in a few seconds") from error


def _trouble(error: RedisError) -> str:
    """What is wrong, and what would mend it."""
    if isinstance(error, OutOfMemoryError):
        return "Redis is full: raise its maxmemory, or prune old jobs"
    if isinstance(error, ResponseError) and not isinstance(error, AuthenticationError):
        return "Redis is there and refuses the call"
    if os.environ.get("REDIS_URL"):
        return "Redis, where REDIS_URL says that it is, cannot be reached"
    return (
        "no Redis where it is looked for while REDIS_URL is not set: set it as the server has it (`make serve` prints "
        "it), or start a Redis"
    )


def now_ms(redis: Client) -> int:
    """Milliseconds since 1970 by Redis' clock, the only one that counts."""
    with reachable():
        seconds, microseconds = redis.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


class ServerFacts(NamedTuple):
    """What matters to us of a Redis server."""

    version: str
    policy: str
    """What it does when its memory is full; only `noeviction` keeps jobs."""
    append_only: bool
    append_only_ok: bool
    """Whether its last write to the append-only file succeeded."""
    used_bytes: int
    limit_bytes: int
    """0: none is set."""


def server_facts(redis: Client) -> ServerFacts:
    """What the Redis server says of itself."""
    with reachable():
        info = redis.info()
    return ServerFacts(
        version=str(info.get("redis_version", "0")),
        policy=str(info.get("maxmemory_policy", "unknown")),
        append_only=bool(info.get("aof_enabled")),
        append_only_ok=info.get("aof_last_write_status", "ok") == "ok",
        used_bytes=int(info.get("used_memory", 0)),
        limit_bytes=int(info.get("maxmemory", 0)),
    )


def server_run(redis: Client) -> str:
    """An id that changes when the Redis server restarts."""
    with reachable():
        return str(redis.info("server")["run_id"])
