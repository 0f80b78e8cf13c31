"""Weights: single weights, or whole matrices, set to zero. Shapes stay as they are.

Prunable are the matrices of the attention and feed-forward blocks; embeddings, norms, biases and task heads are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prunectl.errors import CorruptWeights, InvalidInput
from prunectl.pruning.blocks import find_blocks
from prunectl.pruning.observation import observe
from prunectl.pruning.packing import Batch
from prunectl.pruning.planning import share
from prunectl.pruning.scores import Loss, Progress
from prunectl.recipe import PATTERNS, Recipe

Masks = dict[str, Tensor]
"""Module path -> bool ``[outputs, inputs]``, True where a weight stays."""


@dataclass(frozen=True, slots=True)
class Zeroed:
    """What was set to zero: of how many prunable weights, how many, in which modules all."""

    total: int
    zeroed: int
    modules: list[str]


def prunable(model: PreTrainedModel) -> list[str]:
    """Paths of the block's matrices, each once."""
    paths = [
        path
        for block in find_blocks(model)
        for path in (block.query, block.key, block.value, block.output, *block.ffn_first, block.ffn_second)
        if path is not None
    ]
    return list(dict.fromkeys(paths))


def oriented(module: nn.Module) -> Tensor:
    """The module's weight as ``[outputs, inputs]``: a view, whichever way the module keeps it."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.T if isinstance(module, Conv1D) else weight


def choose(
    model: PreTrainedModel, recipe: Recipe, batches: Sequence[Batch], loss: Loss, *, progress: Progress | None = None
) -> Masks:
    """Which weights stay under ``recipe.weights``; granularity, scorer and pattern as `keep` and `importance` say.

    Raises InvalidInput where a whole matrix is more than the fraction allows, CorruptWeights for weights that are no
    numbers.
    """
    assert recipe.weights is not None
    scorer = recipe.scorer_of("weights")
    norms = input_norms(model, batches, loss, progress=progress) if scorer == "wanda" else {}
    scores = {
        path: importance(model, path, scorer, norms, recipe.seed + place) for place, path in enumerate(prunable(model))
    }
    for path, score in scores.items():
        if not torch.isfinite(score).all():
            raise CorruptWeights(f"{path} holds weights that are not finite numbers", hint="check the model for NaN")
    return keep(scores, recipe)


def input_norms(
    model: PreTrainedModel, batches: Sequence[Batch], loss: Loss, *, progress: Progress | None = None
) -> dict[str, Tensor]:
    """||X_j||_2 of each input feature over all calibration tokens but padding: module path -> ``[inputs]``."""
    squares: dict[str, Tensor] = {}

    def watch(name: str, inputs: Tensor) -> None:
        found = inputs.float().square().sum(0)
        squares[name] = squares[name] + found if name in squares else found

    observe(model, prunable(model), batches, loss, watch, progress=progress)
    return {name: found.sqrt() for name, found in squares.items()}


@torch.no_grad()
def importance(model: PreTrainedModel, path: str, scorer: str, norms: Mapping[str, Tensor], seed: int) -> Tensor:
    """Score of each weight, ``[outputs, inputs]``, higher matters more.

    magnitude: |W|. wanda: |W_ij| x ||X_j||_2 (Sun et al. 2024, "A Simple and Effective Pruning Approach for Large
    Language Models", equation 1), the norms all taken on the unpruned model. random: uniform, drawn by the seed.
    """
    weight = oriented(model.get_submodule(path)).detach()
    if scorer == "random":
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(weight.shape, generator=generator).to(weight.device)
    return weight.abs().float() * (norms[path] if scorer == "wanda" else 1.0)


def keep(scores: Mapping[str, Tensor], recipe: Recipe) -> Masks:
    """The weights that stay, by score.

    - ``weight_pattern`` N:M: of each M consecutive weights of an output row the N best; a rest at a row's end
      shorter than M stays whole.
    - ``element``: floor(F x all) are zeroed, ranked over the whole model. Wanda's scores compare within one output row
      alone, so with it each row of each matrix loses floor(F x its inputs).
    - ``matrix``: each matrix loses floor(F x its weights), ranked within it (wanda: within each row, as above).
    - ``tensor``: whole matrices, the lowest mean score first, each that still fits into floor(F x all weights).

    Raises InvalidInput where the fraction is too small for a single matrix, naming the nearest that isn't.
    """
    fraction = recipe.weights or 0.0
    if recipe.weight_pattern is not None:
        return {path: _pattern(score, *PATTERNS[recipe.weight_pattern]) for path, score in scores.items()}
    if recipe.weight_granularity == "tensor":
        return _tensors(scores, fraction)
    if recipe.scorer_of("weights") == "wanda":
        return {path: _lowest(score, share(fraction, score.size(1))) for path, score in scores.items()}
    if recipe.weight_granularity == "matrix":
        flat = {path: _lowest(score.reshape(1, -1), share(fraction, score.numel())) for path, score in scores.items()}
        return {path: flat[path].view_as(score) for path, score in scores.items()}
    everything = torch.cat([score.flatten() for score in scores.values()]).unsqueeze(0)
    stay = _lowest(everything, share(fraction, everything.numel())).squeeze(0)
    parts = stay.split([score.numel() for score in scores.values()])
    return {path: part.view_as(score) for (path, score), part in zip(scores.items(), parts, strict=True)}


@torch.no_grad()
def zero(model: PreTrainedModel, masks: Masks) -> Zeroed:
    """Set to zero in ``model``, in place, what ``masks`` don't keep."""
    for path, mask in masks.items():
        oriented(model.get_submodule(path)).masked_fill_(~mask, 0.0)
    return Zeroed(
        total=sum(mask.numel() for mask in masks.values()),
        zeroed=sum(int((~mask).sum()) for mask in masks.values()),
        modules=[path for path, mask in masks.items() if mask.numel() and not mask.any()],
    )


def _lowest(scores: Tensor, removed: int) -> Tensor:
    """False at the ``removed`` lowest of each row; ties go to the first. Selects rather than sorts: rows can be a
    model.
    """
    if removed == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    limit = scores.kthvalue(removed, dim=1, keepdim=True).values
    mask, level = scores > limit, scores == limit
    spare = removed - (scores < limit).sum(1, keepdim=True)
    if (level.sum(1, keepdim=True) > spare).any():
        mask |= level & (level.cumsum(1, dtype=torch.int32) > spare)
    return mask


def _pattern(scores: Tensor, stay: int, of: int) -> Tensor:
    groups = scores.size(1) // of
    mask = torch.ones_like(scores, dtype=torch.bool)
    grouped = scores[:, : groups * of].reshape(-1, of)
    mask[:, : groups * of] = _lowest(grouped, of - stay).view(scores.size(0), groups * of)
    return mask


def _tensors(scores: Mapping[str, Tensor], fraction: float) -> Masks:
    sizes = {path: score.numel() for path, score in scores.items() if score.numel()}
    total = sum(sizes.values())
    budget = share(fraction, total)
    smallest = min(sizes.values(), default=0)
    if 0 < budget < smallest:
        raise InvalidInput(
            f"weights={fraction}: of {total} weights that is {budget}, less than the smallest matrix ({smallest}); "
            f"nearest that can be met: weights={-(-smallest * 10_000 // total) / 10_000:g}",
            field="weights",
            value=fraction,
            hint="or zero single weights: weight_granularity=element",
        )
    gone: set[str] = set()
    for path in sorted(sizes, key=lambda path: float(scores[path].mean())):
        if sizes[path] <= budget:
            budget -= sizes[path]
            gone.add(path)
    return {path: torch.full_like(score, path not in gone, dtype=torch.bool) for path, score in scores.items()}
