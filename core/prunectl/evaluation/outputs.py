"""Outputs: what a model says of a batch, in the form that each task's loss and metrics need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.evaluation.inputs import has_decoder


def token_logits(model: Any, inputs: Mapping[str, Tensor], positions: Tensor) -> Tensor:
    """Logits ``[tokens, vocabulary]`` at ``positions`` (bool ``[batch, length]``, a decoder's where there is one), row
    by row.

    The language-model head runs at these positions alone: with 250,000 words, logits at every position would cost more
    than the encoder and take gigabytes.
    """
    if not isinstance(model, PreTrainedModel):  # another runtime's, which has no head apart
        found: Tensor = model(**inputs).logits[positions]
        return found
    with _last_hidden(model, lambda hidden: hidden[positions].unsqueeze(0)):
        logits: Tensor = model(**inputs).logits
    return logits.squeeze(0)


def class_logits(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits ``[batch, classes]``."""
    if "input_ids" not in inputs or has_decoder(model) or model.config.pad_token_id is not None:
        return model(**inputs).logits
    # A classifier that reads a text's last token can't find it behind padding that the configuration doesn't name.
    rows = [
        {name: value[row : row + 1, : int(length)] for name, value in inputs.items()}
        for row, length in enumerate(inputs["attention_mask"].sum(1))
    ]
    return torch.cat([model(**row).logits for row in rows])


def span_logits(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits of an answer's first and last token, ``[batch, 2, length]``; -1e4 at padding, where no answer is."""
    found = model(**inputs)
    logits = torch.stack([found.start_logits, found.end_logits], 1)
    return logits.masked_fill(inputs["attention_mask"][:, None] == 0, -1e4)


def embeddings(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Mean over each text's tokens (an image's patches) of the last hidden state, at unit length: ``[batch, hidden]``.

    The pooling of Sentence-BERT (Reimers and Gurevych 2019), which most bare text encoders are used with. An
    encoder-decoder reads the text on both sides and gives the decoder's states.
    """
    if not isinstance(model, PreTrainedModel):
        return _pooled(model(**inputs).last_hidden_state, inputs)
    seen: list[Tensor] = []
    given = dict(inputs)
    if has_decoder(model):
        given["decoder_input_ids"] = inputs["input_ids"]
    with _last_hidden(model, lambda hidden: seen.append(hidden) or hidden):  # type: ignore[func-returns-value]
        model.base_model(**given)
    return _pooled(seen[0], inputs)


def _pooled(hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    mask = inputs.get("attention_mask", torch.ones(hidden.shape[:2], device=hidden.device))
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
    return torch.nn.functional.normalize(mean, dim=-1)


@contextmanager
def _last_hidden(model: PreTrainedModel, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While it lasts, what the layers hand to the head, ``[batch, length, hidden]``, is what ``change`` makes of it."""

    def replace(_module: Any, _arguments: Any, output: Any) -> Any:
        output["last_hidden_state"] = change(output["last_hidden_state"])
        return output

    base: Any = model.base_model
    handle = (base.decoder if has_decoder(model) else base).register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
