"""Tasks: what a checkpoint's head can be measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from prunectl.errors import InvalidInput, UnsupportedArchitecture, nearest
from prunectl.pruning.architectures import family_of

Task = Literal[
    "fill-mask",
    "text-classification",
    "text-generation",
    "text2text-generation",
    "image-classification",
    "feature-extraction",
]
TASKS: tuple[Task, ...] = get_args(Task)
TOKEN_TASKS: tuple[Task, ...] = ("fill-mask", "text-generation", "text2text-generation")
"""Tasks that are asked for tokens."""
CLASS_TASKS: tuple[Task, ...] = ("text-classification", "image-classification")

# The endings of transformers' class names, the more special ones first.
_HEADS: dict[str, Task] = {
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "text-classification",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "MTModel": "text2text-generation",
    "ForImageClassification": "image-classification",
    "Model": "feature-extraction",
}
_PADDED_POSITIONS = ("roberta", "xlm-roberta", "mpnet")
"""Families that count positions from the padding id + 1: 514 positions are 512 tokens."""


def task_of(config: Mapping[str, Any], requested: str = "auto", labelled: bool = False) -> Task:
    """The task to measure a model by: what its head does, or the ``requested`` one if the head can do it.

    ``config`` is config.json. Raises InvalidInput (field ``data``) for labelled data where no classification head can
    use the labels, InvalidInput (field ``task``) for a task that the head can't do, and UnsupportedArchitecture for a
    head that isn't measured.
    """
    architecture = architecture_of(config)
    possible = _possible(config, architecture)
    if requested == "auto":
        if labelled and possible[0] != "text-classification":
            raise InvalidInput(
                f"the data has labels, but {architecture} has no classification head to use them",
                hint=f"use a fine-tuned checkpoint, or --task {possible[0]}",
                field="data",
            )
        return possible[0]
    if requested in possible:
        return requested
    close = nearest(requested, TASKS)
    raise InvalidInput(
        f"{architecture} can't be measured on {requested!r}; it can do {' and '.join(possible)}",
        hint=f"did you mean --task {close}?" if close in possible else f"use --task {possible[0]}, or leave it out",
        field="task",
        value=requested,
    )


def architecture_of(config: Mapping[str, Any]) -> str:
    """The class name in ``architectures``; for a config without one, the bare encoder of its ``model_type``."""
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        return architectures[0]
    return f"{config.get('model_type') or 'unknown'}Model"


def reads_images(config: Mapping[str, Any]) -> bool:
    """Whether a model takes images. No image data is read yet: it is measured on random ones.

    Raises UnsupportedArchitecture for an unknown family.
    """
    return family_of(config).input_name == "pixel_values"


def refuse_data(config: Mapping[str, Any], field: str) -> None:
    """Raises InvalidInput (``field``) for texts given to a model of images, which could do nothing with them."""
    if reads_images(config):
        raise InvalidInput(
            f"{architecture_of(config)} takes images, and image data isn't read yet; it is measured by its likeness to "
            "the unpruned model on random images",
            hint=f"leave --{field} out",
            field=field,
        )


def text_limit(config: Mapping[str, Any], requested: int | None = None, *, field: str = "max_length") -> int:
    """Tokens a text may have, special ones included: ``requested``, or 128 or the model's limit where that is less.

    Raises InvalidInput naming ``field`` where more is requested than the model has positions.
    """
    positions = config.get("n_positions" if config.get("model_type") == "gpt2" else "max_position_embeddings")
    limit = positions if isinstance(positions, int) and positions > 0 else None
    if limit is not None and config.get("model_type") in _PADDED_POSITIONS:
        limit -= int(config.get("pad_token_id") or 0) + 1
    if requested is None:
        return min(128, limit) if limit is not None else 128
    if limit is not None and requested > limit:
        raise InvalidInput(
            f"{field.replace('_', '-')} {requested} is more than the model's {limit} positions",
            hint=f"use at most {limit}",
            field=field,
            value=requested,
        )
    return requested


def _possible(config: Mapping[str, Any], architecture: str) -> tuple[Task, ...]:
    """What the head does first; every model can also be measured by the embeddings of its encoder."""
    head = next((task for ending, task in _HEADS.items() if architecture.endswith(ending)), None)
    if head is None:
        raise UnsupportedArchitecture(
            f"{architecture} has a head that prunectl doesn't measure; it measures classes whose names end in "
            + ", ".join(_HEADS),
            hint="use a checkpoint with one of these heads, or a bare encoder",
            field="model",
            value=architecture,
        )
    if head == "text-classification":
        labels = config.get("id2label")
        single = isinstance(labels, Mapping) and len(labels) == 1
        if single or config.get("problem_type") in ("regression", "multi_label_classification"):
            return ("feature-extraction",)
    return (head,) if head == "feature-extraction" else (head, "feature-extraction")
