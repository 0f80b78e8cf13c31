"""MACs and parameters of a model as it is, counted rather than estimated."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from prunectl.evaluation.inputs import made_up


@torch.no_grad()
def count(model: PreTrainedModel, seq: int) -> int:
    """Multiply-adds of linear layers and both attention products, for batch 1 x ``seq`` tokens without padding (on
    either side of an encoder-decoder), or one image.

    Counted from the operations of one real forward pass, so any architecture and any uneven shape is covered.
    """
    counter = FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_ATTENTION, _attention_flops))
    inputs = made_up(model, 1, seq)
    with counter:
        model(**inputs)
    # Angles of rotary positions come out of a product too, but neither a linear layer's nor attention's.
    angles = sum(sum(made.values()) for name, made in counter.get_flop_counts().items() if name.endswith("rotary_emb"))
    return (counter.get_total_flops() - angles) // 2  # one multiply-add is two operations


def parameters(model: nn.Module) -> int:
    """Parameters of the model; shared tensors, such as tied embeddings, once."""
    return sum(parameter.numel() for parameter in model.parameters())


def nonzero_parameters(model: nn.Module) -> int:
    """Parameters that are not zero; shared tensors once."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())


# PyTorch's own table has the attention kernels of accelerators alone, and takes no grouped queries.
_ATTENTION = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten._scaled_dot_product_efficient_attention,
    torch.ops.aten._scaled_dot_product_cudnn_attention,
)


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Of query and key, of weights and value; the counter passes shapes ``[batch, heads, length, size]``."""
    batch, heads, length, size = query
    return int(2 * batch * heads * length * key[2] * (size + value[3]))
