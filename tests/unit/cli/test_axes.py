"""The flags of layers, weights and vocabulary; ``inspect``; a ledger in ``show``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prunectl.cli.job_columns import recipe_text
from prunectl.cli.job_page import print_page
from prunectl.wiring import Services

pytestmark = pytest.mark.usefixtures("service")


def test_every_axis_has_its_flags(run: Any, services: Services, model: str) -> None:
    ran = run(
        "submit", "-m", model, "--layers", "1,", "--weights", "0.5", "--weight-granularity", "matrix",
        "--scorer", "magnitude", "--vocab", "builtin:python-docs",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    job = services.store.get(ran.lines[0])
    assert job is not None
    recipe = job.spec["recipe"]
    assert (recipe["layers"], recipe["weights"], recipe["weight_granularity"]) == ([1], 0.5, "matrix")
    assert recipe["vocab"] == "builtin:python-docs"
    spec = run("spec", job.id, "-o", "json")
    assert json.loads(spec.out)["layers"] == [1]


def test_int8_is_asked_for_and_refused_where_it_cannot_be_had(
    run: Any, services: Services, model: str, tmp_path: Path
) -> None:
    ran = run("submit", "-m", model, "--heads", "0.3", "--quantize", "int8")
    assert ran.code == 0, ran.err
    job = services.store.get(ran.lines[0])
    assert job is not None and job.spec["recipe"]["export"] == "onnx"
    assert recipe_text({"recipe": job.spec["recipe"]}) == "h.30 onnx int8"
    static = services.store.get(run("submit", "-m", model, "--heads", "0.3", "--quantize", "int8-static").lines[0])
    assert static is not None and static.id != job.id
    assert recipe_text({"recipe": static.spec["recipe"]}) == "h.30 onnx int8-static"
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2, "n_head": 2, "n_embd": 8}
    (tmp_path / "zoo" / "decoder").mkdir()
    (tmp_path / "zoo" / "decoder" / "config.json").write_text(json.dumps(config))
    refused = run("submit", "-m", "decoder", "--heads", "0.3", "--export", "onnx")
    assert refused.code == 2 and "text encoders can: bert" in refused.err


def test_a_corpus_is_sent_by_its_digest(run: Any, services: Services, model: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The corpus that decides what stays.\n")
    ran = run("submit", "-m", model, "--vocab", str(corpus))
    assert ran.code == 0, ran.err
    job = services.store.get(ran.lines[0])
    assert job is not None and job.spec["recipe"]["vocab"].startswith("upload:sha256:")
    missing = run("submit", "-m", model, "--vocab", str(tmp_path / "corpis.txt"))
    assert missing.code == 2 and "corpus.txt" in missing.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--layers", "9"), "nearest that can be met: layers=1"),
        (("--layers", "x"), "neither a number of layers nor indices"),
        (("--layers", "1", "--layer-choice", "tip"), "did you mean top?"),
        (("--weights", "0.5", "--scorer", "taylor"), "weights takes magnitude, wanda, random"),
        (("--layers", "1", "--engine", "textpruner"), "no pruner for layers"),
        (("--vocab", "corpus-of-nobody"), "corpus-of-nobody"),
    ],
)
def test_what_cannot_be_met_is_refused_before_it_is_queued(
    run: Any, services: Services, model: str, flags: tuple[str, ...], says: str
) -> None:
    ran = run("submit", "-m", model, *flags)
    assert ran.code == 2 and says in ran.err
    assert run("list", "-q").out == ""


def test_a_dry_run_counts_layers_and_weights(run: Any, model: str) -> None:
    flags = ("--layers", "1", "--heads", "0.5", "--weight-pattern", "2:4", "--vocab", "builtin:python-docs")
    plan = json.loads(run("submit", "-m", model, *flags, "--dry-run", "-o", "json").out)
    assert (plan["layers_removed"], plan["layers_total"]) == (1, 2)
    assert plan["weights_zeroed"] * 2 == plan["weights_total"] > 0
    assert plan["parameters"]["after"] < plan["parameters"]["before"]
    assert any("corpus" in note for note in plan["notes"])
    page = run("submit", "-m", model, *flags, "--dry-run").out
    assert "remove 1 of 2" in page and "weights" in page


def test_inspect_counts_parts_and_savings(run: Any, model: str) -> None:
    found = json.loads(run("inspect", model, "--json").out)
    assert found["schema_version"] == 1
    assert found["parameters"] == sum(found["parts"].values())
    assert {saving["axis"] for saving in found["savings"]} == {"vocab", "layers", "heads", "ffn", "weights"}
    page = run("inspect", model)
    assert page.code == 0 and "embeddings" in page.out and "at most" in page.out
    assert run("inspect", model, "-q").lines == [model]
    assert run("inspect", "/no/such/model").code == 2


def test_a_recipe_reads_in_the_order_of_its_steps() -> None:
    recipe = {"vocab": "x", "layers": [0, 2], "heads": 0.3, "weights": 0.5, "weight_pattern": "2:4", "scorer": "wanda"}
    assert recipe_text({"recipe": recipe}) == "v l0,2, h.30 w.50 2:4 wanda"
    assert recipe_text({"recipe": {"weights": 0.5, "scorer": "magnitude"}}) == "w.50"
    assert recipe_text({"recipe": {"layers": 2, "layer_choice": "top"}}) == "l2 top"


def test_show_prints_the_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"parameters": 1000, "nonzero_parameters": 900, "model_bytes": 4000, "metric": "eval_accuracy", "n": 9}
    steps = ("original", "vocabulary", "layers")
    print_page(
        {
            "id": "1", "model": {"name": "m"}, "recipe": {"layers": 1}, "state": "succeeded",
            "created_at": "2026-01-01T00:00:00.000Z",
            "ledger": [{**row, "step": step, "value": 0.5, "stderr": 0.1} for step in steps],
            "structure": {
                "layers": [{"index": 1, "heads_kept": [0], "heads_total": 2, "ffn_kept": 3, "ffn_total": 4}],
                "removed_layers": [0], "vocabulary_kept": 7, "vocabulary_total": 9,
                "weights_zeroed": 5, "weights_total": 6,
            },
        }
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "step by step" in out and all(step in out for step in steps)
    assert "without layers 0" in out and "vocabulary 7 of 9 entries" in out and "zero 5 of 6 weights" in out
