"""Quality: what a model gets right, with a standard error and the number of texts beside every figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import CorruptWeights
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import by_length, collate
from prunectl.evaluation.estimates import Array, Quality
from prunectl.evaluation.heads import head_for
from prunectl.evaluation.heads.base import on_device
from prunectl.evaluation.tasks import Task
from prunectl.schemas import Measure

FIDELITY = ("eval_agreement", "eval_cosine", "eval_overlap_at_10")
"""Likeness to the unpruned model, which is 1.0 like itself."""


@dataclass(frozen=True)
class Reference:
    """What a model said of each evaluation text; of the unpruned model, what the pruned one is compared with.

    By task, with the texts in their order: language models have ``predicted``, ``expected`` and ``loss`` ``[tokens]``
    of all tokens asked for, and ``text`` ``[tokens]``, which text each is from; classifiers have ``predicted``
    ``[texts]`` and, with labels, ``expected`` and ``loss``; ``feature-extraction`` has ``embedding`` ``[texts,
    hidden]``; the others what `Head.gather` of their module in `prunectl.evaluation.heads` says.
    """

    task: Task
    texts: int
    arrays: Mapping[str, Array]

    def save(self, path: Path) -> None:
        """Write a safetensors file, so that the pruned model can be measured later in another process."""
        save_file(dict(self.arrays), path, metadata={"task": self.task, "texts": str(self.texts)})

    @classmethod
    def load(cls, path: Path) -> Reference:
        with safe_open(path, "numpy") as file:
            stated, names = file.metadata(), file.keys()
            return cls(
                cast(Task, stated["task"]), int(stated["texts"]), {name: file.get_tensor(name) for name in names}
            )


@torch.no_grad()
def reference(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task,
    examples: Sequence[Example],
    *,
    max_length: int,
    batch_size: int = 32,
    seed: int,
    kept_ids: Sequence[int] | None = None,
    original_ids: Sequence[int] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Reference:
    """Run the model once over the examples and keep what it said. ``seed`` chooses the masked words.

    Two models of which one has a smaller vocabulary are compared on the same words and in the same numbers by
    ``kept_ids`` for the larger (random words are drawn from these ids alone) and ``original_ids`` for the smaller (each
    of its ids in the larger one's numbers).

    Raises InvalidData (field ``data``) where no text has a word to mask, CorruptWeights where the model computes values
    that are not finite.
    """
    head = head_for(task)
    asked = head.ask(model, tokenizer, examples, max_length=max_length, seed=seed, replacements=kept_ids)
    said: dict[int, dict[str, Array]] = {}
    for indices in by_length(asked.rows, batch_size):
        batch = collate(tokenizer, [asked.rows[index] for index in indices])
        if asked.targets is not None and head.reports_loss:
            batch[head.target_name] = head.targets([asked.targets[index] for index in indices])
        batch = on_device(batch, model.device)
        said |= dict(zip(indices, head.answers(head.said(model, batch), batch), strict=True))
        if progress is not None:
            progress(len(said) / len(asked.rows))
    arrays = head.gather(asked, [said[index] for index in range(len(asked.rows))], examples, model)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise CorruptWeights(
            "the model computes values that are not finite", hint="check its weights for NaN", field="model"
        )
    if original_ids is not None and head.over_vocabulary:
        numbers = np.array(original_ids)
        arrays |= {name: numbers[arrays[name]] for name in ("predicted", "expected")}
    return Reference(task, len(examples), arrays)


def summarise(said: Reference, unpruned: Reference | None, *, seed: int) -> dict[str, Quality]:
    """The metrics of what a model said: those of the labels, and likeness to ``unpruned`` where it is given.

    ``seed`` draws the bootstrap of ``eval_f1``. ``eval_overlap_at_10`` needs 12 texts and is left out below.
    """
    head = head_for(said.task)
    mine = head.estimates(said.arrays, seed)
    found = {name: estimate.quality() for name, estimate in mine.items()}
    if unpruned is None:
        return found
    theirs = head.estimates(unpruned.arrays, seed)
    for name in found.keys() & theirs.keys():
        found[name] = replace(found[name], difference_stderr=mine[name].difference_stderr(theirs[name]))
    return found | {name: each.quality() for name, each in head.likeness(said.arrays, unpruned.arrays).items()}


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task,
    examples: Sequence[Example],
    *,
    max_length: int,
    batch_size: int = 32,
    seed: int,
    reference: Reference | None = None,
    original_ids: Sequence[int] | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Quality]:
    """`summarise` of one run of the model; ``reference`` is what the unpruned model said of the same examples.

    ``original_ids``: see `reference`.
    """
    said = _run(
        model,
        tokenizer,
        task,
        examples,
        max_length=max_length,
        batch_size=batch_size,
        seed=seed,
        original_ids=original_ids,
        progress=progress,
    )
    return summarise(said, reference, seed=seed)


def compare(before: Mapping[str, Quality], after: Mapping[str, Quality]) -> dict[str, Measure]:
    """Each metric's ``before`` and ``after``; ``stderr`` and ``n`` are those of ``after``.

    The fidelity metrics' ``before`` is 1.0: the unpruned model agrees with itself.
    """
    merged: dict[str, Measure] = {}
    for name, quality in after.items():
        base = 1.0 if name in FIDELITY else before[name].value if name in before else None
        # What is unlike the unpruned model is a difference already.
        paired = quality.stderr if name in FIDELITY else quality.difference_stderr
        merged[name] = Measure(
            before=base, after=quality.value, stderr=quality.stderr, n=quality.n, difference_stderr=paired
        )
    return merged


_run = reference  # `evaluate` has an argument of that name
