"""Jobs of one model: the second finds the baseline and the scores, and comes to what it would have come to alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prunectl.evaluation.data import Example
from prunectl.pruning import refit
from prunectl.schemas import Result
from prunectl.storage import open_storage
from prunectl.worker import measuring, source
from support import pipeline
from support.models import build

RECIPE = {"heads": 0.5, "ffn": 0.25}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BENCH_SECONDS", 0.1)


def reused(result: Result) -> list[str]:
    return [stage.name for stage in result.stages if stage.reused]


def test_the_second_recipe_of_a_sweep_shares_and_finds_the_same(tmp_path: Path) -> None:
    model = build(tmp_path / "source", "bert", "fill-mask", layers=2, hidden=64, ffn=96)
    alone, _ = pipeline.run(model, RECIPE, tmp_path / "alone")
    first, _ = pipeline.run(model, {"heads": 0.25, "scorer": "fisher"}, tmp_path / "sweep")
    second, _ = pipeline.run(model, RECIPE, tmp_path / "sweep")
    assert reused(alone) == reused(first) == []
    assert reused(second) == ["baseline", "score"]
    assert second.structure == alone.structure
    for name in ("eval_loss", "eval_accuracy", "eval_agreement"):
        assert second.metrics[name] == alone.metrics[name]
    memory = [result.metrics["peak_memory_bytes"] for result in (first, second)]
    assert memory[0].before == memory[1].before and memory[1].after is not None


def test_other_data_or_a_model_that_a_step_has_changed_shares_no_score(tmp_path: Path) -> None:
    model = build(tmp_path / "source", "bert", "feature-extraction", layers=2, hidden=64, ffn=96)
    pipeline.run(model, RECIPE, tmp_path / "sweep")
    other, _ = pipeline.run(model, RECIPE, tmp_path / "sweep", max_samples=20)
    assert reused(other) == []
    shorter, _ = pipeline.run(model, {"layers": 1, "heads": 0.5}, tmp_path / "sweep")
    assert reused(shorter) == ["baseline"]


def test_a_damaged_score_is_computed_again(tmp_path: Path) -> None:
    model = build(tmp_path / "source", "bert", "feature-extraction", layers=2, hidden=64, ffn=96)
    first, _ = pipeline.run(model, RECIPE, tmp_path)
    storage = open_storage(str(tmp_path / "storage"))
    for name in storage.list("shared/scores"):
        storage.write(f"shared/scores/{name}", b"\0" * 100)
    second, _ = pipeline.run(model, RECIPE, tmp_path)
    assert reused(second) == ["baseline"]
    assert second.structure == first.structure


def test_token_weights_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(tmp_path / "source", "bert", "fill-mask", layers=2, hidden=64, ffn=96)
    alone, _ = pipeline.run(model, RECIPE, tmp_path / "alone")
    pipeline.run(model, {"heads": 0.25, "ffn": 0.5}, tmp_path / "sweep")

    def not_again(*_: object) -> None:
        raise AssertionError("they lie in shared storage")

    monkeypatch.setattr(refit, "token_weights", not_again)
    shared, _ = pipeline.run(model, RECIPE, tmp_path / "sweep")
    assert shared.conditions["refit"] == alone.conditions["refit"]
    assert shared.metrics["eval_loss"] == alone.metrics["eval_loss"]
    with pytest.raises(AssertionError, match="shared storage"):  # another seed masks other words
        pipeline.run(model, {**RECIPE, "seed": 1}, tmp_path / "sweep")


class Words:
    """A tokenizer of one token a word."""

    def __call__(self, texts: list[str], _pairs: object, **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * len(text.split()) for text in texts]}


def test_a_refit_takes_further_text_until_a_bound_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [Example("a b c d") for _ in range(10)]
    taken = source.refit_examples(Words(), texts[:4], texts[4:], 128)  # type: ignore[arg-type]
    assert len(taken) == 10
    monkeypatch.setattr(source, "REFIT_TOKENS", 25)
    assert len(source.refit_examples(Words(), texts[:4], texts[4:], 128)) == 6  # type: ignore[arg-type]
    monkeypatch.setattr(source, "REFIT_SAMPLES", 5)
    assert len(source.refit_examples(Words(), texts[:4], texts[4:], 128)) == 5  # type: ignore[arg-type]
    monkeypatch.setattr(source, "REFIT_TOKENS", 3)  # never fewer than the scores have
    assert len(source.refit_examples(Words(), texts[:4], texts[4:], 128)) == 4  # type: ignore[arg-type]
