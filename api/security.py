"""Who may call: a known Host, no foreign Origin, an API key where keys are set; all before a body is read.

Any web page that a user looks at can make the browser call a server on loopback. Such a call carries the page's Origin,
or, after the page's name was pointed at 127.0.0.1, the page's name as Host; neither is one of ours.
"""

import ipaddress
import re
import socket

from flask import Flask, Response, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, Unauthorized

from api.keys import KeyFile
from shared.errors import JobNotFound
from shared.job import ID_PATTERN
from shared.settings import Settings

OPEN_TO_ALL = frozenset(
    {"operators.healthz", "operators.readyz", "openapi.show", "pages.index", "pages.job", "static"}
)
"""What needs no key: probes, the description of the API, and the pages, which hold no data and ask for the key."""

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_API_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Gate:
    """Lets a request pass, or raises the error that answers it."""

    def __init__(self, settings: Settings, bound_host: str) -> None:
        self.keys = KeyFile(settings.api_keys_file) if settings.api_keys_file else None
        self.extra_hosts = {name.strip().lower() for name in settings.api_hosts.split(",") if name.strip()}
        self.hosts = _LOOPBACK_NAMES | self.extra_hosts | {bound_host.strip("[]").lower()}
        self.any_address = bound_host.strip("[]") in ("", "0.0.0.0", "::")
        if self.any_address:
            self.hosts |= {socket.gethostname().lower()}

    def check(self) -> None:
        """Check the request that is being answered."""
        self.check_host()
        self.check_origin()
        if request.endpoint not in OPEN_TO_ALL:
            self.check_key()
        job_id = (request.view_args or {}).get("job_id")
        if job_id is not None and request.blueprint != "pages" and not re.fullmatch(ID_PATTERN, job_id):
            raise JobNotFound(
                f"{job_id!r:.100} is no job id: those have 26 characters, as the submit answered them"
            )

    def check_host(self) -> None:
        """The Host header must be one of our names: a page whose own name was pointed at us has another."""
        host, _ = split_host(request.headers.get("Host", ""))
        if host in self.hosts or (self.any_address and is_address(host)):
            # A name can be pointed anywhere, an address cannot: it is no other's.
            return
        raise Forbidden(
            f"this server is not called {host!r:.100}; names beside localhost are set by API_HOSTS"
        )

    def check_origin(self) -> None:
        """A web page of another origin may not call, neither with an Origin header nor as the source of a picture."""
        origin = request.headers.get("Origin")
        if origin is not None and not self.is_ours(origin):
            raise Forbidden("web pages of another origin may not call this server")
        fetched = request.headers.get("Sec-Fetch-Site"), request.headers.get("Sec-Fetch-Mode")
        if fetched[0] in ("cross-site", "same-site") and fetched[1] != "navigate":
            raise Forbidden("web pages of another origin may not use what is on this server")

    def is_ours(self, origin: str) -> bool:
        """Whether an Origin is this very server, or a name that the operator gave it."""
        scheme, separator, netloc = origin.lower().partition("://")
        if not separator or scheme not in _DEFAULT_PORTS:
            return False
        name, port = split_host(netloc)
        own_name, own_port = split_host(request.headers.get("Host", ""))
        default = _DEFAULT_PORTS[scheme]
        return name in self.extra_hosts or (name == own_name and (port or default) == (own_port or default))

    def check_key(self) -> None:
        """Where keys are set, one of them must be presented."""
        if self.keys is None:
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.keys.knows(key.strip()):
            raise Unauthorized(
                "this needs an API key: Authorization: Bearer <key>",
                www_authenticate=WWWAuthenticate("bearer"),
            )


def split_host(netloc: str) -> tuple[str, str]:
    """Name and port of a Host header: `[::1]:8080` -> (`::1`, `8080`)."""
    matched = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](?::(\d*))?|([^:\[\]]*)(?::(\d*))?", netloc.strip())
    if matched is None:
        return "", ""
    return (matched[1] or matched[3] or "").lower(), matched[2] or matched[4] or ""


def is_address(host: str) -> bool:
    """Whether a host is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host or "0.0.0.0", None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses)


def protect(response: Response) -> Response:
    """Headers by which browsers keep our answers to themselves and take them for what they are."""
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers.setdefault("Content-Security-Policy", _API_POLICY)
    headers.setdefault("Cache-Control", "no-store")
    return response


def init_app(app: Flask, settings: Settings, bound_host: str) -> None:
    """Put the gate before every route."""
    app.before_request(Gate(settings, bound_host).check)
    app.after_request(protect)
