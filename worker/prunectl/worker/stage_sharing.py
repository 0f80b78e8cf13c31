"""Stage sharing: the unpruned model's scores, the refit's token weights, what the model says of the evaluation data, and
its peak memory, once for all jobs of a sweep.

Here is what either depends on. A change of what a stage computes raises its version, so that nothing of before is taken
for it; versions of libraries and the device belong to the conditions, for they change last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel

from prunectl.evaluation import data
from prunectl.evaluation.quality import Reference
from prunectl.evaluation.tasks import Task
from prunectl.pruning.scores import GradientScorer, GradientScores, Scores
from prunectl.pruning.token_weights import TokenWeights
from prunectl.recipe import Recipe, digest_of
from prunectl.worker.provenance import machine, versions
from prunectl.worker.reload import Reloaded
from prunectl.worker.shared_results import Arrays, Facts, SharedResults
from prunectl.worker.source import Source

BASELINE, SCORES, TOKEN_WEIGHTS, MEMORY = "baseline", "scores", "token-weights", "memory"
BASELINE_VERSION = SCORES_VERSION = TOKEN_WEIGHTS_VERSION = MEMORY_VERSION = 1
_SCORERS: tuple[GradientScorer, ...] = ("taylor", "fisher")


def reference(
    shared: SharedResults,
    source: Source,
    model: PreTrainedModel,
    seed: int,
    batch_size: int,
    compute: Callable[[], Reference],
) -> tuple[Reference, bool]:
    """What ``compute`` gives of the evaluation data, and whether a job before had asked."""
    conditions = {
        **_of_model(source, model, seed, batch_size),
        "version": BASELINE_VERSION,
        "data": data.digest(source.evaluation),
        "kept_ids": digest_of(list(source.vocabulary.rows)) if source.vocabulary else None,
    }

    def arrays_of() -> tuple[Arrays, Facts]:
        found = compute()
        return dict(found.arrays), {"task": found.task, "texts": str(found.texts)}

    found = shared.get(BASELINE, conditions, arrays_of)
    return Reference(cast(Task, found.facts["task"]), int(found.facts["texts"]), found.arrays), found.reused


def scores(
    shared: SharedResults,
    source: Source,
    model: PreTrainedModel,
    recipe: Recipe,
    batch_size: int,
    compute: Callable[[], GradientScores],
) -> tuple[GradientScores, bool]:
    """The gradient scores of the whole model, of every scorer that the one pass gives, and whether they were there."""
    conditions = {
        **_of_model(source, model, recipe.seed, batch_size),
        "version": SCORES_VERSION,
        "calibration": data.digest(source.calibration),
        "even": recipe.even,
    }

    def arrays_of() -> tuple[Arrays, Facts]:
        arrays: Arrays = {}
        for scorer, found in compute().items():
            arrays |= {f"{scorer}.heads": found.heads.numpy(), f"{scorer}.ffn": found.ffn.numpy()}
        return arrays, {}

    found = shared.get(SCORES, conditions, arrays_of)
    return {
        scorer: Scores(
            torch.from_numpy(found.arrays[f"{scorer}.heads"]), torch.from_numpy(found.arrays[f"{scorer}.ffn"])
        )
        for scorer in _SCORERS
    }, found.reused


def token_weights(
    shared: SharedResults,
    source: Source,
    model: PreTrainedModel,
    recipe: Recipe,
    batch_size: int,
    compute: Callable[[], TokenWeights],
) -> TokenWeights:
    """What ``compute`` gives of the texts that a refit takes, in batches of ``batch_size``."""
    conditions = {
        **_of_model(source, model, recipe.seed, batch_size),
        "version": TOKEN_WEIGHTS_VERSION,
        "refitting": data.digest(source.refitting),
    }

    def arrays_of() -> tuple[Arrays, Facts]:
        arrays: Arrays = {}
        for name, batches in compute().items():
            rows = [torch.cat(calls) for calls in batches]
            arrays[f"weights.{name}"] = torch.cat(rows).cpu().numpy()
            # [batches, calls]: where the rows of each call end
            arrays[f"rows.{name}"] = np.array([[len(call) for call in calls] for calls in batches])
        return arrays, {}

    arrays = shared.get(TOKEN_WEIGHTS, conditions, arrays_of).arrays
    found: TokenWeights = {}
    for key, rows in arrays.items():
        if key.startswith("rows."):
            name = key.removeprefix("rows.")
            whole = torch.from_numpy(arrays[f"weights.{name}"]).to(source.device)
            calls = iter(whole.split(rows.reshape(-1).tolist()))
            found[name] = [[next(calls) for _ in batch] for batch in rows]
    return found


def reloaded(
    shared: SharedResults, source: Source, batch: int, threads: int, prove: Callable[[int | None], Reloaded]
) -> Reloaded:
    """What ``prove`` says, told the unpruned model's peak memory in bytes where a job before has measured it."""
    conditions = {
        "model": source.digest,
        "version": MEMORY_VERSION,
        "batch": batch,
        "seq": source.bench_seq,
        "threads": threads,
        "machine": machine(),
        "versions": versions(),
    }
    proved: list[Reloaded] = []

    def measure() -> tuple[Arrays, Facts]:
        proved.append(prove(None))
        return {"memory_before_bytes": np.array([proved[0].memory_before_bytes])}, {}

    found = shared.get(MEMORY, conditions, measure)
    return proved[0] if proved else prove(int(found.arrays["memory_before_bytes"][0]))


def _of_model(source: Source, model: PreTrainedModel, seed: int, batch_size: int) -> dict[str, Any]:
    return {
        "model": source.digest,
        "dtype": str(model.dtype),
        "task": source.task,
        "max_length": source.max_length,
        "seed": seed,
        "batch_size": batch_size,
        "machine": machine(),
        "versions": versions(),
    }
