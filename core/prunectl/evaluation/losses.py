"""Losses that take little memory beside the logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

_ROWS = 32


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of ``logits`` ``[tokens, vocabulary]``, a scalar, for ``labels`` ``[tokens]``.

    Where a gradient is asked for, it is computed at once and takes the logits' place: over a quarter of a million words
    the log-softmax and the gradient would each be as large again. ``logits`` is used up then, and so is the gradient by
    its first backward pass (torch raises RuntimeError on a second).
    """
    if torch.is_grad_enabled() and logits.requires_grad:
        loss: Tensor = _InPlace.apply(logits, labels)
        return loss
    return cross_entropy(logits, labels)


class _InPlace(torch.autograd.Function):
    """The gradient of cross-entropy, (softmax - one-hot) / tokens, written over the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        kept = logits.detach()
        total = torch.zeros((), device=logits.device)
        for start in range(0, len(labels), _ROWS):
            rows, wanted = kept[start : start + _ROWS], labels[start : start + _ROWS].unsqueeze(1)
            logs = rows.float().log_softmax(-1)
            total -= logs.gather(1, wanted).sum()
            gradient = logs.exp_()
            gradient.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=gradient.dtype))
            rows.copy_(gradient.div_(len(labels)))
        ctx.save_for_backward(kept)
        return (total / len(labels)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return kept.mul_(gradients[0]), None
