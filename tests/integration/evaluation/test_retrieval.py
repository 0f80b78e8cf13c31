"""Queries and their passages: ranks by hand, and a whole job on a bare encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunectl.evaluation import outputs, quality
from prunectl.evaluation.data import Example
from prunectl.evaluation.heads.embeddings import ranks_of
from prunectl.evaluation.quality import Reference, summarise
from support import pipeline
from support.models import build, model, texts, tokenizer

METRICS = {"eval_mrr_at_10", "eval_recall_at_1", "eval_recall_at_10", "eval_cosine", "eval_overlap_at_10"}


def pairs(count: int = 30) -> list[Example]:
    """The beginning of a text, and the rest."""
    return [Example(text[: len(text) // 2], positive=text[len(text) // 2 :]) for text in texts(count)]


def test_ranks_by_hand() -> None:
    queries = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.6, 0.8]])
    passages = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.0, 1.0]])
    # The third asks what the first asks, so the first's passage is no competitor; the last two share their passage.
    assert ranks_of(queries, passages, ["a", "b", "a", "c"], ["p", "q", "r", "r"]).tolist() == [1, 2, 2, 2]
    assert ranks_of(queries[:1].repeat(3, 0), queries[:1].repeat(3, 0), list("abc"), list("pqr")).tolist() == [3, 3, 3]


def test_metrics_of_ranks() -> None:
    rank = np.array([1, 2, 10, 11])
    held = {"embedding": np.eye(4), "passage": np.eye(4), "rank": rank}
    found = summarise(Reference("feature-extraction", 4, held), None, seed=0)
    assert found["eval_mrr_at_10"].value == pytest.approx((1 + 0.5 + 0.1) / 4)
    assert (found["eval_recall_at_1"].value, found["eval_recall_at_10"].value) == (0.25, 0.75)
    assert found["eval_recall_at_1"].n == 4 and found["eval_recall_at_1"].stderr == pytest.approx(0.25)


def test_ranks_are_those_of_the_models_embeddings() -> None:
    subject, words, examples = model("bert", "feature-extraction"), tokenizer("bert"), pairs()
    said = quality.reference(subject, words, "feature-extraction", examples, max_length=48, batch_size=7, seed=0)

    def embedded(text: str) -> np.ndarray:
        with torch.no_grad():
            return outputs.embeddings(subject, words(text, truncation=True, max_length=48, return_tensors="pt"))[
                0
            ].numpy()

    queries = np.stack([embedded(example.text) for example in examples])
    passages = np.stack([embedded(example.positive or "") for example in examples])
    np.testing.assert_allclose(said.arrays["embedding"], queries, atol=1e-5)
    np.testing.assert_allclose(said.arrays["passage"], passages, atol=1e-5)
    scores = queries @ passages.T
    expected = [int((row > row[own] - 1e-6).sum()) for own, row in enumerate(scores)]
    assert np.abs(said.arrays["rank"] - expected).max() <= 1, "but for ties in rounding"


def test_a_job(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "distilbert", "feature-extraction")
    rows = "\n".join(json.dumps({"q": e.text, "positive": e.positive}) for e in pairs(60))
    data = pipeline.upload(tmp_path, rows, "pairs.jsonl")
    result, _ = pipeline.run(
        source, {"heads": 0.5, "recover": "distill", "recover_epochs": 1}, tmp_path, data=data, columns=["anchor=q"],
        gate=["eval_mrr_at_10>=0"],
    )  # fmt: skip
    measured = {name: measure for name, measure in result.metrics.items() if measure.n is not None}
    assert set(measured) == METRICS
    assert all(measure.n == 24 and measure.stderr is not None for measure in measured.values())
    assert all(measured[n].before is not None and measured[n].difference_stderr is not None for n in METRICS)
    assert result.conditions["primary_metric"] == "eval_cosine"
