"""Inputs made up for a model where what it reads doesn't matter: for counting, timing and measuring memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

CHANNELS = 3


def made_up(
    model: PreTrainedModel, batch: int, seq: int, *, seed: int = 0, vocabulary: int | None = None
) -> dict[str, Tensor]:
    """What ``model`` takes: random token ids ``[batch, seq]`` without padding, for encoder and decoder where it has
    both, or random images of the size that the model is made for, whatever ``seq``.

    ``vocabulary`` bounds the ids, so that models with vocabularies of their own get the same; None: the model's.
    """
    if reads_images(model):
        height, width = image_size(model)
        pixels = np.random.default_rng(seed).standard_normal((batch, CHANNELS, height, width), dtype=np.float32)
        return {"pixel_values": torch.from_numpy(pixels).to(model.device, model.dtype)}
    vocabulary = vocabulary or int(model.config.vocab_size)
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(0, vocabulary, (batch, seq)))
    ids = _ordinary(drawn, model, vocabulary).to(model.device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if takes_decoder_inputs(model):
        inputs["decoder_input_ids"] = ids.flip(1)
    elif has_decoder(model):  # a classifier reads what stands at the text's end
        ids[:, -1] = model.config.eos_token_id
    return inputs


def reads_images(model: PreTrainedModel) -> bool:
    return getattr(model, "main_input_name", "input_ids") == "pixel_values"


def image_size(model: PreTrainedModel) -> tuple[int, int]:
    """(height, width) of the images that the model takes."""
    size: Any = model.config.image_size
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def has_decoder(model: PreTrainedModel) -> bool:
    """Whether the model reads one text and writes another. A T5 encoder alone, of the same settings, doesn't."""
    encoder_decoder = getattr(model.config, "is_encoder_decoder", False)
    return bool(encoder_decoder) and hasattr(model.base_model, "decoder")


def takes_decoder_inputs(model: PreTrainedModel) -> bool:
    """Whether the decoder needs a text of its own; classifiers give it the encoder's."""
    return has_decoder(model) and not type(model).__name__.endswith("ForSequenceClassification")


def _ordinary(ids: Tensor, model: PreTrainedModel, vocabulary: int) -> Tensor:
    """No padding, which would shift RoBERTa's positions, and no end of text, which BART's classifier counts."""
    avoided = {getattr(model.config, name, None) for name in ("pad_token_id", "eos_token_id")}
    for _ in range(len(avoided)):
        for token in avoided:
            ids = torch.where(ids == token, (ids + 1) % vocabulary, ids) if isinstance(token, int) else ids
    return ids
