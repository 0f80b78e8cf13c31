"""A greedy search as its runner sees it: what the candidates said, what to try next, and the winner's trained weights."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from prunectl.checkpoints.load import load_original, load_pruned
from prunectl.errors import CorruptWeights, MissingWeights, PerformanceLost
from prunectl.evaluation import gates
from prunectl.evaluation.tasks import kind_of
from prunectl.jobs.ports import Storage
from prunectl.pruning import depth, greedy, layers
from prunectl.pruning.greedy import Candidate, Removed, Walk
from prunectl.pruning.scores import Loss
from prunectl.recipe import Recipe
from prunectl.schemas import CandidateRow, GreedyStep, JobCreate, Measure, SearchRecord
from prunectl.storage.layout import published_name
from prunectl.worker.assignment import Assignment
from prunectl.worker.measuring import BATCH_SIZE, objective_of
from prunectl.worker.report import Report, Wanted
from prunectl.worker.source import Source

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A search that is over. ``recovery`` is what the winner's training recorded, ``checkpoint`` its URI."""

    recipe: Recipe
    record: SearchRecord
    checkpoint: str
    recovery: dict[str, Any] | None


def look(assignment: Assignment, body: JobCreate, source: Source, storage: Storage, report: Report) -> Wanted | Found:
    """Go as far as the known candidates lead. Raises PerformanceLost where no layer can go."""
    told = {tuple(entry["removed"]): entry for entry in assignment.candidates}
    stacks, metric = depth.stacks_of(source.config), _metric(source, body, told.values())
    known = {removed: _candidate(removed, entry, metric) for removed, entry in told.items()}
    recipe = body.recipe

    def options(removed: Removed) -> Sequence[Removed]:
        tried = greedy.neighbours(stacks, removed)
        if recipe.candidates is None or recipe.candidates >= len(tried):
            return tried
        # Those of an earlier look: which they are isn't measured twice, so that no machine's rounding changes the search.
        chosen = [option for option in tried if option in known]
        if len(chosen) >= recipe.candidates:
            return chosen
        with report.stage("score"):
            model = _model_without(removed, told, source, storage, assignment)
            influence = _influence(model, body, source, report)
        return greedy.least_influential(tried, removed, influence, recipe.candidates)

    walk = greedy.walk(
        known,
        options,
        most=depth.count(source.config, recipe),
        keep=recipe.keep_performance,
        lower_is_better=metric in gates.LOWER_IS_BETTER,
    )
    for step in walk.steps:
        logger.info("layer %d: keeps %.4f of the unpruned model's %s", step.layer, step.kept, metric)
    if walk.wanted:
        logger.info("step %d tries %d candidates", len(walk.steps) + 1, len(walk.wanted))
        return Wanted(walk.wanted)
    if not walk.removed:
        best = walk.steps[0]
        raise PerformanceLost(
            f"no layer can go: without layer {best.layer}, the best of {len(best.candidates)}, the model keeps "
            f"{best.kept:.4f} of its {metric}, and keep_performance is {recipe.keep_performance:g}",
            hint="lower --keep-performance, train longer with --recover-epochs, or give more --recover-data",
            field="keep_performance",
            value=recipe.keep_performance,
        )
    winner = told[walk.removed]
    return Found(
        recipe.without_layers(walk.removed),
        record_of(walk, metric, winner["sweep_id"]),
        winner["checkpoint"],
        winner["recovery"],
    )


def adopt(model: PreTrainedModel, found: Found, storage: Storage, scratch: Path) -> None:
    """Give ``model``, which lacks the chosen layers, the weights that the winner was trained to. In place."""
    trained = load_pruned(_fetched(found.checkpoint, storage, scratch / "winner"))
    with torch.no_grad():
        missing, surplus = model.load_state_dict(trained.state_dict(), strict=False)
    if missing or surplus:
        raise CorruptWeights(f"the winner's checkpoint is of another shape: {[*missing, *surplus][:3]}")


def record_of(walk: Walk, metric: str, sweep_id: str | None) -> SearchRecord:
    steps = []
    for number, step in enumerate(walk.steps, 1):
        rows = [
            CandidateRow(
                layer=layer,
                job_id=candidate.job_id,
                value=float(candidate.selection.after or 0.0),
                stderr=candidate.selection.stderr,
                n=candidate.selection.n,
                curve=list(candidate.curve),
                cpu_seconds=candidate.cpu_seconds,
            )
            for layer, candidate in step.candidates
        ]
        steps.append(
            GreedyStep(
                step=number,
                layer=step.layer,
                removed=list(step.best.removed),
                job_id=step.best.job_id,
                selection=step.best.selection,
                held_out=step.best.held_out,
                kept=round(step.kept, 6),
                accepted=step.accepted,
                candidates=rows,
            )
        )
    every = [row for step in steps for row in step.candidates]
    return SearchRecord(
        metric=metric,
        sweep_id=sweep_id,
        steps=steps,
        removed=list(walk.removed),
        trainings=len(every),
        cpu_seconds=round(sum(row.cpu_seconds or 0.0 for row in every), 3),
    )


def _metric(source: Source, body: JobCreate, told: Any) -> str:
    """The candidates' own primary metric, which is the search's; before there are any, the task's usual one."""
    named = {entry["metric"] for entry in told if entry["metric"] is not None}
    return cast(str, named.pop()) if named else (body.evaluation.metric or kind_of(source.task).primary)


def _candidate(removed: Removed, entry: Mapping[str, Any], metric: str) -> Candidate:
    recovery = entry["recovery"] or {}
    return Candidate(
        removed=removed,
        job_id=entry["job_id"],
        selection=Measure.model_validate(entry["selection"][metric]),
        held_out=Measure.model_validate(entry["metrics"][metric]),
        curve=tuple(recovery.get("course", {}).get("points", ())),
        cpu_seconds=entry["cpu_seconds"],
    )


def _model_without(
    removed: Removed, told: Mapping[Removed, Any], source: Source, storage: Storage, assignment: Assignment
) -> PreTrainedModel:
    """The model of the step before: the unpruned one, or the winner so far."""
    if not removed:
        return load_original(source.path, source.config)
    place = Path(assignment.scratch) / f"step-{len(removed)}"
    return load_pruned(_fetched(told[removed]["checkpoint"], storage, place))


def _influence(model: PreTrainedModel, body: JobCreate, source: Source, report: Report) -> list[float]:
    model = model.to(source.device)  # type: ignore[arg-type]
    objective = objective_of(source, source.calibration, body.recipe.seed, model)
    batches, loss = objective.batches(BATCH_SIZE), cast(Loss, objective.loss)
    return layers.block_influence(model, batches, loss, progress=report.progress)


def _fetched(uri: str, storage: Storage, target: Path) -> Path:
    """The published checkpoint as a directory of this machine's own; wherever the storage lies now."""
    name = storage.name_of(uri) or published_name(uri)
    files = [] if name is None else storage.list(name)
    if not files:
        raise MissingWeights(
            f"the candidate's checkpoint {uri} is gone", hint="prunectl rm its job: then it is trained again"
        )
    for file in files:
        place = target / file
        place.parent.mkdir(parents=True, exist_ok=True)
        with storage.open(f"{name}/{file}") as stored, place.open("wb") as copy:
            shutil.copyfileobj(stored, copy)
    return target
