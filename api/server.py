"""The production server: gunicorn, one process of many threads, with recovery running beside them."""

import errno
import os
import socket
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from api import keys
from api.app import create_app
from api.context import MAX_STREAMS, Context
from api.security import is_loopback
from shared.errors import DreamqError
from shared.queue import Queue
from shared.recovery import RecoveryThread
from shared.settings import Settings

THREADS = MAX_STREAMS + 44
"""Every open event stream holds a thread; these leave 44 for all other calls."""

_CLIENT_SILENT_S = 60.0
"""How long a client may stop sending its body, or taking its answer, before the connection is closed (s)."""


class CannotServe(DreamqError):
    """The server cannot be started as it was asked to."""

    code = "cannot_serve"


def serve(settings: Settings, host: str, port: int, *, access_log: bool = False) -> None:
    """Serve until a signal ends it.

    Raises:
        CannotServe: other machines would get in without keys, or the address cannot be had.
        SettingsInvalid, StorageUnavailable: the settings cannot be used.
    """
    refuse_open_door(host, settings)
    Queue.from_settings(settings)  # an unusable storage is told here, not by a server that cannot start
    listener = listen(host, port)
    print(f"dreamq API on http://{printable(host)}:{listener.getsockname()[1]}", flush=True)
    Server(settings, host, listener, access_log=access_log).run()


def refuse_open_door(host: str, settings: Settings) -> None:
    """Refuse to let other machines in without keys; raises CannotServe, saying what to do."""
    if is_loopback(host):
        return
    if settings.api_keys_file is None:
        raise CannotServe(
            f"--host {host} lets other machines in, and no API keys are set: set API_KEYS_FILE to a file "
            "and make a key with `dreamq admin keys add NAME`, or listen on 127.0.0.1"
        )
    if not settings.api_keys_file.exists() or not keys.read(settings.api_keys_file):
        raise CannotServe(
            f"{settings.api_keys_file} (API_KEYS_FILE) holds no key, so nobody could get in: "
            "make one with `dreamq admin keys add NAME`"
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, bound here so that a port that is taken is told at once.

    Raises:
        CannotServe: the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return bound(family, address)
    except OSError as error:
        hint = "; choose another with --port" if error.errno == errno.EADDRINUSE else ""
        raise CannotServe(f"cannot listen on {printable(host)}:{port}: {error.strerror}{hint}") from error


def bound(family: int, address: Any) -> socket.socket:
    """A socket that listens on an address; raises OSError when it cannot be had."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A server that has just ended must not keep the next one waiting.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def printable(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


class Worker(ThreadWorker):  # type: ignore[misc]
    """The serving process: recovery runs beside the threads, and open streams end at SIGTERM."""

    def init_process(self) -> None:
        """Called in the new process; returns when it has served its last request."""
        self.recovery: RecoveryThread | None = None
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application, then start recovery."""
        super().load_wsgi()
        # Its own connections: it waits for a Redis that is away, where the API gives up within seconds.
        queue = Queue.from_settings(self.app.settings)
        self.recovery = RecoveryThread(queue, f"api-{socket.gethostname()}-{os.getpid()}")
        self.recovery.start()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: no new connections; event streams end at their next look."""
        self.app.context.closing.set()
        if self.recovery is not None:
            self.recovery.stop()
        super().handle_exit(sig, frame)


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn on a socket that is bound already, configured by this program alone."""

    context: Context

    def __init__(self, settings: Settings, host: str, listener: socket.socket, *, access_log: bool) -> None:
        self.settings = settings
        self.host = host
        self.listener = listener
        self.access_log = access_log
        super().__init__()

    def load_config(self) -> None:
        """Gunicorn's settings; its environment variables and files are not read."""
        settings = {
            "bind": f"fd://{self.listener.detach()}",
            "worker_class": Worker,
            "workers": 1,
            "threads": THREADS,
            "worker_connections": THREADS * 4,
            "keepalive": 15,
            # Streams end within their next look, 2 s; what still runs after this is cut.
            "graceful_timeout": 5,
            "control_socket_disable": True,
            "loglevel": "warning",
            "accesslog": "-" if self.access_log else None,
            "proc_name": "dreamq-api",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI application, made in the serving process."""
        app = create_app(self.settings, bound_host=self.host)
        self.context = app.extensions["dreamq"]

        def patient_to_a_point(environ: dict[str, Any], start_response: Any) -> Any:
            # A client that stalls in mid-request would keep its thread for ever.
            environ["gunicorn.socket"].settimeout(_CLIENT_SILENT_S)
            return app(environ, start_response)

        return patient_to_a_point
