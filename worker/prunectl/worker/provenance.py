"""Where a result comes from: versions, machine, model, data."""

from __future__ import annotations

import platform
import resource
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from prunectl.evaluation import data
from prunectl.evaluation.latency import device_name
from prunectl.evaluation.objectives import Objective
from prunectl.jobs.views import full_recipe, result_fields
from prunectl.schemas import JobCreate, JobView, ModelRef, Result
from prunectl.worker.assignment import Assignment
from prunectl.worker.source import Source


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("prunectl", "torch", "transformers", "tokenizers", "safetensors", "seqeval", "pillow", "textpruner"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """The machine class that timings are comparable within."""
    return device_name(torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))


def cpu_seconds() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in (own, children))


def finished_view(assignment: Assignment, body: JobCreate, result: Result) -> JobView:
    """The job as it will be shown, as far as its runner knows it: no owner and no times, which are the database's."""
    return JobView(
        id=assignment.job_id,
        state="succeeded",
        progress=1.0,
        name=body.name,
        owner="",
        tags=body.tags,
        model=ModelRef(name=body.model, digest=result.model_digest),
        recipe=full_recipe(body.recipe),
        recipe_digest=body.recipe.digest,
        evaluation=body.evaluation.model_dump(mode="json", exclude_none=True),
        queue=assignment.device,
        priority=body.priority,
        attempt=assignment.attempt,
        created_at="",
        device=assignment.device,
        structure=result.structure,
        **result_fields(result),
    )


def provenance(assignment: Assignment, body: JobCreate, source: Source, objective: Objective) -> dict[str, Any]:
    return {
        "job_id": assignment.job_id,
        "attempt": assignment.attempt,
        "model": {"name": body.model, "identity": assignment.model_identity, "digest": source.digest},
        "recipe_digest": body.recipe.digest,
        "evaluation": body.evaluation.model_dump(mode="json", exclude_none=True),
        "task": source.task,
        "labels": objective.labels,
        "data_digest": data.digest(source.evaluation),
        "calibration_digest": data.digest(source.calibration),
        "seed": body.recipe.seed,
        "versions": versions(),
    }
