"""Whole jobs of language models on data of their own: the next token, and the second text of a pair."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import pipeline
from support.models import build, texts


def test_the_next_token(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "gpt2", "text-generation")
    data = pipeline.upload(tmp_path, json_lines([{"story": text} for text in texts(60)]), "rows.jsonl")
    result, _ = pipeline.run(source, {"heads": 0.5}, tmp_path, data=data, columns=["text=story"])
    measured = {name: measure for name, measure in result.metrics.items() if measure.n is not None}
    assert set(measured) == {"eval_loss", "eval_accuracy", "eval_perplexity", "eval_agreement"}
    loss, perplexity = measured["eval_loss"], measured["eval_perplexity"]
    assert loss.after is not None and perplexity.after is not None and perplexity.n == 24
    assert loss.stderr and perplexity.stderr == pytest.approx(perplexity.after * loss.stderr)
    assert loss.difference_stderr and perplexity.difference_stderr == pytest.approx(
        perplexity.after * loss.difference_stderr
    )


@pytest.mark.parametrize("family", ["t5", "marian"])
def test_the_second_text_of_a_pair(family: str, tmp_path: Path) -> None:
    source = build(tmp_path / "source", family, "text2text-generation")
    rows = [{"document": text, "summary": " ".join(text.split()[:5])} for text in texts(60)]
    data = pipeline.upload(tmp_path, json_lines(rows), "rows.jsonl")
    result, _ = pipeline.run(
        source, {"heads": 0.5}, tmp_path, data=data, columns=["text=document", "text_pair=summary"]
    )
    measured = {name: measure for name, measure in result.metrics.items() if measure.n is not None}
    assert set(measured) == {"eval_loss", "eval_accuracy", "eval_agreement"}
    assert result.labels == "data" and result.conditions["primary_metric"] == "eval_accuracy"
    assert all(m.n == 24 and m.stderr is not None and m.difference_stderr is not None for m in measured.values())


def json_lines(rows: list[dict[str, str]]) -> str:
    return "\n".join(map(json.dumps, rows))
