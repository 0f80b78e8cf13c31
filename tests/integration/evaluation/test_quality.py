from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from prunectl.errors import CorruptWeights
from prunectl.evaluation.data import Example
from prunectl.evaluation.estimates import f1_of_codes
from prunectl.evaluation.quality import FIDELITY, Reference, compare, evaluate, reference, summarise
from prunectl.evaluation.tasks import Task
from support.models import FAMILIES, HEADS, model, texts, tokenizer

EXAMPLES = [Example(text) for text in texts(40)]
LABELLED = [replace(example, label=index % 3) for index, example in enumerate(EXAMPLES)]
METRICS = {
    "fill-mask": {"eval_loss", "eval_accuracy", "eval_agreement"},
    "text-classification": {"eval_loss", "eval_accuracy", "eval_f1", "eval_agreement"},
    "feature-extraction": {"eval_cosine", "eval_overlap_at_10"},
}


def observe(
    family: str, task: Task, examples: list[Example] = LABELLED, *, seed: int = 0, batch_size: int = 8
) -> Reference:
    return reference(
        model(family, task, seed=seed), tokenizer(family), task, examples, max_length=24, batch_size=batch_size, seed=0
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", HEADS)
def test_every_task_has_its_metrics_with_error_and_count(family: str, task: Task, tmp_path: Path) -> None:
    unpruned = observe(family, task)
    unpruned.save(tmp_path / "reference.safetensors")
    found = evaluate(
        model(family, task, seed=1),
        tokenizer(family),
        task,
        LABELLED,
        max_length=24,
        seed=0,
        reference=Reference.load(tmp_path / "reference.safetensors"),
    )
    assert set(found) == METRICS[task]
    for quality in found.values():
        assert quality.n == 40
        assert quality.stderr is not None and math.isfinite(quality.stderr) and math.isfinite(quality.value)
    merged = compare(summarise(unpruned, unpruned, seed=0), found)
    for name, measure in merged.items():
        assert measure.after == found[name].value
        assert measure.before == (1.0 if name in FIDELITY else summarise(unpruned, None, seed=0)[name].value)


@pytest.mark.parametrize("task", HEADS)
def test_the_unpruned_model_is_like_itself_and_batch_size_changes_nothing(task: Task) -> None:
    alike = summarise(observe("bert", task, batch_size=5), observe("bert", task, batch_size=32), seed=0)
    for name in set(FIDELITY) & set(alike):
        assert alike[name].value == pytest.approx(1.0, abs=1e-6)


def test_without_labels_classification_has_fidelity_alone() -> None:
    found = summarise(observe("bert", "text-classification", EXAMPLES), None, seed=0)
    assert found == {}
    unpruned = observe("bert", "text-classification", EXAMPLES)
    assert set(summarise(unpruned, unpruned, seed=0)) == {"eval_agreement"}


def said(task: Task, texts: int, **arrays: list[float] | list[int]) -> Reference:
    return Reference(task, texts, {name: np.array(values) for name, values in arrays.items()})


def test_classification_figures_are_scikit_learns() -> None:
    expected, predicted = [0, 0, 1, 1, 2, 2, 2, 2], [0, 1, 1, 1, 2, 0, 2, 2]
    mine = said("text-classification", 8, expected=expected, predicted=predicted, loss=[0.5] * 8)
    found = summarise(mine, said("text-classification", 8, predicted=[0, 1, 1, 1, 2, 2, 2, 0]), seed=0)
    assert found["eval_accuracy"].value == 0.75
    assert found["eval_accuracy"].stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 7))
    assert found["eval_f1"].value == pytest.approx(f1_score(expected, predicted, average="macro"))
    assert found["eval_f1"] == summarise(mine, None, seed=0)["eval_f1"]
    assert found["eval_f1"] != summarise(mine, None, seed=1)["eval_f1"]
    assert found["eval_loss"].value == 0.5 and found["eval_loss"].stderr == 0
    assert found["eval_agreement"].value == 0.75


def test_the_standard_error_of_words_is_clustered_by_text() -> None:
    right = [1, 1, 1, 1, 0, 0, 0, 0]
    values = {"predicted": right, "expected": [1] * 8, "loss": [0.0] * 8}
    together = summarise(said("fill-mask", 2, **values, text=[0, 0, 0, 0, 1, 1, 1, 1]), None, seed=0)["eval_accuracy"]
    apart = summarise(said("fill-mask", 8, **values, text=list(range(8))), None, seed=0)["eval_accuracy"]
    assert together.value == apart.value == 0.5
    assert (together.n, apart.n) == (2, 8)
    # Four equal words of one text say no more than one: the error is that of two values 0 and 1.
    assert together.stderr == pytest.approx(0.5)
    assert apart.stderr == pytest.approx(np.std(right, ddof=1) / math.sqrt(8))


def test_the_bootstrap_scores_as_scikit_learn_does() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        truth, guess = draw.integers(0, 6, (2, 12))
        assert f1_of_codes(truth, guess, 6) == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))


def test_cosine_and_neighbours_by_hand() -> None:
    angles = np.linspace(0, 1.5, 16)
    embedding = np.stack([np.cos(angles), np.sin(angles)], 1)
    turned = np.stack([np.cos(angles + 0.1), np.sin(angles + 0.1)], 1)
    mine, theirs = said("feature-extraction", 16), said("feature-extraction", 16)
    mine, theirs = replace(mine, arrays={"embedding": turned}), replace(theirs, arrays={"embedding": embedding})
    found = summarise(mine, theirs, seed=0)
    assert found["eval_cosine"].value == pytest.approx(math.cos(0.1))
    assert found["eval_overlap_at_10"].value == 1.0  # a rotation keeps all neighbours
    mirrored = replace(mine, arrays={"embedding": np.roll(embedding, 8, axis=0)})
    near = [
        set(np.argsort(-(e @ e.T - 9 * np.eye(16)), 1)[i, :10])
        for e in (embedding, np.roll(embedding, 8, 0))
        for i in range(16)
    ]
    expected = np.mean([len(near[i] & near[16 + i]) / 10 for i in range(16)])
    assert summarise(mirrored, theirs, seed=0)["eval_overlap_at_10"].value == pytest.approx(expected)


def test_overlap_needs_more_texts_than_neighbours() -> None:
    few = observe("bert", "feature-extraction", EXAMPLES[:11])
    assert set(summarise(few, few, seed=0)) == {"eval_cosine"}


def test_one_text_has_no_standard_error() -> None:
    alone = observe("bert", "text-classification", LABELLED[:1])
    assert all(quality.stderr is None and quality.n == 1 for quality in summarise(alone, alone, seed=0).values())


def test_a_model_that_computes_nan_is_refused() -> None:
    broken = model("bert", "feature-extraction")
    with torch.no_grad():
        next(iter(broken.parameters())).fill_(float("nan"))
    with pytest.raises(CorruptWeights, match="not finite"):
        reference(broken, tokenizer("bert"), "feature-extraction", EXAMPLES, max_length=24, seed=0)


def test_progress_ends_at_one() -> None:
    seen: list[float] = []
    subject = model("bert", "fill-mask")
    reference(
        subject, tokenizer("bert"), "fill-mask", EXAMPLES, max_length=24, batch_size=16, seed=0, progress=seen.append
    )
    assert seen == [0.4, 0.8, 1.0]
