"""A whole job on a family of each kind: pruned, proved, reloaded in a fresh process, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from prunectl.checkpoints import load_pruned
from prunectl.checkpoints.manifest import read_manifest
from support import pipeline
from support.models import build, heads_of

QUALITY = {
    "llama": {"eval_loss", "eval_accuracy", "eval_perplexity", "eval_agreement"},
    "t5": {"eval_loss", "eval_accuracy", "eval_agreement"},
    "vit": {"eval_agreement"},
}


@pytest.mark.parametrize(
    ("family", "recipe"),
    [
        ("llama", {"heads": 0.5, "ffn": 0.3}),
        ("t5", {"heads": "encoder=0.25,cross=0.5", "ffn": 0.3}),
        ("vit", {"heads": 0.5, "ffn": 0.3}),
    ],
)
def test_a_job(family: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    # transformers can't cache for a T5 decoder that is deeper than its encoder.
    more = {"num_decoder_layers": 2} if family == "t5" else {}
    source = build(tmp_path / "source", family, heads_of(family)[0], **more)
    result, directory = pipeline.run(source, recipe, tmp_path)
    metrics = result.metrics
    assert {name for name, measure in metrics.items() if measure.n is not None} == QUALITY[family]
    for name in ("parameters", "macs", "model_bytes"):
        measure = metrics[name]
        assert measure.before is not None and measure.after is not None and 0 < measure.after < measure.before
    assert result.conditions["task"] == heads_of(family)[0]
    assert result.conditions.get("data") == ("random images" if family == "vit" else None)
    assert result.conditions["reload_max_abs_difference"] <= 1e-5 * 50
    kept = read_manifest(directory)["kept"]
    assert {entry["unit"] for entry in kept} == {"head", "neuron"}
    if family == "t5":  # decoder self-attention was not named, so it stays whole
        whole = [
            len(e["kept"]) == e["total"] for e in kept if "decoder" in e["module"] and "SelfAttention" in e["module"]
        ]
        assert all(whole) and len(whole) == 2
    if family != "vit":
        small: Any = load_pruned(directory)
        text = small.generate(torch.tensor([[7, 8, 9]]), do_sample=False, max_new_tokens=3, min_new_tokens=3)
        assert text.shape[0] == 1
