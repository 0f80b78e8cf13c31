"""Tasks on the command line: what is refused before anything is queued, and the figure that a list shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prunectl.cli.job_columns import quality_text
from prunectl.wiring import Services

TAGGED = [{"words": ["Ada", "wrote"], "ner": ["B-PER", "O"]}, {"words": ["So", "be", "it"], "ner": ["O", "O", "O"]}]


def made(tmp_path: Path, architecture: str) -> str:
    directory = tmp_path / "zoo" / architecture
    directory.mkdir(parents=True)
    config = {
        "model_type": "bert", "architectures": [architecture], "hidden_size": 32, "intermediate_size": 64,
        "max_position_embeddings": 512, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 100,
        "id2label": {"0": "O", "1": "B-PER"},
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return directory.name


@pytest.mark.usefixtures("service")
def test_rows_of_a_task_are_checked_when_they_are_submitted(run: Any, services: Services, tmp_path: Path) -> None:
    tagger, masked = made(tmp_path, "BertForTokenClassification"), made(tmp_path, "BertForMaskedLM")
    data = tmp_path / "rows.jsonl"

    def submit(model: str, rows: list[dict[str, Any]], *more: str) -> Any:
        data.write_text("\n".join(map(json.dumps, rows)))
        columns = ("--column", "tokens=words", "--column", "tags=ner")
        return run("submit", "-m", model, "--heads", "0.3", "--data", str(data), *columns, *more)

    ran = submit(tagger, TAGGED)
    assert ran.code == 0, ran.err
    job = services.store.get(ran.lines[0])
    assert job is not None and job.spec["evaluation"]["columns"] == ["tags=ner", "tokens=words"]
    for model, rows, more, message in (
        (
            tagger,
            [*TAGGED, {"words": ["a"], "ner": ["B-LOC"]}],
            (),
            "row 3 has the tag 'B-LOC', which the model doesn't",
        ),
        (tagger, [*TAGGED, {"words": ["a"], "ner": []}], (), "row 3 has 0 ner for 1 words"),
        (tagger, [*TAGGED, {"ner": ["O"]}], (), "row 3 has ner but no words"),
        (masked, TAGGED, (), "the data has tags, but BertForMaskedLM has no token-classification head to use them"),
        (tagger, TAGGED, ("--task", "question-answering"), "it can do token-classification and feature-extraction"),
    ):
        ran = submit(model, rows, *more)
        assert (ran.code, ran.lines) == (2, []) and message in ran.err, ran.err


@pytest.mark.parametrize(
    ("named", "primary", "text"),
    [(None, "eval_f1", "f1 0.800 (-0.100)"), (None, None, "acc 0.970"), ("accuracy", "eval_f1", "acc 0.970")],
)
def test_a_list_shows_the_figure_that_stands_for_quality(named: str | None, primary: str | None, text: str) -> None:
    item = {
        "evaluation": {"metric": named},
        "conditions": {"primary_metric": primary},
        "metrics": {"eval_accuracy": {"after": 0.97}, "eval_f1": {"before": 0.9, "after": 0.8}},
    }
    assert quality_text(item) == text
