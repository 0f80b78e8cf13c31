"""Differences to the unpruned model: paired, so what varies alike in both cancels."""

from __future__ import annotations

import numpy as np
import pytest

from prunectl.evaluation.latency import Benchmark, Latency
from prunectl.evaluation.quality import Reference, compare, summarise

TEXTS = 2000


def classifier(predicted: np.ndarray, expected: np.ndarray, loss: np.ndarray) -> Reference:
    return Reference("text-classification", len(expected), {"predicted": predicted, "expected": expected, "loss": loss})


@pytest.fixture
def pair() -> tuple[Reference, Reference]:
    """A model, and one that answers 3 in 100 texts otherwise."""
    draw = np.random.default_rng(0)
    expected = draw.integers(0, 4, TEXTS)
    before = np.where(draw.random(TEXTS) < 0.8, expected, (expected + 1) % 4)
    after = np.where(draw.random(TEXTS) < 0.03, (before + 1) % 4, before)
    loss = draw.gamma(2.0, 0.5, TEXTS)
    return classifier(before, expected, loss), classifier(after, expected, loss + draw.normal(0.1, 0.05, TEXTS))


def test_the_error_of_a_difference_is_that_of_the_differences(pair: tuple[Reference, Reference]) -> None:
    before, after = pair
    found = summarise(after, before, seed=0)
    losses = after.arrays["loss"] - before.arrays["loss"]
    assert found["eval_loss"].difference_stderr == pytest.approx(losses.std(ddof=1) / np.sqrt(TEXTS), rel=1e-6)
    assert found["eval_loss"].difference_stderr < found["eval_loss"].stderr / 5  # type: ignore[operator]
    hits = [(side.arrays["predicted"] == side.arrays["expected"]) * 1.0 for side in (after, before)]
    wanted = (hits[0] - hits[1]).std(ddof=1) / np.sqrt(TEXTS)
    assert found["eval_accuracy"].difference_stderr == pytest.approx(wanted, rel=1e-6)
    # The classes are balanced here, so macro F1 varies about as accuracy does.
    assert found["eval_f1"].difference_stderr == pytest.approx(wanted, rel=0.3)


def test_likeness_is_a_difference_already(pair: tuple[Reference, Reference]) -> None:
    before, after = pair
    measured = compare(summarise(before, before, seed=0), summarise(after, before, seed=0))
    assert measured["eval_agreement"].difference_stderr == measured["eval_agreement"].stderr
    assert measured["eval_accuracy"].difference_stderr is not None


def test_a_speedup_keeps_the_pairs_together() -> None:
    draw = np.random.default_rng(1)
    busy = draw.uniform(1.0, 3.0, 60)  # a busy machine slows both calls of a round
    seconds = {"before": list(busy * 2), "after": list(busy * draw.normal(1.0, 0.01, 60))}
    latencies = {name: Latency(float(np.median(times)), 0.0, 0.0) for name, times in seconds.items()}
    ratio, stderr = Benchmark(latencies, {}, seconds).speedup("before", "after")
    assert ratio == pytest.approx(2.0, rel=0.05)
    assert stderr is not None and 0 < stderr < 0.1
    alone = {**seconds, "before": [5.0, 5.0], "after": [2.0, 2.0]}
    assert Benchmark(latencies, {}, alone).speedup("before", "after")[1] is None
