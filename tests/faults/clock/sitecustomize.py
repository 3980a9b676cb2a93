"""With this folder on PYTHONPATH, Python imports this as it starts: its wall clock is then CLOCK_OFF_S seconds off.

Monotonic time stays as it is. (libfaketime, which would do it for programs of any language, breaks `time.sleep` of
Python 3.11 and later.)
"""

import datetime
import functools
import os
import time
from collections.abc import Callable
from typing import Any

off_s = float(os.environ.get("CLOCK_OFF_S", "0"))
real_time, real_time_ns = time.time, time.time_ns
real_gmtime, real_localtime = time.gmtime, time.localtime
real_datetime = datetime.datetime

time.time = lambda: real_time() + off_s
time.time_ns = lambda: real_time_ns() + int(off_s * 1e9)


def broken_down(real: Callable[[float], time.struct_time], seconds: float | None = None) -> time.struct_time:
    """`gmtime` or `localtime`, of the wrong time where none is given."""
    return real(time.time() if seconds is None else seconds)


# Not functions: as attributes of a class (`logging.Formatter.converter`) these would become methods.
time.gmtime = functools.partial(broken_down, real_gmtime)
time.localtime = functools.partial(broken_down, real_localtime)


class _AnyDatetime(type):
    """Those that were made by C code, or before this, are no less of the kind."""

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, real_datetime)


class WrongDatetime(real_datetime, metaclass=_AnyDatetime):
    """A datetime that takes a wrong time for now."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return real_datetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime.UTC).replace(tzinfo=None)


datetime.datetime = WrongDatetime  # type: ignore[misc]
