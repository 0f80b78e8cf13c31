"""A model in half precision comes out in half precision, and computes what it did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunectl.checkpoints import load_pruned, precision
from prunectl.checkpoints.load import load_original
from support import models, pipeline
from support.proof import largest_difference

NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}


def stored_as(directory: Path, dtype: torch.dtype, *, but: tuple[str, ...] = ()) -> Path:
    """Its weights stored as ``dtype``, except those whose names end so."""
    tensors = load_file(directory / "model.safetensors")
    half = {name: tensor if name.endswith(but or ("\n",)) else tensor.to(dtype) for name, tensor in tensors.items()}
    save_file(half, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "dtype": NAMES[dtype]}))
    return directory


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return models.build(tmp_path / "zoo" / "tiny", "bert", "fill-mask", layers=2)


def types(checkpoint: Path) -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(checkpoint / "model.safetensors").values()}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("refit", [False, True])
def test_a_half_stays_a_half(original: Path, tmp_path: Path, dtype: torch.dtype, refit: bool) -> None:
    recipe = {"heads": 0.5, "ffn": 0.5, "refit": refit}
    result, checkpoint = pipeline.run(stored_as(original, dtype), recipe, tmp_path)
    assert types(checkpoint) == {dtype}
    assert json.loads((checkpoint / "config.json").read_text())["dtype"] == NAMES[dtype]
    size = result.metrics["model_bytes"]
    assert size.before is not None and size.after is not None and size.after < size.before
    assert result.conditions["weights_dtype"] == NAMES[dtype]
    assert result.conditions["reload_max_abs_difference"] <= 1e-5
    assert ("refit" in result.conditions) == refit
    if not refit:
        assert largest_difference(original, checkpoint) <= 1e-5
    assert load_pruned(checkpoint).dtype is torch.float32
    assert load_pruned(checkpoint, dtype=dtype).dtype is dtype


def test_mixed_weights_come_out_in_float32(original: Path, tmp_path: Path) -> None:
    stored_as(original, torch.float16, but=("LayerNorm.weight",))
    result, checkpoint = pipeline.run(original, {"heads": 0.5}, tmp_path)
    assert types(checkpoint) == {torch.float32}
    assert result.conditions["weights_dtype"] == "float32"


def test_what_a_half_cannot_hold_stays_as_it_is(original: Path) -> None:
    model = load_original(original, json.loads((original / "config.json").read_text()))
    weight = next(model.parameters())
    with torch.no_grad():
        weight[0, 0] = 1e5
    before = weight.detach().clone()
    assert precision.round_to(model, torch.float16) is torch.float32
    assert torch.equal(weight, before)
    assert precision.round_to(model, torch.bfloat16) is torch.bfloat16
    assert torch.equal(weight, before.to(torch.bfloat16).float()) and not torch.equal(weight, before)


def test_positions_that_are_computed_are_not_rounded(tmp_path: Path) -> None:
    """transformers stores Marian's positions in no file: in float32 they are what every process computes."""
    original = stored_as(models.build(tmp_path / "zoo" / "tiny", "marian", "text2text-generation"), torch.bfloat16)
    result, checkpoint = pipeline.run(original, {"heads": 0.5, "refit": False}, tmp_path)
    assert result.conditions["reload_max_abs_difference"] <= 1e-5, "it computes what the masked original does"
    rounded = load_file(checkpoint / "model.safetensors")
    assert {name for name, tensor in rounded.items() if tensor.dtype is not torch.bfloat16} == {
        "model.encoder.embed_positions.weight",
        "model.decoder.embed_positions.weight",
    }
