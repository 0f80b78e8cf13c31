"""Engines: how a recipe becomes masks and a smaller model, natively or by TextPruner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.pruning import activations, budgets, planning, surgery
from prunectl.pruning import scores as scoring
from prunectl.pruning.blocks import Block, described, find_blocks, require_whole, shape
from prunectl.pruning.masks import Masks, keep_best, masks_within, next_masks
from prunectl.pruning.packing import Batch
from prunectl.pruning.refit import Refit
from prunectl.pruning.refit import refit as refit_outputs
from prunectl.pruning.scores import GradientScores, Loss, Progress, Scores
from prunectl.pruning.solver import Costs
from prunectl.pruning.token_weights import ShareWeights
from prunectl.pruning.vocabulary import Vocabulary
from prunectl.pruning.weights import Zeroed
from prunectl.recipe import Engine as EngineName
from prunectl.recipe import Recipe
from prunectl.schemas import BlockStructure, Structure

Share = Callable[[Callable[[], GradientScores]], GradientScores]
"""Given what computes scores, gives them: from where they lie already, or by calling it."""

_QUARTILES = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])


@dataclass(frozen=True, slots=True)
class Target:
    """What the solver keeps to: what units cost, and how much they may cost together with the rest."""

    costs: Costs
    budget: float


class Engine(Protocol):
    """What differs between engines; the walk over iterations and all counts are common."""

    def scores(self, masks: Masks, *, progress: Progress | None = None) -> Scores:
        """Scores of the model with ``masks`` in force."""
        ...

    def choose(self, ranked: Tensor, kept: int, even: bool, multiple_of: int) -> Tensor: ...

    def cut(self, masks: Masks) -> None:
        """Make the model smaller, in place."""
        ...


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed from a model that is now smaller."""

    masks: Masks
    structure: Structure
    kept: list[dict[str, Any]]
    """The ``kept`` of prunectl.json: module (in the original model), unit, total, kept."""
    vocabulary: Vocabulary | None = None
    zeroed: Zeroed | None = None
    refit: Refit | None = None


def choose_masks(
    model: PreTrainedModel,
    recipe: Recipe,
    batches: Sequence[Batch],
    loss: Loss,
    *,
    progress: Progress | None = None,
    workspace: Path | None = None,
    target: Target | None = None,
    share: Share | None = None,
    ranked: Callable[[Scores], None] | None = None,
) -> Masks:
    """What ``recipe`` keeps of ``model``: score, mask, score the masked model again, for each of its iterations.

    A recipe with a budget is scored once, and the solver keeps to ``target`` (None: `macs_target` of this model).
    ``share`` is asked for the gradient scores of the unmasked model, which recipes of a sweep have in common, and given
    what computes them; None: they are computed. ``ranked`` is told the first scores, those of the whole model.
    ``workspace`` is a directory of this job's own for what the engine writes meanwhile; None: a temporary one. The
    native engine leaves the model as it is; TextPruner zeroes weights of removed units between iterations, which the
    masks remove anyway. Raises EngineUnavailable, UnsupportedArchitecture, CorruptWeights (scores that are no
    numbers), and InvalidInput for a recipe that this model can't meet.
    """
    planning.units_to_remove(described(model), recipe)
    blocks = find_blocks(model)
    require_whole(model, blocks)
    engine = _engine(recipe.engine, model, recipe, batches, loss, workspace, share)
    masks = Masks()
    if recipe.budget is not None:
        aim = target or macs_target(described(model), recipe)
        found = engine.scores(masks, progress=progress)
        if ranked is not None:
            ranked(found)
        return masks_within(found, recipe, blocks, aim.costs, aim.budget)
    for step in range(recipe.iterations):
        found = engine.scores(masks, progress=_part(progress, step, recipe.iterations))
        if ranked is not None and step == 0:
            ranked(found)
        masks = next_masks(found, recipe, step, masks, blocks, choose=engine.choose)
    return masks


def macs_target(config: Mapping[str, Any], recipe: Recipe, seq: int = 128, whole: int | None = None) -> Target:
    """``target_macs`` of the model with ``config``, or of one that had ``whole`` multiply-adds; batch 1 x ``seq`` tokens.

    Raises InvalidInput where it can't be met.
    """
    if recipe.target_macs is None:
        raise ValueError(f"{recipe.budget} is measured, not counted: give its target")
    budget = budgets.check(config, recipe, seq, whole)
    return Target(budgets.unit_costs(config, recipe, seq), budget)


def apply(model: PreTrainedModel, masks: Masks, *, engine: EngineName = "native") -> Pruned:
    """Cut ``model`` to ``masks`` in place, by our surgery or by TextPruner's own pruner; both give the same model.

    Raises EngineUnavailable, UnsupportedArchitecture, and ValueError where a mask doesn't fit the model.
    """
    found = find_blocks(model)
    _engine(engine, model, None, (), None, None).cut(masks)
    return Pruned(masks, structure_of(found, masks), kept_of(found, masks))


def prune(
    model: PreTrainedModel, recipe: Recipe, batches: Sequence[Batch], loss: Loss, *, progress: Progress | None = None
) -> Pruned:
    """`choose_masks`, `refit` where the recipe says so, then `apply` with the recipe's engine, in place."""
    masks = choose_masks(model, recipe, batches, loss, progress=progress)
    found = refit(model, recipe, masks, batches, loss)
    return replace(apply(model, masks, engine=recipe.engine), refit=found)


def refit(
    model: PreTrainedModel,
    recipe: Recipe,
    masks: Masks,
    batches: Sequence[Batch],
    loss: Loss,
    *,
    progress: Progress | None = None,
    share: ShareWeights | None = None,
) -> Refit | None:
    """`prunectl.pruning.refit.refit` in place, where the recipe asks for it and is the native engine's; else None."""
    if not recipe.refit or recipe.engine != "native":
        return None
    return refit_outputs(model, masks, batches, loss, progress=progress, share=share)


def masked_outputs(model: PreTrainedModel, masks: Masks, inputs: Mapping[str, Tensor]) -> Tensor:
    """The masked model's first output for ``inputs``, each ``[examples, tokens]``: what the small one must compute."""
    with torch.inference_mode(), surgery.masked(model, masks):
        output: Tensor = model(**inputs)[0]
    return output


def structure_of(blocks: list[Block], masks: Masks) -> Structure:
    """What each block keeps, in the original model's numbering."""
    return Structure(
        layers=[
            BlockStructure(
                stack=block.stack,
                index=block.index,
                attention=block.attention,
                heads_kept=_kept(masks.heads, row, block.heads_total),
                heads_total=block.heads_total,
                ffn_kept=len(_kept(masks.ffn, row, block.ffn_total)),
                ffn_total=block.ffn_total,
            )
            for row, block in enumerate(blocks)
        ]
    )


def with_scores(structure: Structure, scores: Scores) -> Structure:
    """``structure``, as `structure_of` gives it, with what its units were ranked by; four digits of each score."""
    layers = [
        block.model_copy(
            update={
                "head_scores": _short(scores.heads[row, : block.heads_total]),
                "ffn_scores": _short(scores.ffn[row, : block.ffn_total].float().quantile(_QUARTILES))
                if block.ffn_total
                else None,
            }
        )
        for row, block in enumerate(structure.layers)
    ]
    return structure.model_copy(update={"layers": layers})


def kept_of(blocks: list[Block], masks: Masks) -> list[dict[str, Any]]:
    """Each linear layer of the original model whose input a mask multiplied, and the units that stayed."""
    kept: list[dict[str, Any]] = []
    for row, block in enumerate(blocks):
        axes = (
            (block.output, "head", masks.heads, block.heads_total),
            (block.ffn_second, "neuron", masks.ffn, block.ffn_total),
        )
        for module, unit, mask, total in axes:
            if mask is not None and module is not None:
                kept.append({"module": module, "unit": unit, "total": total, "kept": _kept(mask, row, total)})
    return kept


class NativeEngine:
    """Our own scores and surgery."""

    def __init__(
        self,
        model: PreTrainedModel,
        recipe: Recipe | None,
        batches: Sequence[Batch],
        loss: Loss | None,
        share: Share | None = None,
    ) -> None:
        self._model, self._recipe, self._batches, self._loss, self._share = model, recipe, batches, loss, share

    def scores(self, masks: Masks, *, progress: Progress | None = None) -> Scores:
        assert self._recipe is not None and self._loss is not None
        scorer = self._recipe.scorer_of(self._recipe.budget or "heads")
        if scorer == "random":
            return scoring.random(shape(find_blocks(self._model)), self._recipe.seed)
        if scorer == "magnitude":
            return activations.magnitude(self._model)
        with surgery.masked(self._model, masks):
            if scorer == "activation":
                return activations.activation(self._model, self._batches, self._loss, progress=progress)
            compute = partial(
                scoring.gradient_scores,
                self._model,
                self._batches,
                self._loss,
                even=self._recipe.even,
                progress=progress,
            )
            whole = masks.heads is None and masks.ffn is None
            found = self._share(compute) if self._share and whole else compute()
            return found["fisher" if scorer == "fisher" else "taylor"]

    def choose(self, ranked: Tensor, kept: int, even: bool, multiple_of: int) -> Tensor:
        return keep_best(ranked, kept, even, multiple_of)

    def cut(self, masks: Masks) -> None:
        surgery.apply(self._model, masks)


def _engine(
    name: EngineName,
    model: PreTrainedModel,
    recipe: Recipe | None,
    batches: Sequence[Batch],
    loss: Loss | None,
    workspace: Path | None,
    share: Share | None = None,
) -> Engine:
    if name == "textpruner":
        from prunectl.pruning.textpruner import TextPrunerEngine

        return TextPrunerEngine(model, recipe, batches, loss, workspace=workspace)
    return NativeEngine(model, recipe, batches, loss, share)


def _part(progress: Progress | None, step: int, of: int) -> Progress | None:
    return None if progress is None else lambda fraction: progress((step + fraction) / of)


def _short(scores: Tensor) -> list[float]:
    return [float(f"{score:.4g}") for score in scores.tolist()]


def _kept(mask: Tensor | None, row: int, units: int) -> list[int]:
    """Indices of what a block keeps of its ``units``."""
    return list(range(units)) if mask is None else [int(index) for index in mask[row, :units].nonzero().squeeze(1)]
