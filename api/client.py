"""A Python client of the HTTP API. Needs `requests` only; knows nothing of Redis, storage or TensorFlow."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import requests

Json = dict[str, Any]

ENDED = frozenset({"succeeded", "failed", "cancelled"})
_ARTIFACT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAMES_TOLD = 10
_CHUNK = 256 * 1024
_SILENT_S = 45.0
"""A stream that says nothing for this long is dead: the server writes a comment every 15 s."""


class ApiError(Exception):
    """The server refused; `code` is stable, `field` names what it refused, if it is one field."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field


class Unavailable(ApiError):
    """The server cannot be reached, or cannot reach its Redis or storage; try again later."""


class JobEvent(NamedTuple):
    """Something that happened to a job: `status`, `progress`, `artifact` or `text`."""

    id: str
    type: str
    data: Json


class Client:
    """One server, called with one key."""

    def __init__(
        self, url: str = "http://127.0.0.1:8080", key: str | None = None, *, timeout_s: float = 30
    ) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        self.timeout_s = timeout_s
        self._session = requests.Session()
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"

    def upload(self, source: str | Path | bytes) -> str:
        """Send a file that jobs may name; its id."""
        if isinstance(source, bytes):
            return str(self._json("POST", "/v1/uploads", "id", data=source)["id"])
        with Path(source).open("rb") as opened:  # streamed
            return str(self._json("POST", "/v1/uploads", "id", data=opened)["id"])

    def submit(
        self,
        kind: str,
        params: Mapping[str, Any] | None = None,
        *,
        priority: str = "normal",
        depends_on: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Queue a job; the job."""
        body = {
            "kind": kind,
            "params": dict(params or {}),
            "priority": priority,
            "depends_on": list(depends_on),
            "labels": dict(labels or {}),
        }
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
        return self._json("POST", "/v1/jobs", "id", json=body, headers=headers)

    def job(self, job_id: str) -> Json:
        """A job as it is now."""
        return self._json("GET", f"/v1/jobs/{part(job_id)}", "id")

    def jobs(
        self,
        *,
        status: str | None = None,
        kind: str | None = None,
        label: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Json:
        """A page of jobs, newest first: `jobs` and `next_cursor`."""
        query = {"status": status, "kind": kind, "label": label, "limit": limit, "cursor": cursor}
        given = {name: value for name, value in query.items() if value is not None}
        return self._json("GET", "/v1/jobs", "jobs", params=given)

    def cancel(self, job_id: str) -> Json:
        """Ask for a job's cancel; the job."""
        return self._json("POST", f"/v1/jobs/{part(job_id)}/cancel", "id")

    def kinds(self) -> list[Json]:
        """Every kind of job, with the schema of its parameters."""
        return list(self._json("GET", "/v1/kinds", "kinds")["kinds"])

    def workers(self) -> list[Json]:
        """The workers heard of lately."""
        return list(self._json("GET", "/v1/workers", "workers")["workers"])

    def wait(self, job_id: str) -> Json:
        """Wait for a job's end; the job."""
        for _ in self.events(job_id):
            pass
        return self.job(job_id)

    def events(self, job_id: str, *, after: str | None = None, patience_s: float = 120) -> Iterator[JobEvent]:
        """What happens to a job until it ends. A connection that breaks is made again, and nothing is missed.

        Raises:
            ApiError: there is no such job.
            Unavailable: the server stayed away for `patience_s`.
        """
        heard_at = time.monotonic()
        while True:
            try:
                for event in self._stream(job_id, after):
                    heard_at = time.monotonic()
                    yield event
                    after = event.id
                    if event.type == "status" and event.data.get("status") in ENDED:
                        return
                if self.job(job_id)["status"] in ENDED:
                    return
                heard_at = time.monotonic()
            except Unavailable:
                if time.monotonic() - heard_at > patience_s:
                    raise
            time.sleep(1)

    def _stream(self, job_id: str, after: str | None) -> Iterator[JobEvent]:
        headers = {"Last-Event-ID": after} if after else {}
        path = f"/v1/jobs/{part(job_id)}/events"
        with self._call(
            "GET", path, headers=headers, stream=True, timeout=(self.timeout_s, _SILENT_S)
        ) as response:
            try:
                yield from parse_events(response.iter_lines())
            except requests.RequestException as error:
                raise Unavailable(0, "unreachable", f"the connection to {self.url} broke") from error

    def download(
        self,
        job_id: str,
        folder: str | Path,
        names: Iterable[str] | None = None,
        *,
        tell: Callable[[Path], None] = lambda path: None,
    ) -> list[Path]:
        """Fetch artifacts of a job (all, or those called `names`) into `folder`; the paths written."""
        listed = {artifact["name"]: artifact for artifact in self.job(job_id)["artifacts"]}
        wanted = list(listed) if names is None else list(names)
        for name in wanted:
            if name not in listed or not _ARTIFACT_NAME.fullmatch(name):
                there = ", ".join(get_close_matches(name, listed, n=_NAMES_TOLD, cutoff=0) or ["none yet"])
                more = f" and {len(listed) - _NAMES_TOLD} more" if len(listed) > _NAMES_TOLD else ""
                raise ApiError(
                    404,
                    "artifact_not_found",
                    f"job {job_id} has no artifact {name!r}; there are: {there}{more}",
                )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name in wanted:
            written.append(self._download_one(listed[name], folder / name))
            tell(written[-1])
        return written

    def _download_one(self, artifact: Json, target: Path) -> Path:
        """One file, under its name only when it is whole and has the hash that the job's record gives."""
        partial = target.with_name(f".{target.name}.part")
        digest = hashlib.sha256()
        try:
            with self._call("GET", artifact["url"], stream=True) as response, partial.open("wb") as opened:
                for chunk in response.iter_content(_CHUNK):
                    digest.update(chunk)
                    opened.write(chunk)
            if digest.hexdigest() != artifact["sha256"]:
                raise Unavailable(
                    0, "damaged", f"{target.name} came damaged or changed meanwhile; fetch it again"
                )
            partial.replace(target)
        except requests.RequestException as error:
            raise Unavailable(0, "unreachable", f"the connection to {self.url} broke") from error
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _json(self, method: str, path: str, has: str, **arguments: Any) -> Json:
        """An answer, which has a field of the name `has`."""
        response = self._call(method, path, **arguments)
        try:
            found = response.json()
        except requests.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or has not in found:
            raise not_dreamq(response)
        return found

    def _call(self, method: str, path: str, **arguments: Any) -> requests.Response:
        arguments.setdefault("timeout", self.timeout_s)
        if "json" in arguments:
            arguments["data"] = written(arguments.pop("json"))
            arguments["headers"] = {"Content-Type": "application/json", **arguments.get("headers", {})}
        try:
            response = self._session.request(method, f"{self.url}{path}", allow_redirects=False, **arguments)
        except (requests.exceptions.InvalidHeader, UnicodeEncodeError) as error:
            raise ApiError(0, "invalid_request", f"this cannot be sent as a header: {error}") from error
        except (requests.RequestException, OSError) as error:
            raise Unavailable(0, "unreachable", f"no dreamq server answers at {self.url}") from error
        if response.ok and response.status_code < 300:
            return response
        raise refusal(response)


def refusal(response: requests.Response) -> ApiError:
    """The error that an answer holds; something that is not dreamq may have answered."""
    try:
        error = response.json()["error"]
        code, message, field = error["code"], error["message"], error.get("field")
    except (ValueError, KeyError, TypeError):
        return not_dreamq(response)
    kind = Unavailable if response.status_code in (502, 503, 504) else ApiError
    return kind(response.status_code, code, message, field)


def part(name: str) -> str:
    """One part of a path, whatever it is made of."""
    return quote(name, safe="")


def not_dreamq(response: requests.Response) -> ApiError:
    """Something else answered: another program at the address, or a proxy before the server."""
    kind = Unavailable if response.status_code in (502, 503, 504) else ApiError
    message = f"{response.url} answers {response.status_code}, and not as dreamq does"
    return kind(response.status_code, "not_dreamq", message)


def written(value: Any) -> bytes:
    """A value as JSON, which has neither NaN nor other types than its own."""
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ApiError(0, "invalid_request", f"this cannot be sent as JSON: {error}") from error


def parse_events(lines: Iterable[bytes]) -> Iterator[JobEvent]:
    """Server-sent events from their lines; comments and other fields are passed over."""
    fields: dict[str, str] = {}
    for raw in lines:
        line = raw.decode()
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "data" in fields:
            yield JobEvent(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
        fields = {}
