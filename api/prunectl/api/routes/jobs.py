"""``/v1/jobs``: submit, plan, look, steer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from prunectl.api.auth import CurrentCaller
from prunectl.api.dependencies import Jobs, ServiceSettings, Standings, Sweeps
from prunectl.api.problems import responses
from prunectl.api.query import ListParameters
from prunectl.schemas import JobCreate, JobPage, JobView, Plan
from prunectl.standing import Explanation

router = APIRouter(prefix="/v1", tags=["jobs"], responses=responses(401, 403, 422))

HubToken = Annotated[str | None, Header(alias="X-Hub-Token", max_length=1000)]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200)]


@router.post("/jobs", status_code=202, responses=responses(409, 413, 503))
def submit(
    body: JobCreate,
    response: Response,
    caller: CurrentCaller,
    jobs: Jobs,
    settings: ServiceSettings,
    idempotency_key: IdempotencyKey = None,
    hub_token: HubToken = None,
) -> JobView:
    """Queue a job. ``Prunectl-Existing: true`` says that an identical one was queued, running or succeeded already."""
    # Only the embedded stack takes a Hub token: there, submitter and worker are one user on one machine.
    submitted = jobs.submit(
        caller, body, idempotency_key=idempotency_key, hub_token=hub_token if settings.embedded else None
    )
    response.headers["Location"] = f"/v1/jobs/{submitted.job.id}"
    if not submitted.created:
        response.headers["Prunectl-Existing"] = "true"
    return submitted.job


@router.post("/jobs:plan", responses=responses(413, 503))
def plan(
    body: JobCreate, caller: CurrentCaller, jobs: Jobs, settings: ServiceSettings, hub_token: HubToken = None
) -> Plan:
    """What the job would do, from the model's ``config.json`` alone; nothing is queued."""
    return jobs.plan(caller, body, hub_token=hub_token if settings.embedded else None)


@router.get("/jobs", response_model_exclude={"items": {"__all__": {"structure"}}})
def list_jobs(parameters: Annotated[ListParameters, Query()], caller: CurrentCaller, sweeps: Sweeps) -> JobPage:
    """One page of whole jobs without their ``structure``; ``next_cursor`` leads to the next."""
    return sweeps.jobs(caller, parameters.query())


@router.get("/jobs/{ref}", responses=responses(404))
def show(ref: str, caller: CurrentCaller, jobs: Jobs) -> JobView:
    """One job, by its id or an unambiguous prefix or suffix of at least 4 characters."""
    return jobs.show(caller, ref)


@router.get("/jobs/{ref}/spec", responses=responses(404))
def spec(ref: str, caller: CurrentCaller, jobs: Jobs) -> dict[str, Any]:
    """The flat recipe file that submits this job again."""
    return jobs.spec(caller, ref)


@router.get("/jobs/{ref}/why", responses=responses(404, 409))
def why(ref: str, caller: CurrentCaller, standings: Standings) -> Explanation:
    """Why the job waits, runs or has ended; the first reason is the one that holds it back most."""
    return standings.why(caller, ref)


@router.post("/jobs/{ref}/cancel", responses=responses(404, 409))
def cancel(ref: str, caller: CurrentCaller, jobs: Jobs) -> JobView:
    return jobs.cancel(caller, ref)


@router.post("/jobs/{ref}/retry", responses=responses(404, 409))
def retry(ref: str, caller: CurrentCaller, jobs: Jobs) -> JobView:
    return jobs.retry(caller, ref)


@router.delete("/jobs/{ref}", responses=responses(404, 409))
def remove(ref: str, caller: CurrentCaller, jobs: Jobs, keep_artifacts: bool = False) -> JobView:
    """Delete an ended job; what it was comes back."""
    return jobs.remove(caller, ref, keep_artifacts=keep_artifacts)
