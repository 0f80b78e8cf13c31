"""``/healthz``, ``/readyz``, ``/version`` and ``/metrics``: what machines ask. The first two answer without a token."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse

from prunectl.api.auth import CurrentCaller
from prunectl.api.dependencies import Jobs
from prunectl.version import version

log = logging.getLogger(__name__)
router = APIRouter(tags=["probes"])


@router.get("/healthz")
def healthz(request: Request) -> dict[str, str | None]:
    """The process answers. ``instance`` tells the command line whether this is the stack that it started."""
    return {"status": "ok", "version": version(), "instance": request.app.state.instance}


@router.get("/readyz")
def readyz(jobs: Jobs) -> JSONResponse:
    """503 while a part is missing that requests need. Says which part; errors are for the log and the doctor."""
    found = jobs.health()
    for name, state in found.items():
        if state != "ok":
            log.warning("not ready: %s: %s", name, state)
    parts = {name: "ok" if state == "ok" else "failing" for name, state in found.items()}
    ready = all(state == "ok" for state in parts.values())
    return JSONResponse({"status": "ok" if ready else "failing", "parts": parts}, status_code=200 if ready else 503)


@router.get("/version")
def version_(caller: CurrentCaller) -> dict[str, str]:
    return {"version": version()}


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request, caller: CurrentCaller) -> Response:
    caller.require("read")
    return Response(generate_latest(request.app.state.registry), media_type=CONTENT_TYPE_LATEST)
