"""The HTTP API as Python calls. Gives JSON as it came; problem documents become domain errors."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import httpx2
import stamina

from prunectl.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    PrunectlError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from prunectl.version import version

Json = dict[str, Any]
COPY_BYTES = 2**20
PAGE = 500
ATTEMPTS = 4

_ERRORS: dict[int, type[PrunectlError]] = {
    400: InvalidInput,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    405: InvalidInput,
    409: Conflict,
    413: TooLarge,
    422: InvalidInput,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


@dataclass(frozen=True)
class LogChunk:
    data: bytes
    next_offset: int
    ended: bool


class Client:
    """Speaks to one service. ``environment`` is sent where the service is the embedded stack, and only there."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        environment: Json | None = None,
        hub_token: str | None = None,
        unreachable_hint: str = "check PRUNECTL_API_URL and the network",
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        # Its default is to log each retry, and where structlog is installed that lands on stdout, among the data.
        stamina.instrumentation.set_on_retry_hooks(())
        self.url = url.rstrip("/")
        token = (token or "").strip()
        if not (token.isascii() and token.isprintable()):
            raise Unauthenticated(
                "the API token has characters that no token has", hint="check PRUNECTL_API_TOKEN, line breaks included"
            )
        self.environment = environment
        self._hub_token = hub_token
        self._hint = unreachable_hint
        headers = {"User-Agent": f"prunectl/{version()}"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            self._http = httpx2.Client(
                base_url=self.url,
                headers=headers,
                timeout=httpx2.Timeout(120, connect=5),
                # A proxy from the environment must not see what is said to the loopback.
                trust_env=environment is None,
                transport=transport,
            )
        except httpx2.InvalidURL as error:
            raise self._not_an_address(str(error)) from error

    def close(self) -> None:
        self._http.close()

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def submit(self, body: Mapping[str, Any]) -> tuple[Json, bool]:
        """(the job, whether it is new). One idempotency key for all tries: a lost answer queues nothing twice."""
        headers = {"Idempotency-Key": uuid.uuid4().hex, **self._hub_header()}
        response = self._send("POST", "/v1/jobs", json=self._with_environment(body), headers=headers)
        job: Json = response.json()
        return job, response.headers.get("Prunectl-Existing") != "true"

    def plan(self, body: Mapping[str, Any]) -> Json:
        return self._json("POST", "/v1/jobs:plan", json=self._with_environment(body), headers=self._hub_header())

    def jobs(self, parameters: Mapping[str, Any], limit: int) -> tuple[list[Json], str | None]:
        """At most ``limit`` jobs (0: all), following cursors; and the cursor that leads on, if any."""
        return self._pages("/v1/jobs", parameters, limit)

    def _pages(self, path: str, parameters: Mapping[str, Any], limit: int) -> tuple[list[Json], str | None]:
        items: list[Json] = []
        cursor: str | None = None
        while True:
            size = min(PAGE, limit - len(items)) if limit else PAGE
            page = self._json(
                "GET", path, params={**parameters, "limit": size, **({"cursor": cursor} if cursor else {})}
            )
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None or (limit and len(items) >= limit):
                return items, cursor

    def job(self, ref: str) -> Json:
        return self._json("GET", _job(ref))

    def spec(self, ref: str) -> Json:
        return self._json("GET", _job(ref, "/spec"))

    def attention(self, ref: str, body: Mapping[str, Any]) -> Json:
        """The job that draws the picture. Asked for twice, it is drawn once, so a lost answer does no harm."""
        return self._json(
            "POST", _job(ref, "/attention"), json=self._with_environment(body), headers=self._hub_header()
        )

    def cancel(self, ref: str) -> Json:
        return self._json("POST", _job(ref, "/cancel"))

    def retry(self, ref: str) -> Json:
        # Not repeated by itself after a lost answer: the second would find the job queued and call that a conflict.
        return self._json("POST", _job(ref, "/retry"), attempts=1)

    def remove(self, ref: str, *, keep_artifacts: bool) -> Json:
        return self._json("DELETE", _job(ref), params={"keep_artifacts": keep_artifacts}, attempts=1)

    def why(self, ref: str) -> Json:
        return self._json("GET", _job(ref, "/why"))

    def logs(self, ref: str, offset: int) -> LogChunk:
        response = self._send("GET", _job(ref, "/logs"), params={"offset": offset})
        headers = response.headers
        return LogChunk(response.content, int(headers["Prunectl-Next-Offset"]), headers["Prunectl-Log-Ended"] == "true")

    # -- sweeps -------------------------------------------------------------------------------------------------------

    def submit_sweep(self, body: Mapping[str, Any]) -> Json:
        """One idempotency key for all tries, as with a job."""
        headers = {"Idempotency-Key": uuid.uuid4().hex, **self._hub_header()}
        return self._json("POST", "/v1/sweeps", json=self._with_environment(body), headers=headers)

    def plan_sweep(self, body: Mapping[str, Any]) -> Json:
        return self._json("POST", "/v1/sweeps:plan", json=self._with_environment(body), headers=self._hub_header())

    def sweeps(self, limit: int) -> tuple[list[Json], str | None]:
        """At most ``limit`` sweeps (0: all), the newest first; and the cursor that leads on, if any."""
        return self._pages("/v1/sweeps", {}, limit)

    def sweep(self, ref: str) -> Json:
        return self._json("GET", _sweep(ref))

    def cancel_sweep(self, ref: str) -> Json:
        return self._json("POST", _sweep(ref, "/cancel"))

    def retry_sweep(self, ref: str, *, failed: bool) -> Json:
        return self._json("POST", _sweep(ref, "/retry"), params={"failed": failed})

    def compare(self, ids: Sequence[str], sweep: str | None, parameters: Mapping[str, str]) -> Json:
        asked = {"ids": ",".join(ids)} if ids else {"sweep": str(sweep)}
        return self._json("GET", "/v1/compare", params={**asked, **parameters})

    # -- files --------------------------------------------------------------------------------------------------------

    def artifacts(self, ref: str) -> list[Json]:
        items: list[Json] = self._json("GET", _job(ref, "/artifacts"))["items"]
        return items

    def download(self, ref: str, path: str) -> Iterator[bytes]:
        try:
            with self._http.stream("GET", _job(ref, "/artifacts/" + quote(path))) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _error_of(response)
                yield from response.iter_raw(COPY_BYTES)
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def report(self, ids: Sequence[str], sweep: str | None) -> bytes:
        """The report of a job, of several, or of a sweep, as HTML."""
        if sweep is not None:
            return self._send("GET", _sweep(sweep, "/report")).content
        if len(ids) == 1:
            return self._send("GET", _job(ids[0], "/report")).content
        return self._send("GET", "/v1/compare/report", params={"ids": ",".join(ids)}).content

    def importance(self, ref: str, format: str) -> bytes:
        """The importance of a job's heads as SVG or PNG."""
        return self._send("GET", _job(ref, "/importance"), params={"format": format}).content

    def upload(self, sha256: str, path: Path) -> None:
        """Send a file unless the service has it."""
        address = f"/v1/uploads/{sha256}"
        if self._send("HEAD", address, accept=(404,)).status_code == 200:
            return
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        with path.open("rb") as file:
            self._send("PUT", address, content=_chunks(file), headers=headers, attempts=1)

    # -- the service --------------------------------------------------------------------------------------------------

    def models(self) -> list[Json]:
        items: list[Json] = self._json("GET", "/v1/models", headers=self._environment_header())["items"]
        return items

    def model(self, name: str) -> Json:
        return self._json("GET", "/v1/models/" + quote(name), headers=self._environment_header())

    def inspect(self, model: str) -> Json:
        body = self._with_environment({"model": model})
        return self._json("POST", "/v1/models:inspect", json=body, headers=self._hub_header())

    def workers(self) -> list[Json]:
        items: list[Json] = self._json("GET", "/v1/workers")["items"]
        return items

    def queues(self) -> list[Json]:
        items: list[Json] = self._json("GET", "/v1/queues")["items"]
        return items

    def quotas(self) -> list[Json]:
        items: list[Json] = self._json("GET", "/v1/quotas")["items"]
        return items

    def doctor(self) -> list[Json]:
        items: list[Json] = self._json("GET", "/v1/doctor")["items"]
        return items

    def version(self) -> str:
        return str(self._json("GET", "/version")["version"])

    # -- the wire -----------------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, **arguments: Any) -> Json:
        response = self._send(method, path, **arguments)
        try:
            document = response.json()
        except json.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise Unavailable(f"{self.url} answers, but not as prunectl does", hint=self._hint)
        return document

    def _send(
        self, method: str, path: str, *, attempts: int = ATTEMPTS, accept: tuple[int, ...] = (), **arguments: Any
    ) -> httpx2.Response:
        """Raises the domain error that the answer stands for; tries again where the network or the service was away."""
        for attempt in stamina.retry_context(
            on=Unavailable, attempts=attempts, timeout=20, wait_initial=0.2, wait_max=3
        ):
            with attempt:
                try:
                    response = self._http.request(method, path, **arguments)
                except httpx2.TransportError as error:
                    raise self._unreachable(error) from error
                if response.status_code >= 400 and response.status_code not in accept:
                    raise _error_of(response)
        return response

    def _unreachable(self, error: httpx2.TransportError) -> PrunectlError:
        if isinstance(error, httpx2.UnsupportedProtocol):
            return self._not_an_address("it begins with neither http:// nor https://")
        reason = str(error) or type(error).__name__
        return Unavailable(f"{self.url} can't be reached: {reason}", hint=self._hint)

    def _not_an_address(self, why: str) -> InvalidInput:
        return InvalidInput(
            f"PRUNECTL_API_URL: {self.url!r} is not an http or https address",
            hint=f"{why[:1].lower()}{why[1:]}; such as https://prune.example.org",
            field="PRUNECTL_API_URL",
            value=self.url,
        )

    def _with_environment(self, body: Mapping[str, Any]) -> Json:
        return {**body, "environment": self.environment} if self.environment else dict(body)

    def _environment_header(self) -> dict[str, str]:
        return {"Prunectl-Environment": json.dumps(self.environment)} if self.environment else {}

    def _hub_header(self) -> dict[str, str]:
        return {"X-Hub-Token": self._hub_token} if self._hub_token and self.environment else {}


def _job(ref: str, rest: str = "") -> str:
    return f"/v1/jobs/{_segment('job', ref)}{rest}"


def _sweep(ref: str, rest: str = "") -> str:
    return f"/v1/sweeps/{_segment('sweep', ref)}{rest}"


def _segment(noun: str, ref: str) -> str:
    """``ref`` as one segment of a path; raises NotFound where it would be none, or several, and name another route."""
    if ref.strip() in ("", ".", "..") or "/" in ref:
        text = f"no {noun} {ref!r}: an id, or at least 4 characters of its start or end"
        raise NotFound(text, hint=f"prunectl {'list -a shows all' if noun == 'job' else 'sweeps lists them'}")
    return quote(ref, safe="")


def _error_of(response: httpx2.Response) -> PrunectlError:
    status = response.status_code
    if not response.headers.get("content-type", "").startswith("application/problem+json"):
        text = f"{response.request.url} answered {status}, and not as prunectl does"
        return Unavailable(text, hint="does PRUNECTL_API_URL point at a prunectl service?")
    problem = response.json()
    detail, hint = problem.get("detail") or problem["title"], problem.get("hint")
    kind = _ERRORS.get(status, PrunectlError)
    if kind is InvalidInput:
        return InvalidInput(detail, hint=hint, errors=problem.get("errors") or ())
    return kind(detail, hint=hint)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while data := file.read(COPY_BYTES):
        yield data
