"""Checkpoints of every family: what they say of their shapes, what they carry, how a damaged one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from prunectl.checkpoints import load_pruned, manifest, save
from prunectl.checkpoints.load import load_original
from prunectl.errors import CorruptWeights
from prunectl.pruning import depth, engine, layers, planning
from prunectl.pruning.masks import Masks
from prunectl.recipe import Recipe
from support.models import EVERY_FAMILY, build, heads_of
from support.pruning import batches, masks_for, output


def original(directory: Path, family: str, **shape: Any) -> Any:
    build(directory, family, heads_of(family)[0], **shape)
    return load_original(directory, json.loads((directory / "config.json").read_text()))


def saved(model: Any, source: Path, directory: Path) -> None:
    pruned = engine.apply(model, masks_for(model, seed=2, empty=(0,)))
    save.save(model, source=source, directory=directory, recipe=Recipe(heads=0.5), pruned=pruned, provenance={})


@pytest.mark.parametrize("family", [family for family in EVERY_FAMILY if family not in ("bert", "roberta", "electra")])
def test_the_loaded_model_is_the_saved_one(family: str, tmp_path: Path) -> None:
    model = original(tmp_path / "source", family)
    saved(model, tmp_path / "source", tmp_path / "small")
    loaded = load_pruned(tmp_path / "small")
    batch = batches(model, 1)[0]
    assert type(loaded) is type(model)
    assert torch.equal(output(loaded, batch), output(model, batch))
    loaded.save_pretrained(tmp_path / "copy")
    assert torch.equal(output(load_pruned(tmp_path / "copy"), batch), output(model, batch))
    carried = (tmp_path / "small" / "preprocessor_config.json").is_file()
    assert carried is (family == "vit")
    assert (tmp_path / "small" / "generation_config.json").is_file() is bool(model.can_generate())


def test_names_of_older_releases_are_read(tmp_path: Path) -> None:
    build(tmp_path / "source", "vit", "image-classification")
    names = set(load_file(tmp_path / "source" / "model.safetensors"))
    assert any("encoder.layer.0.attention.attention.query" in name for name in names), "saved as older releases did"
    config = json.loads((tmp_path / "source" / "config.json").read_text())
    assert load_original(tmp_path / "source", config).vit.layers[0].attention.q_proj.weight.shape == (32, 32)


@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_a_t5_with_an_output_matrix_of_its_own_keeps_it(family: str, tmp_path: Path) -> None:
    source = build(tmp_path / "source", family, "text2text-generation", feed_forward_proj="gated-gelu")
    config = json.loads((source / "config.json").read_text()) | {"tie_word_embeddings": False}
    config.pop("scale_decoder_outputs", None)
    (source / "config.json").write_text(json.dumps(config))
    weights = load_file(source / "model.safetensors")
    weights["lm_head.weight"] = torch.randn(weights["shared.weight"].shape)
    # A leftover that published checkpoints have.
    weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(32, 4)
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    model = load_original(source, config)
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])
    assert planning.count_parameters(config) == sum(parameter.numel() for parameter in model.parameters())
    saved(model, source, tmp_path / "small")
    batch = batches(model, 1)[0]
    assert torch.equal(output(load_pruned(tmp_path / "small"), batch), output(model, batch))


@pytest.mark.parametrize(("family", "removed", "cached"), [
    ("t5", "0,", False), ("mt5", "0,", False), ("t5", "2,", True), ("bart", "0,", True), ("gpt2", "0,", True),
])  # fmt: skip
def test_what_lost_layers_still_writes(family: str, removed: str, cached: bool, tmp_path: Path) -> None:
    more = {"num_decoder_layers": 2} if family in ("t5", "mt5") else {}
    model = original(tmp_path / "source", family, **more)
    recipe = Recipe(layers=removed)
    whole = layers.described(model)
    gone = depth.choose(whole, recipe)
    layers.remove(model, gone)
    pruned = layers.in_original(engine.apply(model, Masks()), whole, gone)
    save.save(
        model, source=tmp_path / "source", directory=tmp_path / "small", recipe=recipe, pruned=pruned, provenance={}
    )
    ids = torch.tensor([[7, 8, 9]])
    wanted = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4}
    expected = model.generate(ids, use_cache=False, **wanted)
    auto = transformers.AutoModelForCausalLM if family == "gpt2" else transformers.AutoModelForSeq2SeqLM
    for loaded in (load_pruned(tmp_path / "small"), auto.from_pretrained(tmp_path / "small").eval()):
        assert bool(loaded.generation_config.use_cache) is cached
        assert torch.equal(loaded.generate(ids, **wanted), expected)


DAMAGE: list[tuple[str, str, Any]] = [
    ("t5", "biased", {"encoder.block.1.layer.0.SelfAttention": [0, 9]}),
    ("t5", "biased", {"encoder.block.1.layer.0.SelfAttention": [1, 0]}),
    ("t5", "biased", {"encoder.block.7.layer.0.SelfAttention": [0]}),
    ("bart", "biased", {"encoder.layers.1.self_attn": [0]}),
    ("t5", "attributes", {"encoder.block.1.layer.0.SelfAttention": {"n_heads": 2}}),
    ("bart", "attributes", {"encoder.layers.1.self_attn": {"num_heads": 10**9}}),
    ("llama", "attributes", {"layers.1.self_attn": {"forward": 1}}),
    ("llama", "empty", {"layers.1.self_attn": None}),
    ("llama", "linears", {"layers.1.self_attn.k_proj": [32, 32]}),
    ("gpt2", "linears", {"h.1.attn.c_attn": [32, 97]}),
    ("albert", "linears", {"encoder.albert_layer_groups.1.albert_layers.0.ffn": [1, 32]}),
    ("bart", "linears", {"decoder.layers.0.encoder_attn.q_proj": [33, 32]}),
]


@pytest.mark.parametrize(("family", "part", "wrong"), DAMAGE)
def test_shapes_that_the_family_cannot_have_are_refused(family: str, part: str, wrong: Any, tmp_path: Path) -> None:
    model = original(tmp_path / "source", family)
    saved(model, tmp_path / "source", tmp_path / "small")
    document = json.loads((tmp_path / "small" / "config.json").read_text())
    document["prunectl"][part] |= wrong
    (tmp_path / "small" / "config.json").write_text(json.dumps(document))
    manifest.seal(tmp_path / "small")
    with pytest.raises(CorruptWeights, match="config.json"):
        load_pruned(tmp_path / "small")
