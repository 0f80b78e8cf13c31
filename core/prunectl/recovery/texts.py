"""What a model is trained on: the examples of a task in shuffled batches, masked anew in each epoch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import by_length
from prunectl.evaluation.heads import Asked
from prunectl.evaluation.objectives import Objective, asked
from prunectl.evaluation.tasks import TOKEN_TASKS, Task

POOL_BATCHES = 32
"""Texts are sorted by length within random pools of so many batches: little padding, and batches that differ."""


class TrainingTexts:
    """Examples of ``task`` for ``model``, which is the pruned one: its tokenizer and its vocabulary."""

    def __init__(
        self,
        task: Task,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        examples: Sequence[Example],
        *,
        max_length: int,
        seed: int,
    ) -> None:
        self.task = task
        self._model, self._tokenizer, self._examples = model, tokenizer, list(examples)
        self._max_length, self._seed = max_length, seed
        self._asked = None if task in TOKEN_TASKS else self._ask(0)

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def labelled(self) -> bool:
        """Whether each example says what is right: its label; a language model's text does so itself."""
        return self._asked is None or self._asked.targets is not None

    def batches(self, epoch: int, batch_size: int, *, shuffled: bool = True) -> Iterator[dict[str, Tensor]]:
        """Inputs ``[batch, longest]`` and, where `labelled`, ``labels``; the same for the same epoch and seed."""
        objective = self._objective(epoch)
        count = len(objective)
        if not shuffled:
            yield from objective.batches(batch_size)
            return
        draw = random.Random(f"{self._seed}/{epoch}")
        order = list(range(count))
        draw.shuffle(order)
        for start in range(0, count, batch_size * POOL_BATCHES):
            pool = order[start : start + batch_size * POOL_BATCHES]
            groups = [[pool[place] for place in group] for group in by_length(objective.rows_at(pool), batch_size)]
            draw.shuffle(groups)
            for group in groups:
                yield objective.batch(group)

    def _objective(self, epoch: int) -> Objective:
        return Objective(self.task, self._tokenizer, self._asked or self._ask(epoch))

    def _ask(self, epoch: int) -> Asked:
        return asked(
            self.task,
            self._model,
            self._tokenizer,
            self._examples,
            self._max_length,
            seed=self._seed + epoch,
            field="recover_data",
        )
