"""``/v1/uploads/{sha256}``: data files, by their own digest."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from prunectl.api.auth import CurrentCaller
from prunectl.api.dependencies import Jobs, ServiceSettings
from prunectl.api.limits import too_large
from prunectl.api.problems import responses

router = APIRouter(prefix="/v1", tags=["uploads"], responses=responses(401, 403, 422))

SPOOL_BYTES = 2**20
Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


@router.head("/uploads/{sha256}", responses=responses(404))
def has_upload(sha256: Sha256, caller: CurrentCaller, jobs: Jobs) -> Response:
    """200 where the file is there already, 404 where it is to be sent."""
    return Response(status_code=200 if jobs.has_upload(caller, sha256) else 404)


@router.put("/uploads/{sha256}", status_code=201, responses=responses(413, 507))
async def upload(
    sha256: Sha256, request: Request, caller: CurrentCaller, jobs: Jobs, settings: ServiceSettings
) -> dict[str, str]:
    """Keep the body under its SHA-256; a body with another digest is refused."""
    caller.require("submit")
    limit = settings.upload_limit
    # Spooled first: the event loop takes the bytes as they come, the service reads them in a thread.
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if limit is not None and size > limit:
                raise too_large(limit)
            await run_in_threadpool(spool.write, chunk)
        spool.seek(0)
        reference = await run_in_threadpool(jobs.upload, caller, sha256, _chunks(spool))
    return {"sha256": sha256, "reference": reference}


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while data := file.read(SPOOL_BYTES):
        yield data
