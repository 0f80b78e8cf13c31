"""A greedy search and its candidates as jobs: what a candidate is, what may be known of them, when a search can't go on.

A candidate is an ordinary job on the same model, data and seed, whose recipe names the layers that go: identical ones
are found instead of trained again, by a second search, a longer one, or the same one after a kill.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prunectl.errors import FailureClass
from prunectl.jobs.intake import new_id
from prunectl.jobs.model import Failure, Job, JobState
from prunectl.jobs.records import Candidates, NewJob, NewSweep
from prunectl.pruning.greedy import SELECTION_SHARE, Removed
from prunectl.schemas import JobCreate, job_digest, spec_of

_ACTIVE = (JobState.QUEUED, JobState.RUNNING)


def is_search(job: Job) -> bool:
    """Whether the job waits for jobs of its own making."""
    recipe = job.spec.get("recipe", {})
    return any(recipe.get(name) is not None for name in ("greedy_layers", "keep_performance"))


def candidate_body(search: JobCreate, removed: Removed) -> JobCreate:
    """The job that tries the search's model without these layers. What only the search's result needs is left out."""
    evaluation = search.evaluation.model_copy(
        update={
            "selection": search.evaluation.selection or SELECTION_SHARE,
            "max_drop": None,
            "min_speedup": None,
            "gate": (),
            "bench_batch": (1,),
            "bench_seq": None,
        }
    )
    return search.model_copy(
        update={"recipe": search.recipe.without_layers(removed), "evaluation": evaluation, "name": None, "force": False}
    )


def new_candidates(job: Job, sweep_id: str | None, wanted: Iterable[Sequence[int]]) -> tuple[NewSweep, list[NewJob]]:
    """The search's sweep (``sweep_id``, where there is one already) and a job for each set of layers to be tried."""
    search = JobCreate.model_validate(job.spec)
    sweep = NewSweep(
        id=sweep_id or new_id(),
        owner=job.owner,
        spec={"base": _base(search), "grid": {}},
        name=f"candidates of {job.name or job.id}"[:200],
        search_id=job.id,
    )
    bodies = [candidate_body(search, tuple(removed)) for removed in wanted]
    ids = sorted(new_id() for _ in bodies)
    return sweep, [
        NewJob(
            id=job_id,
            owner=job.owner,
            queue=job.queue,
            priority=job.priority,
            spec=spec_of(body),
            digest=job_digest(job.owner, job.model_identity, body),
            recipe_digest=body.recipe.digest,
            model_name=job.model_name,
            model_identity=job.model_identity,
            max_failures=job.max_failures,
            timeout_seconds=job.timeout_seconds,
            sweep_id=sweep.id,
            tags=dict(job.tags),
        )
        for job_id, body in zip(ids, bodies, strict=True)
    ]


def known(candidates: Candidates | None) -> list[dict[str, Any]]:
    """What a runner is told of each candidate that ended well: its job, its layers and what was measured."""
    found = []
    for job in candidates.jobs if candidates else ():
        if job.state is JobState.SUCCEEDED and job.result is not None:
            result = job.result
            conditions = result.get("conditions", {})
            found.append(
                {
                    "job_id": job.id,
                    "sweep_id": candidates.sweep_id if candidates else None,
                    "removed": job.spec["recipe"]["layers"],
                    "metric": conditions.get("primary_metric"),
                    "selection": result.get("selection", {}),
                    "metrics": {n: m for n, m in result["metrics"].items() if n.startswith("eval_")},
                    "recovery": conditions.get("recovery"),
                    "cpu_seconds": conditions.get("cpu_seconds"),
                    "checkpoint": result["artifacts"].get("checkpoint"),
                }
            )
    return found


def active(candidates: Candidates | None) -> bool:
    """Whether any candidate is queued or running."""
    return candidates is not None and any(job.state in _ACTIVE for job in candidates.jobs)


def obstacle(job: Job, candidates: Candidates | None) -> Failure | None:
    """Why the search can't go on: a candidate that failed, or that somebody cancelled, and none stands in for it.

    One that another search had queued and cancelled is no obstacle: it is queued again.
    """
    if candidates is None:
        return None
    alive = {item.digest for item in candidates.jobs if item.state in (*_ACTIVE, JobState.SUCCEEDED)}
    for item in candidates.jobs:
        layers = ",".join(map(str, item.spec["recipe"]["layers"]))
        hint = f"prunectl logs {item.id} has the details; prunectl retry {job.id} goes on from here"
        if item.digest in alive:
            continue
        if item.state is JobState.FAILED and item.failure is not None:
            why = f"the candidate {item.id} (without the layers {layers}) failed: {item.failure.code}: {item.failure.message}"
            return Failure(FailureClass.USER_ERROR, "candidate_failed", why, hint)
        if item.state is JobState.CANCELLED and item.sweep_id == candidates.sweep_id:
            why = f"the candidate {item.id} (without the layers {layers}) was cancelled"
            return Failure(FailureClass.USER_ERROR, "candidate_cancelled", why, hint)
    return None


def _base(search: JobCreate) -> dict[str, Any]:
    """What the candidates have in common, as a sweep shows it."""
    body = candidate_body(search, (0,)).model_dump(mode="json", exclude_defaults=True, exclude={"environment", "tags"})
    body["recipe"].pop("layers")
    return body
