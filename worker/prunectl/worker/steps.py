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
from prunectl.evaluation.objectives import Objective
from prunectl.pruning import depth, embeddings, engine, layers, textpruner_vocabulary, weights
from prunectl.pruning.engine import Pruned
from prunectl.pruning.masks import Masks
from prunectl.pruning.scores import Batch, Loss
from prunectl.pruning.vocabulary import Vocabulary
from prunectl.recipe import Recipe
from prunectl.schemas import LedgerRow
from prunectl.worker.report import Report

TOLERANCE = 1e-5
"""Largest difference that a step may make, relative to the largest output where that is above 1 (fp32)."""
Step = Literal["vocabulary", "layers", "heads+ffn", "weights"]
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What the steps did. ``expected``: what the pruned model must compute for the probe."""

    pruned: Pruned
    expected: Tensor
    objective: Objective


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
) -> Outcome:
    """Prune ``model`` in place by every axis of ``recipe``.

    ``tokenizer`` is the original model's. ``probe`` is in the numbers of the reduced vocabulary where there is one.
    ``after_step`` is told each finished step's name and the model as it is then. Raises ReloadMismatch where a
    smaller model computes something else than the larger one with the same units switched off, and what the axes
    raise for recipes that can't be met.
    """
    if vocabulary is not None:
        with report.stage("prune"):
            expected = embeddings.restricted_outputs(model, vocabulary, probe)
            if recipe.engine == "textpruner" and tokenizer is not None:
                textpruner_vocabulary.cut_rows(model, tokenizer, vocabulary.kept)
            embeddings.cut_vocabulary(model, vocabulary)
            _prove("vocabulary", model, probe, expected)
            after_step("vocabulary", model)
    with report.stage("score"):
        objective = make_objective(model)
        batches = objective.batches(batch_size)
        loss = cast(Loss, objective.loss)
    original = layers.described(model)
    removed: tuple[int, ...] = ()
    if recipe.layers is not None:
        removed = _layers(model, recipe, batches, loss, probe, report)
        after_step("layers", model)
    pruned = _units(model, recipe, batches, loss, probe, report, workspace)
    pruned = layers.in_original(pruned, original, removed)
    if recipe.heads is not None or recipe.ffn is not None:
        after_step("heads+ffn", model)
    if recipe.weights is not None:
        with report.stage("score"):
            masks = weights.choose(model, recipe, batches, loss, progress=report.progress)
        with report.stage("prune"):
            pruned = replace(pruned, zeroed=weights.zero(model, masks))
        after_step("weights", model)
    return Outcome(_recorded(replace(pruned, vocabulary=vocabulary)), _outputs(model, probe), objective)


def ledger_row(
    step: Literal["original", "quantize"] | Step,
    model: PreTrainedModel,
    metric: str,
    quality: tuple[float, float | None, int],
) -> LedgerRow:
    """A row for the model as it is in memory."""
    value, stderr, n = quality
    return LedgerRow(
        step=step,
        parameters=macs.parameters(model),
        nonzero_parameters=macs.nonzero_parameters(model),
        model_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.parameters()),
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
        removed = depth.choose(layers.described(model), recipe, influence)
        with layers.skipped(model, removed):
            expected = _outputs(model, probe)
        layers.remove(model, removed)
        _prove("layers", model, probe, expected)
    return removed


def _units(
    model: PreTrainedModel,
    recipe: Recipe,
    batches: Sequence[Batch],
    loss: Loss,
    probe: Inputs,
    report: Report,
    workspace: Path,
) -> Pruned:
    if recipe.heads is None and recipe.ffn is None:
        return engine.apply(model, Masks())
    with report.stage("score"):
        masks = engine.choose_masks(model, recipe, batches, loss, progress=report.progress, workspace=workspace)
    with report.stage("prune"):
        expected = engine.masked_outputs(model, masks, probe)
        pruned = engine.apply(model, masks, engine=recipe.engine)
        _prove("heads and neurons", model, probe, expected)
    return pruned


def _recorded(pruned: Pruned) -> Pruned:
    """``pruned`` with the counts of vocabulary and weights in its structure."""
    update: dict[str, Any] = {}
    if pruned.vocabulary is not None:
        update |= {"vocabulary_kept": len(pruned.vocabulary.rows), "vocabulary_total": pruned.vocabulary.total}
    if pruned.zeroed is not None:
        update |= {"weights_zeroed": pruned.zeroed.zeroed, "weights_total": pruned.zeroed.total}
    return replace(pruned, structure=pruned.structure.model_copy(update=update))


def _outputs(model: PreTrainedModel, probe: Inputs) -> Tensor:
    return engine.masked_outputs(model, Masks(), probe)


def _prove(what: str, model: PreTrainedModel, probe: Inputs, expected: Tensor) -> None:
    got = _outputs(model, probe)
    difference = float((got - expected).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise ReloadMismatch(
            f"after the step {what}, the smaller model differs from the larger one with the same units switched off by "
            f"{difference:.3g}",
            hint="this is a defect: please report the model's architecture and the recipe",
        )
