"""Reports as HTML, and the importance of a job's heads as a picture: whole files that load nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse

from prunectl.api.auth import CurrentCaller
from prunectl.api.dependencies import Comparisons, Jobs, Sweeps
from prunectl.api.problems import responses
from prunectl.api.routes.comparisons import Listed, Metric, names
from prunectl.errors import Conflict
from prunectl.reporting import heat_map
from prunectl.reporting.job_report import job_report
from prunectl.reporting.pictures import png
from prunectl.reporting.sweep_report import comparison_report, models_of, sweep_report

router = APIRouter(prefix="/v1", tags=["results"], responses=responses(401, 403, 404, 409, 422))

# What a file is shown with where a browser opens it straight from the service.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/jobs/{ref}/report", response_class=HTMLResponse)
def job_as_report(ref: str, caller: CurrentCaller, jobs: Jobs) -> HTMLResponse:
    """The job's report as it is now, one HTML file."""
    return HTMLResponse(job_report(jobs.show(caller, ref)), headers=_HEADERS)


@router.get("/sweeps/{ref}/report", response_class=HTMLResponse)
def sweep_as_report(
    ref: str, caller: CurrentCaller, sweeps: Sweeps, comparisons: Comparisons, x: Metric = None, y: Metric = None
) -> HTMLResponse:
    """The sweep's report: quality against cost, and its jobs; one HTML file."""
    sweep = sweeps.show(caller, ref)
    found = comparisons.compare(caller, (), sweep.id, x=x, y=y)
    return HTMLResponse(sweep_report(sweep, found), headers=_HEADERS)


@router.get("/compare/report", response_class=HTMLResponse)
def comparison_as_report(
    caller: CurrentCaller, comparisons: Comparisons, ids: Listed = "", x: Metric = None, y: Metric = None
) -> HTMLResponse:
    """The same of any jobs."""
    found = comparisons.compare(caller, names(ids), None, x=x, y=y)
    facts = [("model", models_of(found))]
    return HTMLResponse(
        comparison_report(found, title=f"Report of {len(found.items)} jobs", facts=facts), headers=_HEADERS
    )


@router.get(
    "/jobs/{ref}/importance",
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {}, "image/png": {}}}},
)
def importance(
    ref: str, caller: CurrentCaller, jobs: Jobs, format: Annotated[Literal["svg", "png"], Query()] = "svg"
) -> Response:
    """How important each head was found, layers by heads, with crosses where heads went."""
    job = jobs.show(caller, ref)
    if job.structure is None or not job.structure.layers:
        raise Conflict(f"job {job.id} is {job.state} and has no heads to show", hint=f"prunectl wait {job.id}")
    drawn = heat_map.svg(job.structure)
    if format == "png":
        return Response(png(drawn), media_type="image/png", headers=_HEADERS)
    return Response(drawn, media_type="image/svg+xml", headers=_HEADERS)
