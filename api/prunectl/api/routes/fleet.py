"""``/v1/workers``, ``/v1/queues``, ``/v1/quotas``, ``/v1/models`` and ``/v1/doctor``: what there is to work with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import ValidationError

from prunectl.api.auth import CurrentCaller
from prunectl.api.dependencies import Jobs, ServiceSettings, Standings
from prunectl.api.problems import responses
from prunectl.schemas import Environment, Inspection, ModelInspect, ModelView
from prunectl.standing import QuotaPage
from prunectl.validation import refusal

router = APIRouter(prefix="/v1", tags=["fleet"], responses=responses(401, 403, 422))

HubToken = Annotated[str | None, Header(alias="X-Hub-Token", max_length=1000)]
# A GET has no body: the submitting command's surroundings travel as JSON in a header.
Surroundings = Annotated[str | None, Header(alias="Prunectl-Environment", max_length=16384)]


@router.get("/workers")
def workers(caller: CurrentCaller, jobs: Jobs) -> dict[str, Any]:
    return _items(jobs.workers(caller))


@router.get("/queues")
def queues(caller: CurrentCaller, jobs: Jobs) -> dict[str, Any]:
    return _items(jobs.queues(caller))


@router.get("/quotas")
def quotas(caller: CurrentCaller, standings: Standings) -> QuotaPage:
    """How many jobs the caller may have running, and has; for an admin those of every owner."""
    return standings.quotas(caller)


@router.get("/models")
def models(caller: CurrentCaller, jobs: Jobs, surroundings: Surroundings = None) -> dict[str, Any]:
    """The models under the zoo roots, and whether each can be pruned."""
    return _items(jobs.models(caller, _environment(surroundings)))


@router.get("/models/{name:path}", responses=responses(404))
def model(name: str, caller: CurrentCaller, jobs: Jobs, surroundings: Surroundings = None) -> ModelView:
    return jobs.model(caller, name, _environment(surroundings))


@router.post("/models:inspect", responses=responses(503))
def inspect(
    body: ModelInspect, caller: CurrentCaller, jobs: Jobs, settings: ServiceSettings, hub_token: HubToken = None
) -> Inspection:
    """What a model is made of and what each axis could save at most, from its ``config.json`` alone."""
    return jobs.inspect(caller, body, hub_token=hub_token if settings.embedded else None)


@router.get("/doctor")
def doctor(caller: CurrentCaller, jobs: Jobs) -> dict[str, Any]:
    """Every check of the service, its database, broker, storage and workers."""
    checks = jobs.doctor(caller)
    found = [{"name": check.name, "ok": check.ok, "detail": check.detail, "hint": check.hint} for check in checks]
    return {"schema_version": 1, "items": found}


def _items(views: Sequence[Any]) -> dict[str, Any]:
    return {"schema_version": 1, "items": [view.model_dump(mode="json") for view in views], "next_cursor": None}


def _environment(text: str | None) -> Environment | None:
    if text is None:
        return None
    try:
        return Environment.model_validate_json(text)
    except ValidationError as error:
        raise refusal(error.errors(include_url=False)) from None
