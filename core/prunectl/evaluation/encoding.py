"""Encoding: examples as padded batches of exactly the tensors that a model's forward takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import InvalidInput
from prunectl.evaluation import images
from prunectl.evaluation.data import Example
from prunectl.evaluation.inputs import has_decoder, image_size, reads_images, takes_decoder_inputs
from prunectl.evaluation.tasks import Task

MASKED_FRACTION = 0.15
UNLABELLED = -100
"""The label of a token that has none: the index that cross-entropy ignores."""

NOT_INPUTS = ("labels", "reference", "places")
"""What stands in a batch beside the model's inputs."""

Encoded = dict[str, Any]
"""One example: ``input_ids``, ``attention_mask`` and, where the model takes them, ``token_type_ids``, each a list; what
a decoder reads is ``decoder_input_ids``. An image is ``pixel_values`` ``[channels, height, width]``, or the picture
that gives them when its batch is made.
"""
Labels = list[list[int]]
"""For each example, the token that each place of the model's output should name; -100 where none is asked."""


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, examples: Sequence[Example], max_length: int
) -> list[Encoded]:
    """Each example's token ids, cut at ``max_length`` tokens; only the inputs that the model's forward names.

    A model of images gets the examples' pictures, or those that `images.pixels` draws for their names.
    """
    if tokenizer is None or reads_images(model):
        return [{"pixel_values": images.pixels_of(example, image_size(model))} for example in examples]
    taken = set(inspect.signature(model.base_model.forward).parameters)
    encoded = tokenized(tokenizer, examples, max_length)
    names = [name for name in encoded if name in taken]
    return [{name: encoded[name][index] for name in names} for index in range(len(examples))]


def tokenized(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> Any:
    """The tokenizer's whole answer for the examples, pairs as pairs, cut at ``max_length`` tokens and not padded."""
    pairs = any(example.text_pair for example in examples)
    return tokenizer(
        [example.text for example in examples],
        [example.text_pair or "" for example in examples] if pairs else None,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=True,
    )


def collate(tokenizer: PreTrainedTokenizerBase | None, rows: Sequence[Encoded]) -> dict[str, Tensor]:
    """Tensors ``[batch, longest]`` padded on the right, where padding shifts no position and no decoder looks."""
    if tokenizer is None or "pixel_values" in rows[0]:
        return {"pixel_values": torch.stack([images.tensor_of(row["pixel_values"]) for row in rows])}
    token = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None), 0)
    padding = {"input_ids": token, "decoder_input_ids": token, "token_type_ids": tokenizer.pad_token_type_id}
    padding["places"] = UNLABELLED
    return {name: _padded([row[name] for row in rows], padding.get(name, 0)) for name in rows[0]}


def by_length(rows: Sequence[Encoded], batch_size: int) -> Iterator[list[int]]:
    """Indices of ``rows`` in batches of similar length, longest first: little padding, and memory peaks at once."""
    lengths = [len(row.get("input_ids", ())) + len(row.get("decoder_input_ids", ())) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: (-lengths[index], index))
    return (order[start : start + batch_size] for start in range(0, len(order), batch_size))


def ask(
    task: Task,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    *,
    max_length: int,
    seed: int,
    replacements: Sequence[int] | None = None,
) -> tuple[list[Encoded], Labels]:
    """What a language model is shown, and the tokens that it should name.

    fill-mask: see `mask_words`. text-generation: each token of the text from those before it. text2text-generation: the
    example's ``text_pair`` from its ``text``; the text itself where there is no pair, from the text with masked words
    (`mask_words`) where the tokenizer has a mask token (the denoising of BART, Lewis et al. 2020, by single tokens) and
    from itself where it has none.
    """
    if task == "text2text-generation" and paired(examples):
        sources = [replace(example, text_pair=None) for example in examples]
        targets = [Example(example.text_pair or "") for example in examples]
        rows = encode(model, tokenizer, sources, max_length)
        return _taught(model, rows, [row["input_ids"] for row in encode(model, tokenizer, targets, max_length)])
    rows = encode(model, tokenizer, examples, max_length)
    if task == "text-generation":
        return rows, [[*row["input_ids"][1:], UNLABELLED] for row in rows]
    if task == "text2text-generation":
        targets_of = [list(row["input_ids"]) for row in rows]
        if tokenizer.mask_token_id is not None:
            rows, _ = mask_words(tokenizer, rows, model.config.vocab_size, seed, replacements=replacements)
        return _taught(model, rows, targets_of)
    return mask_words(tokenizer, rows, model.config.vocab_size, seed, replacements=replacements)


def paired(examples: Sequence[Example]) -> bool:
    """Whether each example has a second text."""
    return all(example.text_pair for example in examples)


def probe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, examples: Sequence[Example], max_length: int
) -> dict[str, Tensor]:
    """A small batch of real inputs for the whole model, on its device; a decoder reads what the encoder reads."""
    if has_decoder(model):
        examples = [replace(example, text_pair=None) for example in examples]
    rows = encode(model, tokenizer, examples, max_length)
    if type(model).__name__.endswith("ForSequenceClassification") and getattr(model.config, "pad_token_id", 0) is None:
        rows = rows[:1]  # such a classifier can't tell padding from text
    inputs = collate(tokenizer, rows)
    if takes_decoder_inputs(model):
        inputs["decoder_input_ids"] = inputs["input_ids"].clone()
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def mask_words(
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Encoded],
    vocabulary: int,
    seed: int,
    fraction: float = MASKED_FRACTION,
    *,
    replacements: Sequence[int] | None = None,
) -> tuple[list[Encoded], list[list[int]]]:
    """(rows with hidden tokens, labels with -100 elsewhere) for masked language modelling.

    ``fraction`` of a text's tokens, at least one and never a special one, are predicted; 80 % of those show the mask
    token, 10 % a random token and 10 % themselves (Devlin et al. 2019, section 3.1). Each text's draw depends on
    ``seed`` and its position alone, so neither batch size nor model changes it. ``replacements`` are the ids that
    random tokens are drawn from (None: all of ``vocabulary``); two vocabularies of one length, in one order, get the
    same draws. Raises InvalidInput (field ``task``) where the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise InvalidInput(
            "the tokenizer has no mask token, so masked words can't be predicted",
            hint="use --task feature-extraction",
            field="task",
            value="fill-mask",
        )
    special = set(tokenizer.all_special_ids)
    ordinary = np.array([index for index in replacements or range(vocabulary) if index not in special])
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


def pad_labels(labels: Sequence[Sequence[int]]) -> Tensor:
    """``[batch, longest]`` of labels, -100 where there is padding."""
    return _padded(labels, UNLABELLED)


def _padded(rows: Sequence[Sequence[int]], filling: int) -> Tensor:
    padded = torch.full((len(rows), max(map(len, rows))), filling, dtype=torch.long)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = torch.tensor(row, dtype=torch.long)
    return padded


def _taught(model: PreTrainedModel, rows: list[Encoded], targets: Labels) -> tuple[list[Encoded], Labels]:
    """Rows whose decoder reads the target one place later than it should say it."""
    start = model.config.decoder_start_token_id
    # mBART starts with the language, which its texts end in.
    shifted = [[target[-1] if start is None else start, *target[:-1]] for target in targets]
    return [{**row, "decoder_input_ids": ids} for row, ids in zip(rows, shifted, strict=True)], targets
