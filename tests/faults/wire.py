"""A line between one process and Redis that can be cut, fall silent, or fail at a chosen step of a job's life."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CHUNK = 1 << 16


@dataclass
class Trap:
    """What is to happen at the next call that holds all of some marks."""

    marks: tuple[bytes, ...]
    after: bool
    """Redis has run it, and its reply is lost; otherwise the call is lost before Redis sees it."""
    act: Callable[[], None] | None
    sprung: threading.Event = field(default_factory=threading.Event)


class Wire:
    """Passes bytes between a unix socket of its own and the one of a Redis server."""

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self.server = server
        self.url = f"unix://{path}?db=0"
        self._open: set[asyncio.StreamWriter] = set()
        self._traps: list[Trap] = []
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"wire {path.name}", daemon=True)
        self._thread.start()
        self._listener = self._do(self._listen())

    def cut(self) -> None:
        """Close every connection; new ones may be made at once."""
        self._do(self._close_all())

    def silence(self) -> None:
        """Let nothing pass, and tell nobody: what a cut cable looks like from both ends."""
        self._tell(self._passing.clear)

    def mend(self) -> None:
        """Let everything pass again, what was held up first; nothing to do once the line is closed."""
        self._tell(self._passing.set)

    def lose_call(self, *marks: bytes, act: Callable[[], None] | None = None) -> Trap:
        """Lose the next call with these marks before Redis sees it, its connection with it; `act` comes first."""
        return self._set(Trap(marks, after=False, act=act))

    def lose_reply(self, *marks: bytes, act: Callable[[], None] | None = None) -> Trap:
        """Let Redis run the next call with these marks, and lose the reply and the connection; `act` comes first."""
        return self._set(Trap(marks, after=True, act=act))

    def remove(self, trap: Trap) -> None:
        """Take a trap away, if it has not sprung."""
        with suppress(ValueError):
            self._traps.remove(trap)

    def close(self) -> None:
        """Cut everything for good."""
        self._do(self._close_all())
        self._listener.close()
        self._tell(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _tell(self, act: Callable[[], Any]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act)

    def _set(self, trap: Trap) -> Trap:
        self._traps.append(trap)
        return trap

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._connected, self.path)

    async def _close_all(self) -> None:
        for writer in list(self._open):
            writer.close()
        await asyncio.sleep(0.01)  # for the pumps to see it

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: two pumps, ended together."""
        await self._passing.wait()
        try:
            redis_reader, redis_writer = await asyncio.open_unix_connection(self.server)
        except OSError:
            writer.close()
            return
        both = {writer, redis_writer}
        self._open |= both
        sprung: list[Trap] = []
        pumps = [
            asyncio.create_task(self._pump_calls(reader, redis_writer, sprung)),
            asyncio.create_task(self._pump_replies(redis_reader, writer, sprung)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in both:
            end.close()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._open -= both

    async def _pump_calls(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sprung: list[Trap]
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self._passing.wait()
                trap = next((trap for trap in self._traps if all(mark in chunk for mark in trap.marks)), None)
                if trap is not None and not trap.after:
                    self._spring(trap)
                    return
                if trap is not None:
                    sprung.append(trap)
                writer.write(chunk)
                await writer.drain()

    async def _pump_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sprung: list[Trap]
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self._passing.wait()
                if sprung:
                    trap = sprung.pop()
                    # A script that Redis did not know has not run: the call comes again.
                    if not chunk.startswith(b"-NOSCRIPT") and trap in self._traps:
                        self._spring(trap)
                        return
                writer.write(chunk)
                await writer.drain()

    def _spring(self, trap: Trap) -> None:
        self._traps.remove(trap)
        if trap.act is not None:
            trap.act()
        trap.sprung.set()
