"""Engines: how a recipe becomes masks and a smaller model, natively or by TextPruner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.pruning import planning, surgery
from prunectl.pruning import scores as scoring
from prunectl.pruning.blocks import Block, find_blocks, shape
from prunectl.pruning.masks import Masks, keep_best, next_masks
from prunectl.pruning.scores import Batch, Loss, Progress, Scores
from prunectl.recipe import Engine as EngineName
from prunectl.recipe import Recipe
from prunectl.schemas import BlockStructure, Structure


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


def choose_masks(
    model: PreTrainedModel,
    recipe: Recipe,
    batches: Sequence[Batch],
    loss: Loss,
    *,
    progress: Progress | None = None,
    workspace: Path | None = None,
) -> Masks:
    """What ``recipe`` keeps of ``model``: score, mask, score the masked model again, for each of its iterations.

    ``workspace`` is a directory of this job's own for what the engine writes meanwhile; None: a temporary one. The
    native engine leaves the model as it is; TextPruner zeroes weights of removed units between iterations, which the
    masks remove anyway. Raises EngineUnavailable, UnsupportedArchitecture, CorruptWeights (scores that are no
    numbers), and InvalidInput for a recipe that this model can't meet.
    """
    planning.units_to_remove(model.config.to_dict(), recipe)
    engine = _engine(recipe.engine, model, recipe, batches, loss, workspace)
    masks = Masks()
    for step in range(recipe.iterations):
        found = engine.scores(masks, progress=_part(progress, step, recipe.iterations))
        masks = next_masks(found, recipe, step, masks, choose=engine.choose)
    return masks


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
    """`choose_masks`, then `apply` with the recipe's engine, in place."""
    return apply(model, choose_masks(model, recipe, batches, loss, progress=progress), engine=recipe.engine)


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
                heads_kept=list(range(block.heads_total)) if masks.heads is None else _indices(masks.heads[row]),
                heads_total=block.heads_total,
                ffn_kept=block.ffn_total if masks.ffn is None else int(masks.ffn[row].sum()),
                ffn_total=block.ffn_total,
            )
            for row, block in enumerate(blocks)
        ]
    )


def kept_of(blocks: list[Block], masks: Masks) -> list[dict[str, Any]]:
    """Each linear layer of the original model whose input a mask multiplied, and the units that stayed."""
    kept: list[dict[str, Any]] = []
    for row, block in enumerate(blocks):
        for module, unit, mask in ((block.output, "head", masks.heads), (block.ffn_second, "neuron", masks.ffn)):
            if mask is not None:
                kept.append({"module": module, "unit": unit, "total": mask.size(1), "kept": _indices(mask[row])})
    return kept


class NativeEngine:
    """Our own scores and surgery."""

    def __init__(
        self, model: PreTrainedModel, recipe: Recipe | None, batches: Sequence[Batch], loss: Loss | None
    ) -> None:
        self._model, self._recipe, self._batches, self._loss = model, recipe, batches, loss

    def scores(self, masks: Masks, *, progress: Progress | None = None) -> Scores:
        assert self._recipe is not None and self._loss is not None
        if self._recipe.scorer == "random":
            return scoring.random(shape(find_blocks(self._model)), self._recipe.seed)
        with surgery.masked(self._model, masks):
            return scoring.taylor(self._model, self._batches, self._loss, even=self._recipe.even, progress=progress)

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
) -> Engine:
    if name == "textpruner":
        from prunectl.pruning.textpruner import TextPrunerEngine

        return TextPrunerEngine(model, recipe, batches, loss, workspace=workspace)
    return NativeEngine(model, recipe, batches, loss)


def _part(progress: Progress | None, step: int, of: int) -> Progress | None:
    return None if progress is None else lambda fraction: progress((step + fraction) / of)


def _indices(mask: Tensor) -> list[int]:
    return [int(index) for index in mask.nonzero().squeeze(1)]
