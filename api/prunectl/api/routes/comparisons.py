"""``/v1/compare`` and a sweep's Pareto front."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from prunectl.api.auth import CurrentCaller
from prunectl.api.dependencies import Comparisons
from prunectl.api.problems import responses
from prunectl.comparison import Comparison, ParetoFront

router = APIRouter(prefix="/v1", tags=["results"], responses=responses(401, 403, 404, 409, 422))

Metric = Annotated[str | None, Query(max_length=120)]
Listed = Annotated[str, Query(max_length=8000, description="separated by commas")]


@router.get("/compare")
def compare(
    caller: CurrentCaller,
    comparisons: Comparisons,
    ids: Listed = "",
    sweep: Annotated[str | None, Query(max_length=100)] = None,
    metrics: Listed = "",
    x: Metric = None,
    y: Metric = None,
) -> Comparison:
    """Jobs, or a sweep's, side by side, each against its own baseline. ``x`` and ``y`` span the Pareto front."""
    return comparisons.compare(caller, names(ids), sweep, metrics=names(metrics), x=x, y=y)


@router.get("/sweeps/{ref}/pareto")
def pareto(
    ref: str, caller: CurrentCaller, comparisons: Comparisons, x: Metric = None, y: Metric = None
) -> ParetoFront:
    """The sweep's succeeded jobs in the plane of two metrics: latency and the quality that all have, if not named."""
    return comparisons.pareto(caller, ref, x=x, y=y)


def names(text: str) -> list[str]:
    """Of a list separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]
