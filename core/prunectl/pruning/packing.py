"""Packing: a batch is scored in several passes that hold little padding and no more tokens than pays.

What a pass costs is its padded tokens and a little for itself; what it must keep for the way back grows with its tokens.
Where the loss is a mean over examples or labelled tokens, the passes' gradients put together are the whole batch's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

Batch = Mapping[str, Any]
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "places")
"""What has a column for each token, besides labels where each token may have one."""
_COMPARED = "reference"
"""What a batch has whose loss compares its examples with each other: such a one is never divided."""


@dataclass(frozen=True, slots=True)
class Budget:
    """``tokens``: padded ones that a pass has at most, if it has more than one example. ``overhead``: what a pass costs
    besides, in tokens.
    """

    tokens: int
    overhead: int


def budget_of(model: PreTrainedModel) -> Budget:
    """What suits the model where it is.

    A processor is as fast with 512 tokens as with more, but reads an output over a large vocabulary anew in each pass: one
    as large as all layers together takes it the time of some 60 tokens. An accelerator waits for its host between passes.
    """
    if model.device.type != "cpu":
        return Budget(16_384, 1_024)
    overhead = 16 + round(60 * _output_share(model))
    return Budget(max(512, 8 * overhead), overhead)


def _output_share(model: PreTrainedModel) -> float:
    """Weights of the output over the vocabulary, as a share of those of the layers; 0 where there is none."""
    output = model.get_output_embeddings()
    if output is None:
        return 0.0
    inputs = model.get_input_embeddings()
    ends = {id(end.weight): end.weight.numel() for end in (output, inputs) if isinstance(end.weight, Tensor)}
    layers = sum(weight.numel() for weight in model.parameters() if id(weight) not in ends)
    return ends[id(output.weight)] / max(1, layers)


def divided(batch: Batch, budget: Budget) -> list[Batch]:
    """The batch in passes, each as short as its longest example; one, the batch itself, where that is the cheapest."""
    tokens = batch.get("input_ids")
    if not isinstance(tokens, Tensor) or _COMPARED in batch:
        return [batch]
    lengths, width = _lengths(batch), tokens.shape[1]
    groups = packed([length + _decoded(batch) for length in lengths], budget)
    if len(groups) == 1 and max(lengths) == width:
        return [batch]
    return [_part(batch, rows, max(lengths[row] for row in rows)) for rows in groups]


def packed(lengths: Sequence[int], budget: Budget) -> list[list[int]]:
    """Indices of ``lengths`` in groups whose cost is the least: for each, its number times its longest, and the overhead.

    Of all ways to cut the order of lengths, by dynamic programming over where the last group begins.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    best, begins = [0.0], [0]
    for end in range(1, len(order) + 1):
        costs = []
        for begin in range(end - 1, -1, -1):
            size = (end - begin) * lengths[order[begin]]
            if size > budget.tokens and end - begin > 1:
                break
            costs.append((best[begin] + size + budget.overhead, begin))
        cost, begin = min(costs)
        best.append(cost)
        begins.append(begin)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.insert(0, order[begins[end] : end])
        end = begins[end]
    return groups


def out_of_memory(error: RuntimeError) -> bool:
    """An accelerator has a class for it; on the CPU the allocator's message is all there is."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def halved(batch: Batch) -> list[Batch]:
    """The batch's examples in two batches, in their order."""
    half = examples_of(batch) // 2
    return [rows_of(batch, slice(0, half)), rows_of(batch, slice(half, None))]


def examples_of(batch: Batch) -> int:
    return len(next(iter(batch.values())))


def weight_of(batch: Batch) -> int:
    """What a mean loss divides by: labelled tokens where each token has a label, else examples."""
    labels = batch.get("labels")
    if isinstance(labels, Tensor) and labels.dim() == 2:
        return int((labels >= 0).sum())
    return examples_of(batch)


def _lengths(batch: Batch) -> list[int]:
    """Columns that each example needs: all, where its padding isn't on the right alone."""
    width = int(batch["input_ids"].shape[1])
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or bool((mask[:, 1:] > mask[:, :-1]).any()):
        return [width] * examples_of(batch)
    return [max(1, length) for length in mask.sum(1).tolist()]


def _decoded(batch: Batch) -> int:
    tokens = batch.get("decoder_input_ids")
    return int(tokens.shape[1]) if isinstance(tokens, Tensor) else 0


def rows_of(batch: Batch, rows: slice | list[int] | Tensor) -> Batch:
    """The batch of these examples alone; ``rows`` is anything that a tensor's first dimension can be indexed with."""
    return {name: value[rows] if isinstance(value, Tensor) else value for name, value in batch.items()}


def _part(batch: Batch, rows: list[int], longest: int) -> Batch:
    """These examples, without the columns that only longer ones need."""
    width = batch["input_ids"].shape[1]
    # What a decoder reads and should say has columns of its own.
    names = _INPUTS if _decoded(batch) else (*_INPUTS, "labels")
    part = dict(rows_of(batch, rows))
    for name in names:
        value = part.get(name)
        if isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] == width:
            part[name] = value[:, :longest]
    return part
