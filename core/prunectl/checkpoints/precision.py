"""The precision in which weights are stored: all is computed in float32, and a half-precision model is saved as one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.checkpoints.headers import FLOATS

_HALVES = {"F16": torch.float16, "BF16": torch.bfloat16}


def stored_dtype(header: Mapping[str, tuple[str, tuple[int, ...]]]) -> torch.dtype:
    """float16 or bfloat16 where all weights of a `prunectl.zoo.directory.check` have it, else float32."""
    types = {kind for kind, _ in header.values() if kind in FLOATS}
    return _HALVES.get(types.pop(), torch.float32) if len(types) == 1 else torch.float32


def stored_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """By name, what has the type that a model is stored in: all that is floating point, but for what transformers computes
    and doesn't store, such as Marian's positions.
    """
    computed = set(model._keys_to_ignore_on_save or ())
    return {
        name: kept for name, kept in model.state_dict().items() if kept.is_floating_point() and name not in computed
    }


@torch.no_grad()
def round_to(model: PreTrainedModel, dtype: torch.dtype) -> torch.dtype:
    """Round every weight to the nearest that ``dtype`` has, in place; the model stays float32, and computes what will be saved.

    Weights that were only cut out of a model of that type stay as they are. The type in which the model can be saved:
    float32, and nothing is rounded, where a weight is too large for ``dtype``, as one may be after a refit.
    """
    weights = [tensor for tensor in stored_weights(model).values() if tensor.numel()]
    if dtype is torch.float32 or any(bool(tensor.abs().max() > torch.finfo(dtype).max) for tensor in weights):
        return torch.float32
    for tensor in weights:
        tensor.copy_(tensor.to(dtype))
    return dtype
