"""Batches, a loss and random masks for tests of scores, surgery and checkpoints."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from prunectl.pruning.blocks import find_blocks, shape
from prunectl.pruning.masks import Masks


def batches(model: Any, count: int = 2, size: int = 4, length: int = 9) -> list[dict[str, Tensor]]:
    """Random token ids, the first row padded after a third; the same on every call."""
    generator = torch.Generator().manual_seed(7)
    if model.main_input_name == "pixel_values":
        side = model.config.image_size
        return [{"pixel_values": torch.rand(size, 3, side, side, generator=generator)} for _ in range(count)]
    attention = torch.ones(size, length, dtype=torch.long)
    attention[0, length // 3 :] = 0
    found = [
        {
            "input_ids": torch.randint(5, model.config.vocab_size, (size, length), generator=generator),
            "attention_mask": attention,
        }
        for _ in range(count)
    ]
    taken = inspect.signature(model.forward).parameters
    if type(model).__name__.endswith("ForSequenceClassification") and model.config.eos_token_id is not None:
        for batch in found:  # BART and T5 classify by what stands at the one end-of-text token, decoders at the last
            batch["input_ids"][:, -1] = model.config.eos_token_id
    elif "decoder_input_ids" in taken:
        for batch in found:
            batch["decoder_input_ids"] = torch.randint(
                5, model.config.vocab_size, (size, length - 2), generator=generator
            )
    return found


def loss(model: Any, batch: Any) -> Tensor:
    """A smooth scalar of the first output, whatever the task head."""
    output: Tensor = model(**batch)[0]
    return -output.log_softmax(-1)[..., 0].mean()


def output(model: Any, batch: Any) -> Tensor:
    with torch.inference_mode():
        first: Tensor = model(**batch)[0]
    return first


def random_masks(
    layers: int, heads: int, ffn: int, *, seed: int, keep: float = 0.5, empty: tuple[int, ...] = ()
) -> Masks:
    """Random masks; the layers named in ``empty`` keep nothing."""
    generator = torch.Generator().manual_seed(seed)
    head_mask = torch.rand(layers, heads, generator=generator) < keep
    ffn_mask = torch.rand(layers, ffn, generator=generator) < keep
    for layer in empty:
        head_mask[layer] = ffn_mask[layer] = False
    return Masks(head_mask, ffn_mask)


def masks_for(model: Any, *, seed: int, keep: float = 0.5, empty: tuple[int, ...] = ()) -> Masks:
    """Random masks that fit the blocks of ``model``, groups of query heads whole; ``empty`` blocks keep nothing."""
    blocks = find_blocks(model)
    count, heads, ffn = shape(blocks)
    masks = random_masks(count, heads, ffn, seed=seed, keep=keep)
    assert masks.heads is not None and masks.ffn is not None
    for row, block in enumerate(blocks):
        if row in empty:
            masks.heads[row] = masks.ffn[row] = False
        masks.heads[row, : block.heads_total] = masks.heads[row, : block.heads_total : block.group].repeat_interleave(
            block.group
        )
        masks.heads[row, block.heads_total :] = True
        masks.ffn[row, block.ffn_total :] = True
    return masks
