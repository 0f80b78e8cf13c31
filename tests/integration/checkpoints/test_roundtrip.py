"""Saved and loaded again: the same class, the same bits, no pickle, each tensor once."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import SafetensorError, safe_open

from prunectl.checkpoints import load_pruned, manifest, save
from prunectl.checkpoints.load import load_original
from prunectl.errors import CorruptWeights, DiskFull
from prunectl.pruning import engine
from prunectl.pruning.shapes import pruned_class
from prunectl.recipe import Recipe
from prunectl.schemas import Measure, Result
from support.models import FAMILIES, HEADS, build
from support.pruning import batches, output, random_masks


def original(directory: Path, family: str = "bert", head: str = "fill-mask", **shape: Any) -> Any:
    build(directory, family, head, **shape)
    return load_original(directory, json.loads((directory / "config.json").read_text()))


def saved(model: Any, source: Path, directory: Path, seed: int = 0, **masks: Any) -> Any:
    pruned = engine.apply(model, random_masks(2, 4, 48, seed=seed, **masks))
    save.save(
        model,
        source=source,
        directory=directory,
        recipe=Recipe(heads=0.5, ffn=0.5),
        pruned=pruned,
        provenance={"task": "x"},
    )
    return pruned


@pytest.mark.parametrize(("family", "head"), list(zip(FAMILIES, [*HEADS, *HEADS], strict=False)))
def test_the_loaded_model_is_the_saved_one(family: str, head: str, tmp_path: Path) -> None:
    model = original(tmp_path / "source", family, head)
    saved(model, tmp_path / "source", tmp_path / "small", empty=(1,))
    loaded = load_pruned(tmp_path / "small")
    batch = batches(model, 1)[0]
    assert type(loaded) is type(model) and not loaded.training
    assert torch.equal(output(loaded, batch), output(model, batch))
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in model.parameters())


def test_what_lies_in_the_directory(tmp_path: Path) -> None:
    model = original(tmp_path / "source")
    pruned = saved(model, tmp_path / "source", tmp_path / "small")
    names = {file.name for file in (tmp_path / "small").iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "prunectl.json",
        "SHA256SUMS",
        "modeling_prunectl.py",
    } <= names
    document = manifest.read_manifest(tmp_path / "small")
    assert document["kept"] == pruned.kept and document["task"] == "x" and document["seed"] == 0
    assert document["recipe"] == {"heads": 0.5, "ffn": 0.5, "seed": 0} and document["removed_layers"] == []
    config = json.loads((tmp_path / "small" / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"]
    assert config["auto_map"]["AutoModelForMaskedLM"] == "modeling_prunectl.BertForMaskedLM"
    with safe_open(tmp_path / "small" / "model.safetensors", framework="pt") as weights:
        held = set(weights.keys())
    assert "bert.embeddings.word_embeddings.weight" in held and "cls.predictions.decoder.weight" not in held
    manifest.verify(tmp_path / "small")


def test_whoever_may_read_the_directory_may_read_the_weights(tmp_path: Path) -> None:
    saved(original(tmp_path / "source"), tmp_path / "source", tmp_path / "small")
    modes = {file.stat().st_mode for file in (tmp_path / "small").iterdir()}
    assert modes == {(tmp_path / "small" / "config.json").stat().st_mode}


def test_matrices_without_rows_or_columns_survive(tmp_path: Path) -> None:
    model = original(tmp_path / "source", "distilbert")
    saved(model, tmp_path / "source", tmp_path / "small", empty=(0, 1))
    with safe_open(tmp_path / "small" / "model.safetensors", framework="pt") as weights:
        assert weights.get_slice("distilbert.transformer.layer.0.attention.q_lin.weight").get_shape() == [0, 32]
        assert weights.get_slice("distilbert.transformer.layer.1.ffn.lin2.weight").get_shape() == [32, 0]


def test_arguments_reach_from_pretrained_and_a_saved_copy_loads_too(tmp_path: Path) -> None:
    model = original(tmp_path / "source")
    saved(model, tmp_path / "source", tmp_path / "small", empty=(0,))
    eager = load_pruned(str(tmp_path / "small"), attn_implementation="eager", dtype=torch.float64)
    assert eager.config._attn_implementation == "eager" and eager.dtype == torch.float64
    batch = batches(model, 1)[0]
    torch.testing.assert_close(output(eager, batch).float(), output(model, batch), rtol=0, atol=1e-5)
    load_pruned(tmp_path / "small").save_pretrained(tmp_path / "copy")
    assert torch.equal(output(load_pruned(tmp_path / "copy"), batch), output(model, batch))


def test_the_carried_file_imports_nothing_but_torch_and_transformers(tmp_path: Path) -> None:
    saved(original(tmp_path / "source"), tmp_path / "source", tmp_path / "small")
    text = (tmp_path / "small" / "modeling_prunectl.py").read_text()
    imports = {line.split()[1].partition(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imports == {"torch", "transformers", "typing"}


def test_without_shapes_the_carried_classes_are_the_stock_ones() -> None:
    # Auto classes remember a class that was loaded with trust_remote_code for every later model of its family.
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=9
    )
    stock, carried = transformers.BertModel(config), pruned_class(transformers.BertModel)(config)
    sizes = [{name: tensor.shape for name, tensor in built.state_dict().items()} for built in (stock, carried)]
    assert sizes[0] == sizes[1] and type(carried).__name__ == "BertModel"


def test_an_occupied_directory_is_left_alone(tmp_path: Path) -> None:
    model = original(tmp_path / "source")
    with pytest.raises(FileExistsError):
        saved(model, tmp_path / "source", tmp_path / "source")


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
])  # fmt: skip
def test_a_full_disk_has_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    model = original(tmp_path / "source")
    monkeypatch.setattr(save, "save_file", full)
    with pytest.raises(DiskFull):
        saved(model, tmp_path / "source", tmp_path / "small")


def test_finalise_adds_metrics_and_card_and_seals(tmp_path: Path) -> None:
    pruned = saved(original(tmp_path / "source"), tmp_path / "source", tmp_path / "small")
    result = Result(
        model_digest="sha256:1", metrics={"eval_loss": Measure(before=1.0, after=1.5, stderr=0.1, n=9)}, stages=[],
        structure=pruned.structure, artifacts={}, conditions={"task": "fill-mask"},
    )  # fmt: skip
    save.finalise(tmp_path / "small", result, model_name="org/base")
    document = manifest.read_manifest(tmp_path / "small")
    assert document["metrics"] == {"eval_loss": {"before": 1.0, "after": 1.5, "stderr": 0.1, "n": 9}}
    assert document["kept"] == pruned.kept
    assert "| eval_loss | 1 | 1.5 | 0.1 | 9 |" in (tmp_path / "small" / "README.md").read_text()
    manifest.verify(tmp_path / "small")
    load_pruned(tmp_path / "small")


def test_a_flipped_bit_is_found_before_loading(tmp_path: Path) -> None:
    saved(original(tmp_path / "source"), tmp_path / "source", tmp_path / "small")
    weights = tmp_path / "small" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CorruptWeights, match="damaged"):
        load_pruned(tmp_path / "small")
