"""Estimates: figures over evaluation texts, each with its standard error, alone and against another model's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

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


class Estimate(Protocol):
    """A figure of one model on the evaluation texts."""

    def quality(self) -> Quality: ...

    def difference_stderr(self, other: Any) -> float | None:
        """Standard error of the difference to ``other``, the same figure of another model on the same texts."""
        ...


@dataclass(frozen=True)
class Mean:
    """The mean of ``values`` ``[values]``, of which ``text`` ``[values]`` says which text each is from."""

    values: Array
    text: Array

    def quality(self) -> Quality:
        return mean_by_text(self.values, self.text)

    def difference_stderr(self, other: Mean) -> float | None:
        if not np.array_equal(self.text, other.text):  # other words of the texts: nothing to pair
            return None
        return mean_by_text(self.values.astype(np.float64) - other.values, self.text).stderr


@dataclass(frozen=True)
class Exponential:
    """e to a mean, such as perplexity; its standard error by the delta method: e^mean x that of the mean."""

    mean: Mean

    def quality(self) -> Quality:
        found = self.mean.quality()
        value = math.exp(min(found.value, 700.0))  # where it leaves the range of floats
        return Quality(value, None if found.stderr is None else value * found.stderr, found.n)

    def difference_stderr(self, other: Exponential) -> float | None:
        error = self.mean.difference_stderr(other.mean)
        return None if error is None else self.quality().value * error


@dataclass(frozen=True)
class Ratio:
    """Sum of ``parts`` over sum of ``wholes``, each ``[texts]``, such as micro-averaged F1: 2 hits / (found + true).

    Its standard error is that of a ratio estimator (linearised): with value r over k texts,
    sqrt(k / (k - 1) x sum (part_i - r whole_i)^2) / sum whole_i. 0 where the wholes are all 0.
    """

    parts: Array
    wholes: Array

    def quality(self) -> Quality:
        n = len(self.parts)
        return Quality(self._value(), _spread(self._influence()) if n > 1 else None, n)

    def difference_stderr(self, other: Ratio) -> float | None:
        return _spread(self._influence() - other._influence()) if len(self.parts) > 1 else None

    def _value(self) -> float:
        whole = float(self.wholes.sum())
        return float(self.parts.sum()) / whole if whole else 0.0

    def _influence(self) -> Array:
        """What each text moves the value by, ``[texts]``; they sum to 0."""
        whole = float(self.wholes.sum())
        return (self.parts - self._value() * self.wholes) / whole if whole else np.zeros(len(self.parts))


@dataclass(frozen=True)
class MacroF1:
    """Macro-averaged F1 over the classes that occur; standard errors by bootstrap over texts (200 rounds)."""

    expected: Array
    predicted: Array
    seed: int

    def quality(self) -> Quality:
        value = float(f1_score(self.expected, self.predicted, average="macro", zero_division=0))
        n = len(self.expected)
        if n < 2:
            return Quality(value, None, n)
        rounds, _ = f1_rounds(self.expected, self.predicted, self.predicted, self.seed)
        return Quality(value, float(np.std(rounds, ddof=1)), n)

    def difference_stderr(self, other: MacroF1) -> float | None:
        """Both models on the same bootstrap draws."""
        if len(self.expected) < 2:
            return None
        mine, theirs = f1_rounds(self.expected, self.predicted, other.predicted, self.seed)
        return float(np.std(mine - theirs, ddof=1))


def mean_by_text(values: Array, text: Array) -> Quality:
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


def f1_rounds(expected: Array, mine: Array, theirs: Array, seed: int) -> tuple[Array, Array]:
    """Both models' macro F1 in each of 200 draws of as many texts, with replacement: two ``[rounds]``."""
    n = len(expected)
    classes, codes = np.unique(np.concatenate([expected, mine, theirs]), return_inverse=True)
    truth, guesses = codes[:n], (codes[n : 2 * n], codes[2 * n :])
    draws = np.random.default_rng(seed).integers(0, n, (BOOTSTRAP_ROUNDS, n))
    first, second = (
        np.array([f1_of_codes(truth[rows], guess[rows], len(classes)) for rows in draws]) for guess in guesses
    )
    return first, second


def f1_of_codes(truth: Array, guess: Array, classes: int) -> float:
    """What scikit-learn computes, without its checks: those would take a second over all rounds."""
    right = np.bincount(truth[truth == guess], minlength=classes)
    seen = np.bincount(truth, minlength=classes) + np.bincount(guess, minlength=classes)
    return float(np.mean(2 * right[seen > 0] / seen[seen > 0]))


def _spread(influence: Array) -> float:
    k = len(influence)
    return math.sqrt(k / (k - 1) * float(influence @ influence))
