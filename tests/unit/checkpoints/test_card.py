"""The model card: front matter that the Hub accepts, and the measured table."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCardData

from prunectl.checkpoints import card
from prunectl.schemas import BlockStructure, Measure, Result, Structure


def result(**more: Any) -> Result:
    block = BlockStructure(index=0, heads_kept=[0, 2], heads_total=4, ffn_kept=40, ffn_total=48)
    metrics = {
        "parameters": Measure(before=22713216, after=19000000),
        "latency_p50_seconds": Measure(before=0.0123456, after=0.01),
        "model_bytes": Measure(before=90868376, after=80000000),
        "eval_cosine": Measure(before=1.0, after=0.97, stderr=0.001, n=512),
    }
    return Result(
        model_digest="sha256:abc", metrics=metrics, stages=[], structure=Structure(layers=[block]), artifacts={},
        conditions={"task": "feature-extraction", "versions": {"torch": "2.13"}}, **more,
    )  # fmt: skip


def rendered(name: str, architecture: str = "BertModel") -> tuple[dict[str, Any], str]:
    text = card.render({"recipe": {"heads": 0.5, "seed": 0}}, result(), name, architecture)
    start, front, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), body


def test_the_front_matter_names_base_library_task_and_tags() -> None:
    front, _ = rendered("sentence-transformers/all-MiniLM-L6-v2@main")
    assert front["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert front["library_name"] == "transformers" and front["pipeline_tag"] == "feature-extraction"
    assert "prunectl" in front["tags"] and "pruned" in front["tags"]


@pytest.mark.parametrize("path", ["/data/models/mine", "./mine", "../mine", "a/b/c"])
def test_a_path_is_no_base_model(path: str) -> None:
    front, _ = rendered(path)
    assert "base_model" not in front


def test_the_table_has_every_metric_with_its_unit_and_error() -> None:
    _, body = rendered("org/name")
    assert "| parameters | 22,713,216 | 19,000,000 |  |  |" in body
    assert "| latency_p50_seconds (s) | 0.0123456 | 0.01 |  |  |" in body
    assert "| eval_cosine | 1 | 0.97 | 0.001 | 512 |" in body
    assert "2 of 4 attention heads and 8 of 48 feed-forward neurons" in body
    assert "heads=0.5" in body and "sha256:abc" in body


@pytest.mark.parametrize(
    ("architecture", "auto"),
    [
        ("BertModel", "AutoModel"),
        ("XLMRobertaForMaskedLM", "AutoModelForMaskedLM"),
        ("ElectraForSequenceClassification", "AutoModelForSequenceClassification"),
    ],
)
def test_it_says_how_to_load_it(architecture: str, auto: str) -> None:
    _, body = rendered("org/name", architecture)
    assert f"model = {auto}.from_pretrained(" in body and "load_pruned(" in body and "trust_remote_code=True" in body


def labelled(data: str, labels: str = "data") -> dict[str, Any]:
    measured = result(labels=labels)
    measured.conditions["task"] = "text-classification"
    measured.metrics["eval_accuracy"] = Measure(before=0.9, after=0.88, stderr=0.01, n=800)
    measured.metrics["eval_f1"] = Measure(before=0.8, after=0.79, stderr=0.012, n=800)
    manifest = {"recipe": {"heads": 0.5, "seed": 0}, "evaluation": {"data": data}}
    text = card.render(manifest, measured, "org/base", "BertForSequenceClassification")
    front: dict[str, Any] = yaml.safe_load(text.split("---\n", 2)[1])
    return front


def test_what_a_hub_data_set_measured_is_in_the_model_index() -> None:
    front = labelled("org/reviews:test@v2")
    [entry] = front["model-index"]
    assert entry["name"] == "base, pruned"
    [found] = entry["results"]
    assert found["task"] == {"type": "text-classification"}
    assert found["dataset"] == {"name": "org/reviews", "type": "org/reviews", "split": "test", "revision": "v2"}
    assert [(m["type"], m["value"], m.get("args")) for m in found["metrics"]] == [
        ("accuracy", 0.88, None),
        ("f1", 0.79, {"average": "macro"}),
    ]
    assert "n = 800" in found["metrics"][0]["name"] and "0.01" in found["metrics"][0]["name"]
    assert [r.metric_value for r in ModelCardData(**front).eval_results or ()] == [0.88, 0.79]


@pytest.mark.parametrize(
    ("data", "labels"), [("builtin:python-docs", "text"), ("upload:sha256:00/a.csv", "data"), ("org/reviews", "model")]
)
def test_nothing_else_claims_to_be_a_result_on_the_hub(data: str, labels: str) -> None:
    assert "model-index" not in labelled(data, labels)


@pytest.mark.parametrize(
    ("task", "labels", "metrics", "expected"),
    [
        ("token-classification", "data", ("eval_f1", "eval_accuracy"), [("accuracy", None), ("f1", None)]),
        ("question-answering", "data", ("eval_f1", "eval_exact_match"), [("exact_match", None), ("f1", None)]),
        ("image-classification", "data", ("eval_f1",), [("f1", {"average": "macro"})]),
        ("text-generation", "text", ("eval_perplexity", "eval_accuracy"), [("perplexity", None)]),
        ("feature-extraction", "model", ("eval_mrr_at_10", "eval_cosine"), [("mrr_at_10", None)]),
        ("fill-mask", "text", ("eval_accuracy",), []),
    ],
)
def test_each_task_has_its_names_on_the_hub(
    task: str, labels: str, metrics: tuple[str, ...], expected: list[tuple[str, Any]]
) -> None:
    measured = result(labels=labels)
    measured.conditions["task"] = task
    measured.metrics |= {name: Measure(before=0.9, after=0.8, stderr=0.01, n=50) for name in metrics}
    manifest = {"recipe": {"heads": 0.5, "seed": 0}, "evaluation": {"data": "org/rows"}}
    text = card.render(manifest, measured, "org/base", "BertModel")
    front = yaml.safe_load(text.split("---\n", 2)[1])
    found = [entry for part in front.get("model-index", []) for entry in part["results"][0]["metrics"]]
    assert [(entry["type"], entry.get("args")) for entry in found] == expected
    assert front["pipeline_tag"] == task
