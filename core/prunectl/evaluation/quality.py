"""Quality: what a model gets right, with a standard error and the number of texts beside every figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.metrics import accuracy_score, f1_score
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.errors import CorruptWeights, InvalidData
from prunectl.evaluation import outputs
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import UNLABELLED, ask, by_length, collate, encode, pad_labels
from prunectl.evaluation.tasks import TOKEN_TASKS, Task
from prunectl.schemas import Measure

FIDELITY = ("eval_agreement", "eval_cosine", "eval_overlap_at_10")
"""Likeness to the unpruned model, which is 1.0 like itself."""
NEIGHBOURS = 10
BOOTSTRAP_ROUNDS = 200
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Quality:
    """``n`` counts texts; ``stderr`` is None where it can't be estimated (a single text).

    ``difference_stderr`` is the standard error of the difference to the unpruned model, paired text by text; None where
    there was none to compare with.
    """

    value: float
    stderr: float | None
    n: int
    difference_stderr: float | None = None


@dataclass(frozen=True)
class Reference:
    """What a model said of each evaluation text; of the unpruned model, what the pruned one is compared with.

    By task, with the texts in their order: language models have ``predicted``, ``expected`` and ``loss`` ``[tokens]``
    of all tokens asked for, and ``text`` ``[tokens]``, which text each is from; classifiers have ``predicted``
    ``[texts]`` and, with labels, ``expected`` and ``loss``; ``feature-extraction`` has ``embedding`` ``[texts,
    hidden]``.
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
    labels: Sequence[Any] = [example.label for example in examples]
    labelled = task == "text-classification" and all(isinstance(label, int) for label in labels)
    if task in TOKEN_TASKS:
        assert tokenizer is not None
        rows, labels = ask(task, model, tokenizer, examples, max_length=max_length, seed=seed, replacements=kept_ids)
    else:
        rows = encode(model, tokenizer, examples, max_length)
    said: dict[int, dict[str, Array]] = {}
    for indices in by_length(rows, batch_size):
        batch = collate(tokenizer, [rows[index] for index in indices])
        inputs = {name: value.to(model.device) for name, value in batch.items()}
        if task == "feature-extraction":
            for index, embedding in zip(indices, outputs.embeddings(model, inputs).float().cpu().numpy(), strict=True):
                said[index] = {"embedding": embedding[None]}
        elif task in TOKEN_TASKS:
            said |= _of_tokens(model, inputs, pad_labels([labels[index] for index in indices]), indices)
        else:
            expected = torch.tensor([labels[index] for index in indices]) if labelled else None
            said |= _of_classes(model, inputs, expected, indices)
        if progress is not None:
            progress(len(said) / len(rows))
    arrays = {name: np.concatenate([said[index][name] for index in range(len(rows))]) for name in said[0]}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise CorruptWeights(
            "the model computes values that are not finite", hint="check its weights for NaN", field="model"
        )
    if task in TOKEN_TASKS and not arrays["text"].size:
        raise InvalidData("no evaluation text has a word to predict", field="data")
    if original_ids is not None and "text" in arrays:  # what is said of tokens, not of whole texts
        numbers = np.array(original_ids)
        arrays |= {name: numbers[arrays[name]] for name in ("predicted", "expected")}
    return Reference(task, len(rows), arrays)


def summarise(said: Reference, unpruned: Reference | None, *, seed: int) -> dict[str, Quality]:
    """The metrics of what a model said: those of the labels, and likeness to ``unpruned`` where it is given.

    ``seed`` draws the bootstrap of ``eval_f1``. ``eval_overlap_at_10`` needs 12 texts and is left out below.
    """
    found: dict[str, Quality] = {}
    mine = said.arrays
    text = mine.get("text", np.arange(said.texts))
    if "loss" in mine:
        right = (mine["predicted"] == mine["expected"]).astype(np.float64)
        found["eval_loss"] = _mean_by_text(mine["loss"], text)
        found["eval_accuracy"] = _mean_by_text(right, text)
    if said.task == "text-generation":
        found["eval_perplexity"] = _exponential(found["eval_loss"])
    if "loss" in mine and said.task == "text-classification":
        found["eval_accuracy"] = Quality(
            float(accuracy_score(mine["expected"], mine["predicted"])), found["eval_accuracy"].stderr, said.texts
        )
        found["eval_f1"] = _macro_f1(mine["expected"], mine["predicted"], seed)
    if unpruned is None:
        return found
    theirs = unpruned.arrays
    found |= _paired(found, mine, theirs, text, seed)
    if said.task == "feature-extraction":
        cosine = np.einsum("th,th->t", mine["embedding"], theirs["embedding"], dtype=np.float64)
        found["eval_cosine"] = _mean_by_text(cosine, text)
        if said.texts > NEIGHBOURS + 1:
            overlap = _neighbour_overlap(mine["embedding"], theirs["embedding"])
            found["eval_overlap_at_10"] = _mean_by_text(overlap, text)
    else:
        same = (mine["predicted"] == theirs["predicted"]).astype(np.float64)
        found["eval_agreement"] = _mean_by_text(same, text)
    return found


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


def _of_tokens(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor, indices: Sequence[int]
) -> dict[int, dict[str, Array]]:
    positions = wanted != UNLABELLED
    expected = wanted[positions]
    logits = outputs.token_logits(model, inputs, positions.to(model.device)).float()
    loss = cross_entropy(logits, expected.to(logits.device), reduction="none").cpu().numpy()
    predicted = logits.argmax(-1).cpu().numpy()
    ends = np.cumsum(positions.sum(1).numpy())[:-1]
    parts = (np.split(array, ends) for array in (predicted, expected.numpy(), loss))
    return {
        index: {"predicted": p, "expected": e, "loss": x, "text": np.full(len(p), index)}
        for index, p, e, x in zip(indices, *parts, strict=True)
    }


def _of_classes(
    model: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    expected: torch.Tensor | None,
    indices: Sequence[int],
) -> dict[int, dict[str, Array]]:
    logits = outputs.class_logits(model, inputs).float().cpu()
    arrays = {"predicted": logits.argmax(-1).numpy()}
    if expected is not None:
        arrays |= {"expected": expected.numpy(), "loss": cross_entropy(logits, expected, reduction="none").numpy()}
    return {index: {name: array[row : row + 1] for name, array in arrays.items()} for row, index in enumerate(indices)}


def _mean_by_text(values: Array, text: Array) -> Quality:
    """The mean of all values; its standard error is clustered by text, because words of one text aren't independent.

    The linearised (ratio-estimator) variance: with m_i values of sum s_i in text i and mean r,
    sqrt(k / (k - 1) x sum (s_i - r m_i)^2) / sum m_i over k texts; for one value a text the usual s / sqrt(n).
    """
    value = float(np.mean(values, dtype=np.float64))
    _, cluster = np.unique(text, return_inverse=True)
    sums = np.bincount(cluster, weights=values.astype(np.float64))
    counts = np.bincount(cluster)
    k = len(counts)
    if k < 2:
        return Quality(value, None, k)
    residual = sums - value * counts
    return Quality(value, math.sqrt(k / (k - 1) * float(residual @ residual)) / int(counts.sum()), k)


def _paired(
    found: Mapping[str, Quality], mine: Mapping[str, Array], theirs: Mapping[str, Array], text: Array, seed: int
) -> dict[str, Quality]:
    """The metrics of the labels with the standard error of their difference to the unpruned model's, paired by text."""
    if "loss" not in mine or "loss" not in theirs:
        return {}
    losses = mine["loss"].astype(np.float64) - theirs["loss"]
    hits = (mine["predicted"] == mine["expected"]) * 1.0 - (theirs["predicted"] == theirs["expected"])
    errors = {"eval_loss": _mean_by_text(losses, text).stderr, "eval_accuracy": _mean_by_text(hits, text).stderr}
    if "eval_perplexity" in found:  # the delta method, as for perplexity itself
        error = errors["eval_loss"]
        errors["eval_perplexity"] = None if error is None else found["eval_perplexity"].value * error
    if "eval_f1" in found:
        errors["eval_f1"] = _macro_f1_difference(mine["expected"], mine["predicted"], theirs["predicted"], seed)
    return {name: replace(found[name], difference_stderr=error) for name, error in errors.items()}


def _exponential(loss: Quality) -> Quality:
    """Perplexity, e to the mean loss; its standard error by the delta method: e^loss x that of the loss."""
    value = math.exp(min(loss.value, 700.0))  # where it leaves the range of floats
    return Quality(value, None if loss.stderr is None else value * loss.stderr, loss.n)


def _macro_f1(expected: Array, predicted: Array, seed: int) -> Quality:
    """Macro-averaged F1 over the classes that occur; standard error by bootstrap over texts (200 rounds)."""
    value = float(f1_score(expected, predicted, average="macro", zero_division=0))
    n = len(expected)
    if n < 2:
        return Quality(value, None, n)
    return Quality(value, float(np.std(_f1_rounds(expected, predicted, predicted, seed)[0], ddof=1)), n)


def _macro_f1_difference(expected: Array, mine: Array, theirs: Array, seed: int) -> float | None:
    """Standard error of the difference of two models' macro F1: both on the same bootstrap draws."""
    if len(expected) < 2:
        return None
    of_mine, of_theirs = _f1_rounds(expected, mine, theirs, seed)
    return float(np.std(of_mine - of_theirs, ddof=1))


def _f1_rounds(expected: Array, mine: Array, theirs: Array, seed: int) -> tuple[Array, Array]:
    """Both models' macro F1 in each of 200 draws of as many texts, with replacement: two ``[rounds]``."""
    n = len(expected)
    classes, codes = np.unique(np.concatenate([expected, mine, theirs]), return_inverse=True)
    truth, guesses = codes[:n], (codes[n : 2 * n], codes[2 * n :])
    draws = np.random.default_rng(seed).integers(0, n, (BOOTSTRAP_ROUNDS, n))
    first, second = (
        np.array([_f1_of_codes(truth[rows], guess[rows], len(classes)) for rows in draws]) for guess in guesses
    )
    return first, second


def _f1_of_codes(truth: Array, guess: Array, classes: int) -> float:
    """What scikit-learn computes, without its checks: those would take a second over all rounds."""
    right = np.bincount(truth[truth == guess], minlength=classes)
    seen = np.bincount(truth, minlength=classes) + np.bincount(guess, minlength=classes)
    return float(np.mean(2 * right[seen > 0] / seen[seen > 0]))


def _neighbour_overlap(mine: Array, theirs: Array) -> Array:
    """Share of each text's 10 nearest neighbours by cosine that both models name: ``[texts]``."""
    shares = []
    for start in range(0, len(mine), 1024):  # in blocks, for the full matrix grows with the square of the texts
        near = [_nearest(vectors, start, 1024) for vectors in (mine, theirs)]
        shares += [len(np.intersect1d(a, b, assume_unique=True)) / NEIGHBOURS for a, b in zip(*near, strict=True)]
    return np.array(shares)


def _nearest(vectors: Array, start: int, size: int) -> Array:
    similarity = vectors[start : start + size] @ vectors.T
    rows = np.arange(len(similarity))
    similarity[rows, start + rows] = -np.inf  # a text isn't its own neighbour
    return np.argpartition(-similarity, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
