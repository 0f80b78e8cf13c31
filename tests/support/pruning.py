"""Batches, a loss and random masks for tests of scores, surgery and checkpoints."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunectl.pruning.masks import Masks


def batches(model: Any, count: int = 2, size: int = 4, length: int = 9) -> list[dict[str, Tensor]]:
    """Random token ids, the first row padded after a third; the same on every call."""
    generator = torch.Generator().manual_seed(7)
    attention = torch.ones(size, length, dtype=torch.long)
    attention[0, length // 3 :] = 0
    return [
        {
            "input_ids": torch.randint(5, model.config.vocab_size, (size, length), generator=generator),
            "attention_mask": attention,
        }
        for _ in range(count)
    ]


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
