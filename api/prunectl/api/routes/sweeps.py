"""``/v1/sweeps``: a grid of jobs, submitted, shown and steered together."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from prunectl.api.auth import CurrentCaller
from prunectl.api.dependencies import ServiceSettings, Sweeps
from prunectl.api.problems import responses
from prunectl.api.routes.jobs import HubToken, IdempotencyKey
from prunectl.jobs.query import MAX_PAGE
from prunectl.sweep import SweepChange, SweepCreate, SweepPage, SweepPlan, SweepView

router = APIRouter(prefix="/v1", tags=["sweeps"], responses=responses(401, 403, 422))


@router.post("/sweeps", status_code=202, responses=responses(409, 413, 503))
def submit_sweep(
    body: SweepCreate,
    response: Response,
    caller: CurrentCaller,
    sweeps: Sweeps,
    settings: ServiceSettings,
    idempotency_key: IdempotencyKey = None,
    hub_token: HubToken = None,
) -> SweepView:
    """Queue every job of a grid, or none. Identical jobs that exist are shared: ``shared`` counts them."""
    submitted = sweeps.submit(
        caller, body, idempotency_key=idempotency_key, hub_token=hub_token if settings.embedded else None
    )
    response.headers["Location"] = f"/v1/sweeps/{submitted.sweep.id}"
    if not submitted.created:
        response.headers["Prunectl-Existing"] = "true"
    return submitted.sweep


@router.post("/sweeps:plan", responses=responses(413, 503))
def plan_sweep(
    body: SweepCreate, caller: CurrentCaller, sweeps: Sweeps, settings: ServiceSettings, hub_token: HubToken = None
) -> SweepPlan:
    """How many jobs the grid makes and how many of them exist; every one is checked, nothing is queued."""
    return sweeps.plan(caller, body, hub_token=hub_token if settings.embedded else None)


@router.get("/sweeps")
def list_sweeps(
    caller: CurrentCaller,
    sweeps: Sweeps,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> SweepPage:
    """One page of sweeps, the newest first."""
    return sweeps.list(caller, limit=limit, cursor=cursor)


@router.get("/sweeps/{ref}", responses=responses(404, 409))
def show_sweep(ref: str, caller: CurrentCaller, sweeps: Sweeps) -> SweepView:
    """One sweep; ``GET /v1/jobs?sweep=`` lists its jobs."""
    return sweeps.show(caller, ref)


@router.post("/sweeps/{ref}/cancel", responses=responses(404, 409))
def cancel_sweep(ref: str, caller: CurrentCaller, sweeps: Sweeps) -> SweepChange:
    """Cancel the jobs that the sweep queued and that have not ended. Idempotent."""
    return sweeps.cancel(caller, ref)


@router.post("/sweeps/{ref}/retry", responses=responses(404, 409))
def retry_sweep(ref: str, caller: CurrentCaller, sweeps: Sweeps, failed: bool = False) -> SweepChange:
    """Queue its failed and cancelled jobs again; with ``failed`` the failed ones alone. Idempotent."""
    return sweeps.retry(caller, ref, failed_only=failed)
