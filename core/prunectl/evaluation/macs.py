"""MACs and parameters of a model as it is, counted rather than estimated."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import PreTrainedModel


@torch.inference_mode()
def count(model: PreTrainedModel, seq: int) -> int:
    """Multiply-adds of linear layers and both attention products, for batch 1 x ``seq`` tokens without padding.

    Counted from the operations of one real forward pass, so any architecture and any uneven shape is covered.
    """
    ids = torch.full((1, seq), _ordinary_token(model), device=model.device)
    counter = FlopCounterMode(display=False, custom_mapping={_CPU_ATTENTION: _cpu_attention_flops})
    with counter:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return counter.get_total_flops() // 2  # one multiply-add is two operations


def parameters(model: nn.Module) -> int:
    """Parameters of the model; shared tensors, such as tied embeddings, once."""
    return sum(parameter.numel() for parameter in model.parameters())


def nonzero_parameters(model: nn.Module) -> int:
    """Parameters that are not zero; shared tensors once."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())


# PyTorch's own table has the attention kernels of accelerators alone.
_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _cpu_attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # the counter passes shapes in place of tensors


def _ordinary_token(model: PreTrainedModel) -> int:
    """A token that isn't padding: RoBERTa gives padding no position."""
    return next(token for token in (5, 4, 3, 2, 1, 0) if token != model.config.pad_token_id)
