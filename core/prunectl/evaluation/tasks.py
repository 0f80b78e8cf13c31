"""Tasks: what a checkpoint's head can be measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from prunectl.errors import InvalidInput, UnsupportedArchitecture, nearest
from prunectl.pruning.architectures import family_of

Task = Literal[
    "fill-mask",
    "text-classification",
    "token-classification",
    "question-answering",
    "text-generation",
    "text2text-generation",
    "image-classification",
    "feature-extraction",
]
LabelKind = Literal["label", "tags", "answers", "pair"]
"""What of an example says what is right: of a pair the second text."""


@dataclass(frozen=True, slots=True)
class TaskKind:
    """What a task is, apart from torch; what is asked and measured is in `prunectl.evaluation.heads`."""

    endings: tuple[str, ...]
    """Of transformers' class names with this head."""
    labels: LabelKind | None
    primary: str
    """The metric that stands for quality where there are labels."""
    fidelity: str = "eval_agreement"
    """The metric that does without any."""
    usual_length: int = 128
    """Tokens of an example where no number is named and the model takes more."""
    hub_metrics: Mapping[str, tuple[str, dict[str, Any] | None]] = field(default_factory=dict)
    """Our metric -> its name on the Hub, and its arguments there."""


RETRIEVAL = ("eval_mrr_at_10", "eval_recall_at_1", "eval_recall_at_10")
_HubMetrics = Mapping[str, tuple[str, dict[str, Any] | None]]
_ACCURACY: _HubMetrics = {"eval_accuracy": ("accuracy", None)}
_MACRO: _HubMetrics = {**_ACCURACY, "eval_f1": ("f1", {"average": "macro"})}
_KINDS: dict[Task, TaskKind] = {
    "fill-mask": TaskKind(("ForMaskedLM",), None, "eval_accuracy"),
    "text-classification": TaskKind(("ForSequenceClassification",), "label", "eval_accuracy", hub_metrics=_MACRO),
    "token-classification": TaskKind(
        ("ForTokenClassification",), "tags", "eval_f1", hub_metrics={**_ACCURACY, "eval_f1": ("f1", None)}
    ),
    "question-answering": TaskKind(
        ("ForQuestionAnswering",),
        "answers",
        "eval_f1",
        usual_length=384,
        hub_metrics={"eval_exact_match": ("exact_match", None), "eval_f1": ("f1", None)},
    ),
    "text-generation": TaskKind(
        ("ForCausalLM", "LMHeadModel"),
        None,
        "eval_accuracy",
        hub_metrics={"eval_perplexity": ("perplexity", None)},
    ),
    "text2text-generation": TaskKind(
        ("ForConditionalGeneration", "MTModel"), None, "eval_accuracy", hub_metrics=_ACCURACY
    ),
    "image-classification": TaskKind(("ForImageClassification",), "label", "eval_accuracy", hub_metrics=_MACRO),
    "feature-extraction": TaskKind(
        ("Model",),
        "pair",
        "eval_cosine",
        "eval_cosine",
        hub_metrics={name: (name.removeprefix("eval_"), None) for name in RETRIEVAL},
    ),
}
TASKS: tuple[Task, ...] = get_args(Task)
TOKEN_TASKS: tuple[Task, ...] = ("fill-mask", "text-generation", "text2text-generation")
"""Tasks that are asked for tokens."""
# The more special endings first: every other class name ends in "Model", too.
_HEADS: dict[str, Task] = {ending: task for task, kind in _KINDS.items() for ending in kind.endings}
_NEEDED: dict[LabelKind, tuple[str, str]] = {
    "label": ("labels", "classification head"),
    "tags": ("tags", "token-classification head"),
    "answers": ("answers", "question-answering head"),
    "pair": ("queries with their passages", "encoder alone"),
}
_PADDED_POSITIONS = ("roberta", "xlm-roberta", "mpnet")
"""Families that count positions from the padding id + 1: 514 positions are 512 tokens."""


def kind_of(task: Task) -> TaskKind:
    return _KINDS[task]


def task_of(config: Mapping[str, Any], requested: str = "auto", labels: LabelKind | None = None) -> Task:
    """The task to measure a model by: what its head does, or the ``requested`` one if the head can do it.

    ``config`` is config.json, ``labels`` the kind that the data has. Raises InvalidInput (field ``data``) for labelled
    data where no head can use the labels, InvalidInput (field ``task``) for a task that the head can't do, and UnsupportedArchitecture for a
    head that isn't measured.
    """
    architecture = architecture_of(config)
    possible = _possible(config, architecture)
    if requested == "auto":
        if labels is not None and kind_of(possible[0]).labels != labels:
            given, head = _NEEDED[labels]
            other = next((task for task in possible if kind_of(task).labels == labels), None)
            raise InvalidInput(
                f"the data has {given}, but {architecture} has no {head} to use them",
                hint=f"use --task {other}" if other else f"use a fine-tuned checkpoint, or --task {possible[0]}",
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
    """Whether a model takes images. Raises UnsupportedArchitecture for an unknown family."""
    return family_of(config).input_name == "pixel_values"


def refuse_builtin(config: Mapping[str, Any], field: str) -> None:
    """Raises InvalidInput (``field``) for the built-in text given to a model of images."""
    if reads_images(config):
        raise InvalidInput(
            f"{architecture_of(config)} takes images, and the built-in data is text",
            hint=f"give a folder of images, a directory for each class, or leave --{field} out",
            field=field,
        )


def text_limit(
    config: Mapping[str, Any],
    requested: int | None = None,
    *,
    field: str = "max_length",
    usual: int = 128,
) -> int:
    """Tokens a text may have, special ones included: ``requested``, or ``usual`` or the model's limit where that is
    less.

    Raises InvalidInput naming ``field`` where more is requested than the model has positions.
    """
    positions = config.get("n_positions" if config.get("model_type") == "gpt2" else "max_position_embeddings")
    limit = positions if isinstance(positions, int) and positions > 0 else None
    if limit is not None and config.get("model_type") in _PADDED_POSITIONS:
        limit -= int(config.get("pad_token_id") or 0) + 1
    if requested is None:
        return min(usual, limit) if limit is not None else usual
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
