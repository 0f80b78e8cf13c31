"""The steps of a recipe on one model: vocabulary, layers, heads and neurons, weights; each proved before the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import ReloadMismatch
from prunectl.evaluation import macs
from prunectl.evaluation.latency_table import LatencyTable
from prunectl.evaluation.objectives import Objective
from prunectl.pruning import curve as curves
from prunectl.pruning import depth, embeddings, engine, layers, textpruner_vocabulary, weights
from prunectl.pruning.blocks import described, find_blocks
from prunectl.pruning.engine import Pruned
from prunectl.pruning.masks import Masks
from prunectl.pruning.packing import Batch
from prunectl.pruning.scores import GradientScores, Loss, Scores
from prunectl.pruning.token_weights import ShareWeights
from prunectl.pruning.vocabulary import Vocabulary
from prunectl.recipe import Recipe
from prunectl.schemas import LedgerRow
from prunectl.worker.report import Report

TOLERANCE = 1e-5
"""Largest difference that a step may make, relative to the largest output where that is above 1 (fp32)."""
REFITTED_TOLERANCE = 1e-3
"""The same after a refit, whose weights may cancel where float32 sums in another order; a wrong cut differs by far more,
and what is saved is still held to `TOLERANCE` against what is in memory.
"""
Step = Literal["vocabulary", "layers", "heads+ffn", "weights", "recover"]
Inputs = dict[str, Tensor]
Timing = Callable[[PreTrainedModel], LatencyTable]
"""Measures a model's latency table, or finds it where it was measured before."""
ShareScores = Callable[[Callable[[], GradientScores]], tuple[GradientScores, bool]]
"""Finds the whole model's scores, or computes them; and whether they were found."""


@dataclass(frozen=True)
class Outcome:
    """What the steps did. ``expected``: what the pruned model must compute for the probe."""

    pruned: Pruned
    expected: Tensor
    objective: Objective
    curve: list[dict[str, Any]] | None = None
    """Of a recipe with a target: `prunectl.pruning.curve.curve` of the model that the solver saw."""


def run(
    model: PreTrainedModel,
    recipe: Recipe,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    vocabulary: Vocabulary | None,
    probe: Inputs,
    make_objective: Callable[[PreTrainedModel], Objective],
    report: Report,
    workspace: Path,
    batch_size: int,
    after_step: Callable[[Step, PreTrainedModel], None],
    bench_seq: int = 128,
    timing: Timing | None = None,
    make_refit_objective: Callable[[PreTrainedModel], Objective] | None = None,
    share: ShareScores | None = None,
    share_weights: ShareWeights | None = None,
    refit_batch_size: int | None = None,
) -> Outcome:
    """Prune ``model`` in place by every axis of ``recipe``.

    ``tokenizer`` is the original model's; a target of multiply-adds is counted for ``bench_seq`` tokens.
    ``probe`` is in the numbers of the reduced vocabulary where there is one.
    ``make_refit_objective`` gives what a refit takes; None: what the scores are taken from. ``share`` finds the scores
    of the whole model where a job before has computed them; models that a step has changed are scored anew.
    ``share_weights`` does so for the refit's token weights, and ``refit_batch_size`` is for what the refit takes alone.
    ``after_step`` is told each finished step's name and the model as it is then. Raises ReloadMismatch where a
    smaller model computes something else than the larger one with the same units switched off, and what the axes
    raise for recipes that can't be met.
    """
    target_of = _targets(model, recipe, bench_seq, timing)
    if vocabulary is not None:
        with report.stage("prune"):
            expected = embeddings.restricted_outputs(model, vocabulary, probe)
            if recipe.engine == "textpruner" and tokenizer is not None:
                textpruner_vocabulary.cut_rows(model, tokenizer, vocabulary.kept)
            embeddings.cut_vocabulary(model, vocabulary)
            _prove("vocabulary", model, probe, expected)
            after_step("vocabulary", model)
    with report.stage("score") as scoring:
        scoring.reused = None  # what is measured on, not yet a score
        objective = make_objective(model)
        batches = objective.batches(batch_size)
        loss = cast(Loss, objective.loss)
        refitting = (
            make_refit_objective(model).batches(refit_batch_size or batch_size) if make_refit_objective else batches
        )
    original = described(model)
    removed: tuple[int, ...] = ()
    if recipe.layers is not None:
        removed = _layers(model, recipe, batches, loss, probe, report)
        after_step("layers", model)
    untouched = vocabulary is None and recipe.layers is None
    points: list[dict[str, Any]] = []

    def scored(scores: Scores) -> None:
        points.extend(curves.curve(scores, recipe, find_blocks(model), described(model), bench_seq))

    pruned = _units(
        model,
        recipe,
        batches,
        refitting,
        loss,
        probe,
        report,
        workspace,
        target_of,
        share if untouched else None,
        share_weights if untouched else None,
        scored,
    )
    pruned = layers.in_original(pruned, original, removed)
    if recipe.prunes_units:
        after_step("heads+ffn", model)
    if recipe.weights is not None:
        with report.stage("score"):
            masks = weights.choose(model, recipe, batches, loss, progress=report.progress)
        with report.stage("prune"):
            pruned = replace(pruned, zeroed=weights.zero(model, masks))
        after_step("weights", model)
    return Outcome(_recorded(replace(pruned, vocabulary=vocabulary)), outputs(model, probe), objective, points or None)


def ledger_row(
    step: Literal["original", "quantize"] | Step,
    model: PreTrainedModel,
    metric: str,
    quality: tuple[float, float | None, int],
    *,
    bytes_a_weight: int,
) -> LedgerRow:
    """A row for the model as it is in memory, its weights stored in so many bytes."""
    value, stderr, n = quality
    parameters = macs.parameters(model)
    return LedgerRow(
        step=step,
        parameters=parameters,
        nonzero_parameters=macs.nonzero_parameters(model),
        model_bytes=parameters * bytes_a_weight,
        metric=metric,
        value=value,
        stderr=stderr,
        n=n,
    )


def _layers(
    model: PreTrainedModel, recipe: Recipe, batches: Sequence[Batch], loss: Loss, probe: Inputs, report: Report
) -> tuple[int, ...]:
    influence = None
    if isinstance(recipe.layers, int) and recipe.layer_choice == "influence":
        with report.stage("score"):
            influence = layers.block_influence(model, batches, loss, progress=report.progress)
    with report.stage("prune"):
        removed = depth.choose(described(model), recipe, influence)
        with layers.skipped(model, removed):
            expected = outputs(model, probe)
        layers.remove(model, removed)
        _prove("layers", model, probe, expected)
    return removed


def _units(
    model: PreTrainedModel,
    recipe: Recipe,
    batches: Sequence[Batch],
    refitting: Sequence[Batch],
    loss: Loss,
    probe: Inputs,
    report: Report,
    workspace: Path,
    target_of: Callable[[], engine.Target | None],
    share: ShareScores | None,
    share_weights: ShareWeights | None,
    scored: Callable[[Scores], None],
) -> Pruned:
    if not recipe.prunes_units:
        return engine.apply(model, Masks())
    first: list[Scores] = []
    with report.stage("score") as stage:
        reused: list[bool] = []

        def shared(compute: Callable[[], GradientScores]) -> GradientScores:
            assert share is not None
            found, again = share(compute)
            reused.append(again)
            return found

        masks = engine.choose_masks(
            model,
            recipe,
            batches,
            loss,
            progress=report.progress,
            workspace=workspace,
            target=target_of(),
            share=shared if share else None,
            ranked=first.append,
        )
        stage.reused = any(reused) and recipe.iterations == 1
        if recipe.budget is not None:
            scored(first[0])
    with report.stage("prune"):
        refitted = engine.refit(model, recipe, masks, refitting, loss, progress=report.progress, share=share_weights)
        expected = engine.masked_outputs(model, masks, probe)
        pruned = engine.apply(model, masks, engine=recipe.engine)
        tolerance = REFITTED_TOLERANCE if refitted is not None and refitted.matrices else TOLERANCE
        _prove("heads and neurons", model, probe, expected, tolerance)
    return replace(pruned, structure=engine.with_scores(pruned.structure, first[0]), refit=refitted)


def _targets(
    model: PreTrainedModel, recipe: Recipe, bench_seq: int, timing: Timing | None
) -> Callable[[], engine.Target | None]:
    """What gives the solver's target, once the steps before it are done; shares are of the model as it is now."""
    if recipe.target_macs is not None:
        whole = macs.count(model, bench_seq)
        return lambda: engine.macs_target(described(model), recipe, bench_seq, whole)
    if recipe.budget is None:
        return lambda: None
    assert timing is not None, "a target of latency needs what measures it"
    table_of = timing
    if recipe.target_latency is not None:
        seconds = recipe.target_latency / 1000
    else:
        assert recipe.speedup is not None
        seconds = table_of(model).whole_seconds / recipe.speedup
    return lambda: engine.Target(table_of(model).costs, seconds)


def _recorded(pruned: Pruned) -> Pruned:
    """``pruned`` with the counts of vocabulary and weights in its structure."""
    update: dict[str, Any] = {}
    if pruned.vocabulary is not None:
        update |= {"vocabulary_kept": len(pruned.vocabulary.rows), "vocabulary_total": pruned.vocabulary.total}
    if pruned.zeroed is not None:
        update |= {"weights_zeroed": pruned.zeroed.zeroed, "weights_total": pruned.zeroed.total}
    return replace(pruned, structure=pruned.structure.model_copy(update=update))


def outputs(model: PreTrainedModel, probe: Inputs) -> Tensor:
    """What the model says of the probe now."""
    return engine.masked_outputs(model, Masks(), probe)


def _prove(what: str, model: PreTrainedModel, probe: Inputs, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    got = outputs(model, probe)
    difference = float((got - expected).abs().max())
    if not difference <= tolerance * max(1.0, float(expected.abs().max())):
        raise ReloadMismatch(
            f"after the step {what}, the smaller model differs from the larger one with the same units switched off by "
            f"{difference:.3g}",
            hint="this is a defect: please report the model's architecture and the recipe",
        )
