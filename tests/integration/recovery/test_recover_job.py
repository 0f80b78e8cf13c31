"""A whole job that recovers: every kind of removal before it, and the state that a killed attempt left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from prunectl.checkpoints import load_pruned
from prunectl.checkpoints.manifest import read_manifest
from prunectl.evaluation.data import builtin_python_docs
from support import pipeline
from support.models import build


@pytest.mark.parametrize(
    ("family", "task", "recipe"),
    [
        ("xlm-roberta", "fill-mask", {"layers": 1, "heads": 0.5, "weights": 0.3, "vocab": True}),
        ("t5", "text2text-generation", {"heads": 0.5, "ffn": 0.5}),
        ("vit", "image-classification", {"heads": 0.5, "ffn": 0.5}),
    ],
)
def test_a_distilled_job(family: str, task: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    source = build(tmp_path / "source", family, task)
    if recipe.get("vocab"):
        recipe = {**recipe, "vocab": pipeline.upload(tmp_path, "\n".join(e.text for e in builtin_python_docs()[:300]))}
    corpus = pipeline.upload(tmp_path, "\n".join(e.text for e in builtin_python_docs()[:80]), "train.txt")
    own = {} if family == "vit" else {"recover_data": corpus}
    result, directory = pipeline.run(
        source, {**recipe, "recover": "distill", "recover_epochs": 2, "recover_rate": 1e-3, **own}, tmp_path
    )
    assert "recover" in [stage.name for stage in result.stages]
    assert [row.step for row in result.ledger][-1] == "recover"
    recovery = result.conditions["recovery"]
    losses = [point["validation_loss"] for point in recovery["course"]["points"]]
    assert min(losses) == losses[recovery["course"]["best"]] < losses[0]
    assert recovery["examples"] > recovery["validation_examples"] > 0
    assert read_manifest(directory)["recipe"]["recover"] == "distill"
    assert not list((tmp_path / "storage" / "training").glob("*")), "the state was for a next attempt"
    small = load_pruned(directory)
    if "weights" in recipe:
        zeroed = sum(
            int((p == 0).sum()) for name, p in small.named_parameters() if "encoder.layer" in name and p.dim() == 2
        )
        assert result.structure.weights_zeroed is not None and zeroed >= result.structure.weights_zeroed
    assert all(torch.isfinite(p).all() for p in small.parameters())
