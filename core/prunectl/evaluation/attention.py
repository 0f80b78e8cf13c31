"""Attention: where each head of a model looks while it reads a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.attention import AttentionFound, AttentionLayer, AttentionPart, Part
from prunectl.errors import InvalidInput
from prunectl.evaluation import encoding
from prunectl.evaluation.data import Example
from prunectl.evaluation.inputs import has_decoder, reads_images
from prunectl.evaluation.tasks import text_limit
from prunectl.pruning.blocks import described
from prunectl.schemas import BlockStructure, Structure

MAX_TOKENS = 48
"""A longer text is cut: its pictures could not be read."""
MAX_WEIGHTS = 2_000_000
"""Of one model: what a browser still draws."""
_SOURCES: dict[Part, tuple[str, ...]] = {
    "encoder": ("encoder_attentions", "attentions"),
    "decoder": ("decoder_attentions",),
    "cross": ("cross_attentions",),
}


def attention_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    structure: Structure,
    text: str,
    layers: Sequence[int] | None = None,
) -> AttentionFound:
    """The attention weights of ``model`` for ``text``, one forward pass; softmax output, before any dropout.

    ``structure`` says which heads of which layers ``model`` has, in the original model's numbers; ``layers`` are the
    numbers to keep (None: all). An encoder-decoder's decoder reads the text, too. The model computes attention the
    plain way from now on, since no fused kernel has weights to show. Raises InvalidInput (field ``text``) where
    ``text`` gives no token, (field ``layers``) where there is more than a page can hold, and (field ``model``) for a
    model of images, which has no tokenizer.
    """
    if tokenizer is None or reads_images(model):
        raise InvalidInput("the model reads images, and attention is shown for texts alone", field="model")
    limit = min(MAX_TOKENS, text_limit(described(model)))
    inputs = encoding.probe(model, tokenizer, [Example(text)], limit)
    ids = inputs["input_ids"]
    if not ids.numel():
        raise InvalidInput("the text gives no token", field="text", value=text)
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(ids[0].tolist())]
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        outputs: Any = model(**inputs, output_attentions=True)
    parts = []
    for part, blocks in _blocks_of(structure).items():
        found = next((outputs.get(name) for name in _SOURCES[part] if outputs.get(name)), None)
        if not has_decoder(model) and part == "decoder":
            found = outputs.get("attentions")  # a decoder that stands alone
        if found:
            parts.append(_part(part, tokens, blocks, found, layers))
    _refuse_too_much(parts)
    return AttentionFound(parts=parts, cut=len(tokenizer(text)["input_ids"]) > len(tokens))


def _blocks_of(structure: Structure) -> dict[Part, list[BlockStructure]]:
    found: dict[Part, list[BlockStructure]] = {}
    for block in structure.layers:
        part: Part = "cross" if block.attention == "cross" else block.stack
        found.setdefault(part, []).append(block)
    return found


def _part(
    part: Part,
    tokens: list[str],
    blocks: Sequence[BlockStructure],
    found: Sequence[Tensor],
    layers: Sequence[int] | None,
) -> AttentionPart:
    """``found``: for each layer, weights ``[1, heads, queries, keys]``."""
    if len(blocks) == 1 and len(found) > 1:  # layers that share their weights are one block
        blocks = [blocks[0].model_copy(update={"index": index}) for index in range(len(found))]
    if [len(block.heads_kept) for block in blocks] != [weights.shape[1] for weights in found]:
        raise ValueError(f"the {part} has other heads than its structure says")
    return AttentionPart(
        part=part,
        queries=tokens,
        keys=tokens,
        layers=[
            AttentionLayer(
                index=block.index,
                heads=block.heads_kept,
                heads_total=block.heads_total,
                weights=_rounded(weights[0]),
            )
            for block, weights in zip(blocks, found, strict=True)
            if layers is None or block.index in layers
        ],
    )


def _rounded(weights: Tensor) -> list[list[list[float]]]:
    """Three decimals: finer than an opacity can be seen."""
    return [[[round(weight, 3) for weight in row] for row in head] for head in weights.detach().float().cpu().tolist()]


def _refuse_too_much(parts: Sequence[AttentionPart]) -> None:
    count = sum(len(layer.weights) * len(part.queries) * len(part.keys) for part in parts for layer in part.layers)
    if count > MAX_WEIGHTS:
        raise InvalidInput(
            f"{count:,} weights of attention are more than a page can show ({MAX_WEIGHTS:,})",
            hint="name fewer layers (--layer 0,1,2), or give a shorter text",
            field="layers",
        )
