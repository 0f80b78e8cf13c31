"""Foreign, damaged and hostile directories: refused by their headers, before a weight is allocated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunectl.checkpoints import load_pruned, save
from prunectl.checkpoints.checks import check_shapes
from prunectl.checkpoints.load import load_original
from prunectl.errors import CorruptWeights, MissingWeights, PrunectlError, UnsafeWeights, UnsupportedArchitecture
from prunectl.pruning import engine
from prunectl.recipe import Recipe
from support.models import build
from support.pruning import batches, output, random_masks


def config_of(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return document


def opened(directory: Path) -> Any:
    return load_original(directory, config_of(directory))


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def reconfigure(directory: Path, **values: Any) -> None:
    (directory / "config.json").write_text(json.dumps({**config_of(directory), **values}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return build(tmp_path / "source", "bert", "fill-mask")


@pytest.fixture
def small(source: Path, tmp_path: Path) -> Path:
    """A checkpoint without SHA256SUMS, so that only the checks behind it stand."""
    model = opened(source)
    pruned = engine.apply(model, random_masks(2, 4, 48, seed=1, empty=(0,)))
    save.save(
        model, source=source, directory=tmp_path / "small", recipe=Recipe(heads=0.5), pruned=pruned, provenance={}
    )
    (tmp_path / "small" / "SHA256SUMS").unlink()
    return tmp_path / "small"


def test_truncated_weights(source: Path) -> None:
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CorruptWeights, match="not a whole safetensors file"):
        opened(source)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"PK\x03\x04 a zip, such as a pickle comes in"])
def test_weights_that_are_something_else(source: Path, content: bytes) -> None:
    (source / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptWeights):
        opened(source)


_QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.update({_QUERY: torch.zeros(32, 31)}), r"query.weight is \[32, 31\], not \[32, 32\]"),
        (lambda t: t.pop(_QUERY), "missing: .*query.weight"),
        (lambda t: t.update({_QUERY.replace("layer.0", "layer.2"): torch.zeros(32, 32)}), r"fit nowhere.*layer\.2"),
        (lambda t: t.update({_QUERY: torch.zeros(32, 32, dtype=torch.int32)}), "floating point"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    source: Path, change: Callable[[dict[str, torch.Tensor]], Any], named: str
) -> None:
    rewrite(source, change)
    with pytest.raises(CorruptWeights, match=named):
        opened(source)


def test_a_config_of_another_size_than_its_weights(source: Path) -> None:
    for values in (
        {"vocab_size": 401},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 9000},
    ):
        with pytest.raises(CorruptWeights):
            load_original(source, {**config_of(source), **values})


def test_pickles_are_never_opened(source: Path) -> None:
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(b"not looked at")
    with pytest.raises(UnsafeWeights, match=r"pytorch_model\.bin") as caught:
        opened(source)
    assert "save_pretrained" in str(caught.value.hint)


def test_a_config_without_weights(source: Path) -> None:
    (source / "model.safetensors").unlink()
    with pytest.raises(MissingWeights):
        opened(source)


@pytest.mark.parametrize("name", ["BertForMultipleChoice", "os", "BertConfig", "GPT2Model", ""])
def test_a_class_that_is_not_the_familys(source: Path, name: str) -> None:
    with pytest.raises(UnsupportedArchitecture):
        load_original(source, {**config_of(source), "architectures": [name]})


def test_a_config_that_no_model_can_be_built_from(source: Path) -> None:
    with pytest.raises(CorruptWeights):
        load_original(source, {**config_of(source), "hidden_act": "no such function"})
    with pytest.raises(CorruptWeights):
        load_original(source, {**config_of(source), "hidden_dropout_prob": "much"})


def test_old_names_extra_heads_and_saved_positions_still_load(source: Path) -> None:
    expected = output(opened(source), batches(opened(source), 1)[0])

    def age(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            if name.endswith(("LayerNorm.weight", "LayerNorm.bias")):
                tensors[name.replace(".weight", ".gamma").replace("Norm.bias", "Norm.beta")] = tensors.pop(name)
        tensors["cls.seq_relationship.weight"] = torch.zeros(2, 32)
        tensors["bert.pooler.dense.weight"] = torch.zeros(32, 32)
        tensors["bert.embeddings.position_ids"] = torch.arange(70).unsqueeze(0)

    rewrite(source, age)
    assert torch.equal(output(opened(source), batches(opened(source), 1)[0]), expected)


def test_a_bare_encoder_may_come_without_its_pooler(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "bert", "feature-extraction")
    expected = output(opened(source), batches(opened(source), 1)[0])
    rewrite(source, lambda tensors: [tensors.pop(f"pooler.dense.{part}") for part in ("weight", "bias")])
    assert torch.equal(output(opened(source), batches(opened(source), 1)[0]), expected)


def test_a_classifier_may_not_come_without_its_pooler(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "bert", "text-classification")
    rewrite(source, lambda tensors: tensors.pop("bert.pooler.dense.weight"))
    with pytest.raises(CorruptWeights, match=r"pooler\.dense\.weight"):
        opened(source)


def test_sharded_weights(source: Path) -> None:
    model = opened(source)
    expected = output(model, batches(model, 1)[0])
    (source / "model.safetensors").unlink()
    model.save_pretrained(source, max_shard_size="20KB")
    index = source / "model.safetensors.index.json"
    assert index.exists()
    assert torch.equal(output(opened(source), batches(model, 1)[0]), expected)
    shards = json.loads(index.read_text())
    first = next(iter(shards["weight_map"]))
    index.write_text(json.dumps({**shards, "weight_map": {**shards["weight_map"], first: "../elsewhere.safetensors"}}))
    with pytest.raises(CorruptWeights, match="elsewhere"):
        opened(source)
    index.write_text(json.dumps({**shards, "weight_map": {**shards["weight_map"], first: "gone.safetensors"}}))
    with pytest.raises(MissingWeights, match="gone"):
        opened(source)


def test_load_pruned_wants_a_pruned_checkpoint(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CorruptWeights, match="not a prunectl checkpoint"):
        load_pruned(source)
    with pytest.raises(MissingWeights):
        load_pruned(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorruptWeights, match=r"no config\.json"):
        load_pruned(tmp_path / "empty")


_SELF = "encoder.layer.0.attention.self"


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"linears": []},
        {"linears": {f"{_SELF}.query": [64, 32]}},
        {"linears": {f"{_SELF}.query": [-1, 32]}},
        {"linears": {f"{_SELF}.query": [True, 32]}},
        {"linears": {f"{_SELF}.query": [10**15, 32]}},
        {"linears": {"embeddings.word_embeddings": [1, 1]}},
        {"linears": {"encoder.layer.9.output.dense": [32, 8]}},
        {"attributes": {_SELF: {"forward": 0}}},
        {"attributes": {_SELF: {"num_attention_heads": 10**9, "all_head_size": 0}}},
        {"attributes": {"encoder": {"num_attention_heads": 1, "all_head_size": 8}}},
        {"empty": {_SELF: "__class__"}},
        {"empty": {"encoder": None}},
    ],
)
def test_shapes_that_are_not_a_cut_of_the_original(shapes: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"linears": {}, "attributes": {}, "empty": {}}
    bert = {
        "model_type": "bert",
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
    }
    check_shapes({**bert, "prunectl": whole})
    with pytest.raises(CorruptWeights, match=r"config\.json"):
        check_shapes({**bert, "prunectl": {**whole, **shapes} if shapes else {}})


def test_load_pruned_checks_the_shapes_against_table_and_weights(small: Path) -> None:
    load_pruned(small)
    whole = config_of(small)["prunectl"]
    reconfigure(small, prunectl={**whole, "empty": {"encoder": None}})
    with pytest.raises(CorruptWeights, match=r"config\.json calls 'encoder'"):
        load_pruned(small)
    reconfigure(small, prunectl={"linears": {}, "attributes": {}, "empty": {}})
    with pytest.raises(CorruptWeights, match="wrong shape"):
        load_pruned(small)


@pytest.mark.parametrize("remove", ["cls.predictions.bias", "bert.encoder.layer.1.output.dense.weight"])
def test_a_checkpoint_must_be_complete_and_hold_nothing_else(small: Path, remove: str) -> None:
    rewrite(small, lambda tensors: tensors.update({"foreign": torch.zeros(1)}))
    with pytest.raises(CorruptWeights, match="foreign"):
        load_pruned(small)
    rewrite(small, lambda tensors: (tensors.pop("foreign"), tensors.pop(remove)))
    with pytest.raises(CorruptWeights, match="missing"):
        load_pruned(small)


def test_code_in_a_checkpoint_is_not_run(small: Path) -> None:
    (small / "modeling_prunectl.py").write_text("raise SystemExit('ran')")
    load_pruned(small)


@pytest.mark.parametrize("part", ["config.json", "model.safetensors"])
def test_random_damage_is_always_an_error_of_ours(small: Path, part: str) -> None:
    content = (small / part).read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(12):
        at = int(torch.randint(0, min(len(content), 2000), (1,), generator=generator))
        (small / part).write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            load_pruned(small)
        except PrunectlError:
            refused += 1
    assert refused > 0
