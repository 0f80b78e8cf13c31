"""Scores of answers and of entities, by hand and against seqeval."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from seqeval.metrics import f1_score

from prunectl.evaluation.entities import entity_counts, has_entities
from prunectl.evaluation.estimates import Mean, Ratio
from prunectl.evaluation.squad import normalised, scores


@pytest.mark.parametrize(
    ("predicted", "answers", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("the big Eiffel Tower", ["Eiffel Tower", "Paris"], 0.0, 0.8),
        ("Paris Paris", ["Paris"], 0.0, 2 / 3),
        ("Rome", ["Paris"], 0.0, 0.0),
        ("", [], 1.0, 1.0),
        ("Paris", [], 0.0, 0.0),
        ("", ["Paris"], 0.0, 0.0),
        ("the", ["a", "Paris"], 0.0, 0.0),
    ],
)
def test_squad(predicted: str, answers: list[str], exact: float, f1: float) -> None:
    assert scores(predicted, answers) == (exact, pytest.approx(f1))


def test_normalising() -> None:
    assert normalised(" The  cat's an (animal), theatre ") == "cats animal theatre"


def test_entity_f1_is_seqevals() -> None:
    draw = random.Random(0)
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    texts = [[draw.choices(names, k=12) for _ in range(2)] for _ in range(30)]
    counts = np.array([entity_counts(expected, predicted) for expected, predicted in texts])
    found = Ratio(2.0 * counts[:, 0], counts[:, 1] + counts[:, 2]).quality()
    assert 0 < found.value == pytest.approx(f1_score([e for e, _ in texts], [p for _, p in texts]))
    assert found.n == 30 and found.stderr is not None


def test_entities_by_hand() -> None:
    assert entity_counts(["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "O", "O", "B-LOC"]) == (1, 2, 2)
    assert entity_counts(["I-PER", "I-LOC"], ["B-PER", "B-LOC"]) == (2, 2, 2)
    assert has_entities(["O", "B-X", "E-X"]) and not has_entities(["NOUN", "O"]) and not has_entities(["LABEL_0"])


def test_a_ratio_of_equal_texts_has_the_error_of_a_mean() -> None:
    values, text = np.array([1.0, 0.0, 1.0, 1.0]), np.arange(4)
    ratio, mean = Ratio(values, np.ones(4)), Mean(values, text)
    assert ratio.quality() == mean.quality()
    assert ratio.difference_stderr(ratio) == 0.0
    assert ratio.difference_stderr(Ratio(1 - values, np.ones(4))) == pytest.approx(
        mean.difference_stderr(Mean(1 - values, text))
    )
    assert Ratio(np.zeros(2), np.zeros(2)).quality().value == 0.0
    assert Ratio(np.ones(1), np.ones(1)).quality().stderr is None and math.isfinite(ratio.quality().value)
