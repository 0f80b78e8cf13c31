"""Axes: what a whole recipe takes from a model, step by step, from config.json alone. No torch.

Steps come in the order of a recipe: vocabulary, layers, heads and neurons, weights; each counts what the ones before
left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunectl.errors import InvalidInput
from prunectl.pruning import budgets, depth, greedy, planning
from prunectl.pruning.architectures import architecture_of, family_of, shape_of
from prunectl.pruning.planning import Planned, Shares
from prunectl.pruning.sizes import ModelShape
from prunectl.recipe import PATTERNS, Recipe

TEXTPRUNER_VOCABULARIES = ("bert", "electra")
"""Families whose tokenizers TextPruner's vocabulary pruner still reads."""
ONNX_FAMILIES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "albert", "mpnet", "deberta-v2")
"""Families that are exported: text encoders."""
VOCABULARY_NOTE = (
    "how much of the vocabulary goes is known once the corpus has been tokenized; these counts keep all of it"
)
TARGET_NOTE = (
    "the solver chooses heads and neurons once they have been scored, within this target; parameters and MACs assume the "
    "same share in each layer"
)
MEASURED_NOTE = "the solver chooses heads and neurons once they have been scored and timed on the worker; these counts keep all of them"


@dataclass(frozen=True, slots=True)
class AxesPlan:
    """What a recipe does to the model with ``config``."""

    config: dict[str, Any]
    """Of the model without the layers that go."""
    layers_total: int
    layers_removed: int
    units: Planned
    shares: Shares
    weights_total: int
    """Weights that a step of weights chooses from, after the steps before."""
    weights_zeroed: int
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        return planning.count_parameters(self.config, self.shares.heads, self.shares.ffn)

    def macs(self, seq: int) -> int:
        return planning.count_macs(self.config, seq, self.shares.heads, self.shares.ffn)


def plan(config: Mapping[str, Any], recipe: Recipe, seq: int = 128) -> AxesPlan:
    """What ``recipe`` takes from the model with ``config``; multiply-adds are of ``seq`` tokens.

    Raises UnsupportedArchitecture, and InvalidInput naming the axis and the nearest that can be met.
    """
    layers_total = sum(stack.layers for stack in depth.stacks_of(config)) if recipe.layers is not None else 0
    removed = depth.count(config, recipe)
    # Which layers go doesn't change the counts: within a stack all are alike.
    smaller = depth.without(config, depth.first_choice(config, recipe)) if removed else dict(config)
    units = planning.units_to_remove(smaller, recipe)
    shares = planning.even_shares(smaller, units)
    target: list[str] = []
    if recipe.budget is not None:
        target = [TARGET_NOTE if recipe.target_macs is not None else MEASURED_NOTE]
        budgets.least_units(recipe, shape_of(smaller).blocks)
    if recipe.target_macs is not None and recipe.vocab is None:  # how much of the vocabulary goes isn't known yet
        budget = budgets.check(smaller, recipe, seq, planning.count_macs(config, seq))
        shares = budgets.estimated_shares(smaller, recipe, seq, budget)
    total = prunable_weights(smaller, shares)
    notes = ([] if recipe.vocab is None else [VOCABULARY_NOTE]) + target
    if shares.approximate:
        notes.append("counts are exact in total; parameters and MACs assume the same share in each layer")
    if removed and len(depth.stacks_of(config)) > 1 and isinstance(recipe.layers, int):
        notes.append("which of the stacks loses the layers is known once they have been scored")
    if recipe.greedy:
        notes += greedy.notes(config, recipe)
    return AxesPlan(
        config=smaller,
        layers_total=layers_total or sum(stack.layers for stack in depth.stacks_of(config)),
        layers_removed=removed,
        units=units,
        shares=shares,
        weights_total=total,
        weights_zeroed=_zeroed(recipe, total),
        notes=tuple(notes),
    )


def prunable_weights(config: Mapping[str, Any], shares: Shares | None = None) -> int:
    """Entries of the matrices of all attention and feed-forward blocks, of what ``shares`` keep; None: all."""
    shape = shape_of(config)
    total = 0
    for row, block in enumerate(shape.blocks):
        heads = block.heads_total if shares is None else shares.heads[row]
        neurons = block.ffn_total if shares is None else shares.ffn[row]
        total += _attention_weights(shape, heads * block.head_dim, block.group)
        if block.ffn_total:
            total += (len(block.layers.feed_forward.first) + 1) * shape.hidden * neurons
    return total


def check_vocabulary(config: Mapping[str, Any], recipe: Recipe) -> None:
    """Raises InvalidInput where this model has no vocabulary, or the engine can't reduce it."""
    if recipe.vocab is None:
        return
    if not shape_of(config).vocab:
        raise InvalidInput(f"vocab: {architecture_of(config)} has no vocabulary", field="vocab", value=recipe.vocab)
    family = family_of(config).model_type
    if recipe.engine == "textpruner" and family not in TEXTPRUNER_VOCABULARIES:
        raise InvalidInput(
            f"engine textpruner: its vocabulary pruner can't read the tokenizer of {family}, since current ones have "
            f"neither its merges nor its SentencePiece model; it can prune {' and '.join(TEXTPRUNER_VOCABULARIES)}",
            field="engine",
            value="textpruner",
            hint="leave the engine out: the native one reduces tokenizer.json",
        )


def check_export(config: Mapping[str, Any], recipe: Recipe) -> None:
    """Raises InvalidInput where the recipe asks for ONNX files that this family can't have."""
    family = family_of(config).model_type
    if recipe.export is not None and family not in ONNX_FAMILIES:
        raise InvalidInput(
            f"export: {family} can't be exported to ONNX; text encoders can: {', '.join(ONNX_FAMILIES)}",
            field="quantize" if recipe.quantize is not None else "export",
            value=recipe.quantize or recipe.export,
        )
    if recipe.export is not None and architecture_of(config).endswith("ForQuestionAnswering"):
        raise InvalidInput(
            "export: the file would hold a model's first output alone, and an answer is two: where it begins and ends",
            field="quantize" if recipe.quantize is not None else "export",
            value=recipe.quantize or recipe.export,
        )


def _attention_weights(shape: ModelShape, width: int, group: int) -> int:
    return shape.hidden * (2 * width + 2 * width // group)


def _zeroed(recipe: Recipe, total: int) -> int:
    if recipe.weights is None:
        return 0
    if recipe.weight_pattern is not None:
        stay, of = PATTERNS[recipe.weight_pattern]
        return total * (of - stay) // of
    return planning.share(recipe.weights, total)
