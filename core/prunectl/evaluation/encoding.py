"""Encoding: examples as padded batches of exactly the tensors that a model's forward takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import InvalidInput
from prunectl.evaluation.data import Example

MASKED_FRACTION = 0.15
UNLABELLED = -100
"""The label of a token that has none: the index that cross-entropy ignores."""

Encoded = dict[str, list[int]]
"""One example: ``input_ids``, ``attention_mask`` and, where the model takes them, ``token_type_ids``."""


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int
) -> list[Encoded]:
    """Each example's token ids, cut at ``max_length`` tokens; only the inputs that the model's forward names."""
    taken = set(inspect.signature(model.base_model.forward).parameters)
    pairs = any(example.text_pair for example in examples)
    encoded = tokenizer(
        [example.text for example in examples],
        [example.text_pair or "" for example in examples] if pairs else None,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=True,
    )
    names = [name for name in encoded if name in taken]
    return [{name: encoded[name][index] for name in names} for index in range(len(examples))]


def collate(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Encoded]) -> dict[str, Tensor]:
    """Tensors ``[batch, longest]`` padded at the tokenizer's side."""
    return dict(tokenizer.pad({name: [row[name] for row in rows] for name in rows[0]}, return_tensors="pt"))


def by_length(rows: Sequence[Encoded], batch_size: int) -> Iterator[list[int]]:
    """Indices of ``rows`` in batches of similar length, longest first: little padding, and memory peaks at once."""
    order = sorted(range(len(rows)), key=lambda index: (-len(rows[index]["input_ids"]), index))
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def mask_words(
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Encoded],
    vocabulary: int,
    seed: int,
    fraction: float = MASKED_FRACTION,
) -> tuple[list[Encoded], list[list[int]]]:
    """(rows with hidden tokens, labels with -100 elsewhere) for masked language modelling.

    ``fraction`` of a text's tokens, at least one and never a special one, are predicted; 80 % of those show the mask token,
    10 % a random token and 10 % themselves (Devlin et al. 2019, section 3.1). Each text's draw depends on ``seed`` and
    its position alone, so neither batch size nor model changes it. Raises InvalidInput (field ``task``) where the
    tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise InvalidInput(
            "the tokenizer has no mask token, so masked words can't be predicted",
            hint="use --task feature-extraction",
            field="task",
            value="fill-mask",
        )
    special = set(tokenizer.all_special_ids)
    ordinary = np.array([index for index in range(vocabulary) if index not in special])
    hidden: list[Encoded] = []
    labels: list[list[int]] = []
    for position, row in enumerate(rows):
        draw = np.random.default_rng((seed, position))
        ids = list(row["input_ids"])
        candidates = [index for index, token in enumerate(ids) if token not in special]
        count = min(len(candidates), max(1, round(fraction * len(candidates))))
        label = [UNLABELLED] * len(ids)
        for index in draw.choice(candidates, size=count, replace=False) if candidates else ():
            label[index] = ids[index]
            fate = draw.random()
            if fate < 0.8:
                ids[index] = tokenizer.mask_token_id
            elif fate < 0.9:
                ids[index] = int(draw.choice(ordinary))
        hidden.append({**row, "input_ids": ids})
        labels.append(label)
    return hidden, labels


def pad_labels(labels: Sequence[Sequence[int]], like: Tensor, side: str) -> Tensor:
    """``[batch, longest]`` of the labels beside padded ``input_ids``, -100 where there is padding."""
    padded = torch.full(like.shape, UNLABELLED, dtype=torch.long)
    for row, label in enumerate(labels):
        if side == "left":
            padded[row, like.shape[1] - len(label) :] = torch.tensor(label)
        else:
            padded[row, : len(label)] = torch.tensor(label)
    return padded
