"""Outputs: what a model says of a batch, in the form that each task's loss and metrics need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def masked_logits(model: PreTrainedModel, inputs: Mapping[str, Tensor], positions: Tensor) -> Tensor:
    """Logits ``[masked tokens, vocabulary]`` at ``positions`` (bool ``[batch, length]``), row by row.

    The language-model head runs at these positions alone: with 250,000 words, logits at every position would cost more
    than the encoder and take gigabytes.
    """
    with _only(model, positions):
        return model(**inputs).logits


def class_logits(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits ``[batch, classes]``."""
    return model(**inputs).logits


def embeddings(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """Mean over each text's tokens of the encoder's last hidden state, at unit length: ``[batch, hidden]``.

    The pooling of Sentence-BERT (Reimers and Gurevych 2019), which most bare text encoders are used with.
    """
    hidden = model.base_model(**inputs).last_hidden_state
    weight = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
    return torch.nn.functional.normalize(mean, dim=-1)


@contextmanager
def _only(model: PreTrainedModel, positions: Tensor) -> Iterator[None]:
    """While it lasts, the encoder hands its head the hidden states of ``positions`` alone, as ``[tokens, hidden]``."""

    def select(_module: Any, _arguments: Any, output: Any) -> Any:
        output["last_hidden_state"] = output["last_hidden_state"][positions]
        return output

    handle = model.base_model.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()
