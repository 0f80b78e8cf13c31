"""The recovery that a recipe asks for, on the model that its pruning left."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pydantic import BaseModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import InvalidData
from prunectl.evaluation.data import Example
from prunectl.evaluation.heads import Asked
from prunectl.evaluation.objectives import Objective
from prunectl.evaluation.tasks import Task
from prunectl.pruning import weights
from prunectl.pruning.engine import Pruned
from prunectl.recipe import Recipe
from prunectl.recovery.distillation import Distillation
from prunectl.recovery.texts import TrainingTexts
from prunectl.recovery.training import Batch, Course, Keeper, Schedule, train, zeros_of

logger = logging.getLogger(__name__)

BATCH_SIZE = 32
RATES = {"finetune": 5e-5, "distill": 3e-5}
"""AdamW's highest rate where the recipe names none."""
VALIDATION_SHARE, VALIDATION_MOST = 0.1, 256
"""Of the training examples, kept apart to stop early; never evaluation examples."""


class Recovery(BaseModel):
    """What was done, for the result: ``examples`` were trained on, ``validation_examples`` decided when to stop."""

    method: str
    course: Course
    examples: int
    validation_examples: int
    rate: float


def recover(
    model: PreTrainedModel,
    recipe: Recipe,
    examples: Sequence[Example],
    *,
    task: Task,
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int,
    pruned: Pruned,
    load_teacher: Callable[[], PreTrainedModel],
    keeper: Keeper | None,
    workspace: Path,
    progress: Callable[[float], None] | None = None,
) -> Recovery:
    """Train ``model`` in place as ``recipe.recover`` says; it ends as good on the validation examples as it began, or
    better.

    ``finetune`` needs labels where the task has them, ``distill`` never does. ``load_teacher`` gives the unpruned
    model. Raises InvalidData (field ``recover_data``) where there are too few examples or no labels.
    """
    assert recipe.recover != "none"
    if len(examples) < 2:
        raise InvalidData(
            "no examples are left to recover on: all are needed for evaluation",
            hint="name others with --recover-data, or evaluate on fewer with --max-samples",
            field="recover_data",
        )
    held = min(VALIDATION_MOST, max(1, round(VALIDATION_SHARE * len(examples))))
    texts = partial(TrainingTexts, task, model, tokenizer, max_length=max_length, seed=recipe.seed)
    training, validation = texts(examples[held:]), texts(examples[:held])
    if recipe.recover == "finetune":
        _refuse_unlabelled(task, training)
        loss: Callable[[PreTrainedModel, Batch], Tensor] = Objective(task, tokenizer, Asked([], None, "data")).loss
    else:
        removed = pruned.structure.removed_layers
        teacher = load_teacher().to(model.device)  # type: ignore[arg-type]
        loss = Distillation(task, teacher, removed=removed, vocabulary=pruned.vocabulary).loss
    rate = recipe.recover_rate or RATES[recipe.recover]
    logger.info("recovering by %s on %d examples, stopping by %d", recipe.recover, len(training), len(validation))
    course = train(
        model,
        loss,
        batches=lambda epoch: list(training.batches(epoch, BATCH_SIZE)),
        validation=list(validation.batches(0, BATCH_SIZE, shuffled=False)),
        schedule=Schedule(
            recipe.recover_epochs,
            rate,
            recipe.seed,
            dropout=recipe.recover == "finetune",  # what the teacher says it says without, and noise is no part of it
            checkpointing=bool(recipe.gradient_checkpointing),
        ),
        zeros=zeros_of(model, weights.prunable(model)) if pruned.zeroed else None,
        keeper=keeper,
        workspace=workspace,
        progress=progress,
    )
    return Recovery(
        method=recipe.recover, course=course, examples=len(training), validation_examples=len(validation), rate=rate
    )


def _refuse_unlabelled(task: Task, training: TrainingTexts) -> None:
    if not training.labelled:
        raise InvalidData(
            f"fine-tuning for {task} needs labels, and the examples have none",
            hint="--recover distill learns from the unpruned model instead",
            field="recover_data",
        )
