"""``/v1/jobs/{ref}/attention``: have a picture drawn of a job that has ended."""

from __future__ import annotations

from fastapi import APIRouter, Response

from prunectl.api.auth import CurrentCaller
from prunectl.api.dependencies import Attention, ServiceSettings
from prunectl.api.problems import responses
from prunectl.api.routes.jobs import HubToken, IdempotencyKey
from prunectl.attention import AttentionRequest
from prunectl.schemas import JobView

router = APIRouter(prefix="/v1", tags=["jobs"], responses=responses(401, 403, 404, 422))


@router.post("/jobs/{ref}/attention", status_code=202, responses=responses(409, 413))
def draw_attention(
    ref: str,
    body: AttentionRequest,
    response: Response,
    caller: CurrentCaller,
    attention: Attention,
    settings: ServiceSettings,
    idempotency_key: IdempotencyKey = None,
    hub_token: HubToken = None,
) -> JobView:
    """Queue the picture of the job's attention, before and after, for a text.

    What comes back is the job that draws it; its artifact ``attention.html`` is the page. ``Prunectl-Existing: true``
    says that the identical picture was asked for before.
    """
    drawn, created = attention.draw(
        caller, ref, body, idempotency_key=idempotency_key, hub_token=hub_token if settings.embedded else None
    )
    response.headers["Location"] = f"/v1/jobs/{drawn.id}"
    if not created:
        response.headers["Prunectl-Existing"] = "true"
    return drawn
