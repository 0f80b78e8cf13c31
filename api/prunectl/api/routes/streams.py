"""What a job writes while it runs, and leaves: events, logs and artifact files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterator, Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from prunectl.api.auth import CurrentCaller
from prunectl.api.dependencies import Jobs
from prunectl.api.problems import responses
from prunectl.jobs.records import Event
from prunectl.jobs.views import iso
from prunectl.schemas import TERMINAL_STATES, JobView

router = APIRouter(prefix="/v1", tags=["jobs"], responses=responses(401, 403, 404, 422))

POLL_SECONDS = 0.5
COPY_BYTES = 2**20
Offset = Annotated[int, Query(ge=0, lt=2**63)]


def _known_id(ref: str, caller: CurrentCaller, jobs: Jobs) -> str:
    """The full id. A dependency, so that an unknown job is a 404 and not a stream that breaks off."""
    return jobs.show(caller, ref).id


@router.get("/jobs/{ref}/events", response_class=EventSourceResponse)
async def events(
    job_id: Annotated[str, Depends(_known_id)],
    caller: CurrentCaller,
    jobs: Jobs,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events after ``Last-Event-ID``: ``state`` and ``stage``, then ``end`` with the job."""
    after = int(last_event_id) if last_event_id and last_event_id.isdecimal() and int(last_event_id) < 2**63 else 0
    while True:
        # The job first: an event that came with its end is then among the events read after it.
        job: JobView = await run_in_threadpool(jobs.show, caller, job_id)
        found: Sequence[Event] = await run_in_threadpool(jobs.events, caller, job_id, after)
        for event in found:
            after = event.id
            yield ServerSentEvent(data=_document(event), event=event.kind, id=str(event.id))
        if job.state in TERMINAL_STATES and not found:
            yield ServerSentEvent(data=job.model_dump(mode="json"), event="end")
            return
        if not found:
            await asyncio.sleep(POLL_SECONDS)


@router.get("/jobs/{ref}/logs", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def logs(ref: str, caller: CurrentCaller, jobs: Jobs, offset: Offset = 0) -> Response:
    """The log from byte ``offset``, readable while the job runs.

    ``Prunectl-Next-Offset`` is where to go on; ``Prunectl-Log-Ended: true`` says that nothing more will come.
    """
    chunk = jobs.logs(caller, ref, offset=offset)
    headers = {
        "Prunectl-Next-Offset": str(chunk.next_offset),
        "Prunectl-Log-Ended": "true" if chunk.ended else "false",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(chunk.data, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/jobs/{ref}/artifacts")
def artifacts(ref: str, caller: CurrentCaller, jobs: Jobs) -> dict[str, Any]:
    """The files of the job's checkpoint, with their sizes in bytes."""
    files = jobs.artifact_files(caller, ref)
    return {"schema_version": 1, "items": [{"path": file.path, "size": file.size} for file in files]}


@router.get(
    "/jobs/{ref}/artifacts/{path:path}",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def artifact(ref: str, path: str, caller: CurrentCaller, jobs: Jobs) -> StreamingResponse:
    """One file of the job's checkpoint, streamed."""
    source, size = jobs.open_artifact(caller, ref, path)

    def chunks() -> Iterator[bytes]:
        with source as file:
            while data := file.read(COPY_BYTES):
                yield data

    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1])}",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(chunks(), media_type="application/octet-stream", headers=headers)


def _document(event: Event) -> dict[str, Any]:
    return {"job_id": event.job_id, "attempt": event.attempt, "at": iso(event.at), **event.data}
