"""Every family: cut equals masked, counts are exact, and the record names every mask."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import pytest
import torch

from prunectl.errors import InvalidInput, UnsupportedArchitecture
from prunectl.evaluation import macs
from prunectl.pruning import engine, planning, surgery
from prunectl.pruning.architectures import FAMILIES, family_of, shape_of
from prunectl.pruning.blocks import find_blocks
from prunectl.pruning.masks import Masks
from prunectl.recipe import Recipe
from support.models import EVERY_FAMILY, TRANSLATORS, heads_of, model
from support.pruning import batches, loss, masks_for, output


def described(built: Any) -> dict[str, Any]:
    return {**built.config.to_dict(), "architectures": [type(built).__name__]}


def kept_of(built: Any) -> tuple[list[int], list[int]]:
    blocks = find_blocks(built)
    return [block.heads_total for block in blocks], [block.ffn_total for block in blocks]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_what_is_recorded_rebuilds_what_the_cut_model_computes(family: str) -> None:
    whole = model(family, heads_of(family)[0])
    small = copy.deepcopy(whole)
    pruned = engine.apply(small, masks_for(whole, seed=5, empty=(0,)))
    batch = batches(whole, 1)[0]
    plain = output(whole, batch)
    with ExitStack() as hooks:
        for entry in pruned.kept:
            module: Any = whole.get_submodule(entry["module"])
            mask = torch.zeros(entry["total"])
            mask[entry["kept"]] = 1.0
            inputs = module.weight.shape[0 if hasattr(module, "nf") else 1]
            mask = mask.repeat_interleave(inputs // entry["total"])
            hooks.enter_context(module.register_forward_pre_hook(lambda _m, given, mask=mask: (given[0] * mask,)))
        expected = output(whole, batch)
    assert not torch.allclose(plain, expected, atol=1e-2), "the masks change nothing: the test is blind"
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(output(small, batch), expected, rtol=0, atol=1e-5 * scale)
    assert len({entry["module"] for entry in pruned.kept}) == len(pruned.kept), "a module that is shared stands once"


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_parameters_and_macs_are_exact_whole_and_cut(family: str) -> None:
    built = model(family, heads_of(family)[0])
    plan = described(built)
    assert planning.count_parameters(plan) == macs.parameters(built)
    assert planning.count_macs(plan, 20) == macs.count(built, 20)
    surgery.apply(built, masks_for(built, seed=3, empty=(1,) if family != "albert" else ()))
    assert planning.count_parameters(plan, *kept_of(built)) == macs.parameters(built)
    assert planning.count_macs(plan, 20, *kept_of(built)) == macs.count(built, 20)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_blocks_are_those_that_the_configuration_states(family: str) -> None:
    built = model(family, heads_of(family)[-1])
    stated, found = shape_of(described(built)).blocks, find_blocks(built)
    for name in ("stack", "index", "attention", "heads_total", "head_dim", "group", "ffn_total"):
        assert [getattr(block, name) for block in stated] == [getattr(block, name) for block in found]
    assert [f"{block.path}.{block.entry.output}" for block in stated] == [
        block.output.removeprefix(f"{built.base_model_prefix}.") for block in found
    ]


def test_a_decoder_layer_is_two_blocks_and_its_neurons_stand_with_the_first() -> None:
    built = model("bart", "text2text-generation", layers=1)
    pruned = engine.prune(built, Recipe(heads=0.4, ffn=0.25), batches(built), loss)
    blocks = [(b.stack, b.index, b.attention, b.heads_total, b.ffn_total) for b in pruned.structure.layers]
    assert blocks == [
        ("encoder", 0, "self", 4, 48), ("decoder", 0, "self", 2, 64), ("decoder", 0, "cross", 2, 0),
        ("decoder", 1, "self", 2, 64), ("decoder", 1, "cross", 2, 0),
    ]  # fmt: skip
    gone = sum(b.heads_total - len(b.heads_kept) for b in pruned.structure.layers)
    assert gone == int(0.4 * 12) and sum(b.ffn_total - b.ffn_kept for b in pruned.structure.layers) == 176 // 4
    assert [b.ffn_kept for b in pruned.structure.layers if b.attention == "cross"] == [0, 0]


def test_shared_layers_are_one_block_with_one_mask() -> None:
    built = model("albert", "fill-mask", layers=6, num_hidden_groups=2)
    pruned = engine.prune(built, Recipe(heads=0.5), batches(built), loss)
    assert [(b.index, b.heads_total) for b in pruned.structure.layers] == [(0, 4), (1, 4)]
    assert [entry["module"] for entry in pruned.kept] == [
        f"albert.encoder.albert_layer_groups.{group}.albert_layers.0.attention.dense" for group in range(2)
    ]
    plan = {**shape_of(described(built)).words}
    assert plan["groups"] == 2 and planning.count_macs(described(built), 20, *kept_of(built)) == macs.count(built, 20)


@pytest.mark.parametrize(("fraction", "removed"), [(0.3, 2), (0.24, 0), (0.25, 2), (0.9, 6)])
def test_grouped_queries_go_by_whole_groups_and_never_more_than_the_floor(fraction: float, removed: int) -> None:
    built = model("llama", "text-generation")
    planned = planning.units_to_remove(described(built), Recipe(heads=fraction))
    assert (planned.heads_total, planned.heads_removed) == (8, removed)
    structure = engine.prune(built, Recipe(heads=fraction), batches(built), loss).structure
    assert sum(4 - len(block.heads_kept) for block in structure.layers) == removed
    for block in structure.layers:
        assert all((head ^ 1) in block.heads_kept for head in block.heads_kept), "two query heads share a key"


def test_a_group_is_never_split() -> None:
    built = model("mistral", "text-generation")
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    with pytest.raises(ValueError, match="groups of 2"):
        surgery.apply(built, Masks(heads=torch.tensor([[True] * 4, [True, False, True, True]])))
    assert all(torch.equal(before[name], tensor) for name, tensor in built.state_dict().items())


def test_kinds_of_attention_are_separate_axes() -> None:
    built = model("t5", "text2text-generation", num_decoder_layers=2)
    recipe = Recipe(heads={"encoder": 0.25, "cross": 0.5})
    planned = planning.units_to_remove(described(built), recipe)
    assert (planned.heads_total, planned.heads_removed) == (24, 2 + 4)
    gone = {"encoder": 0, "decoder": 0, "cross": 0}
    for block in engine.prune(built, recipe, batches(built), loss).structure.layers:
        gone[planning.kind_of(block)] += block.heads_total - len(block.heads_kept)
    assert gone == {"encoder": 2, "decoder": 0, "cross": 4}


def test_all_kinds_at_one_fraction_are_ranked_apart() -> None:
    plan = described(model("bart", "text2text-generation"))
    apart = planning.units_to_remove(plan, Recipe(heads={"encoder": 0.3, "decoder": 0.3, "cross": 0.3}))
    together = planning.units_to_remove(plan, Recipe(heads=0.3))
    assert apart.heads_removed == int(0.3 * 8) + 2 * int(0.3 * 6) and together.heads_removed == int(0.3 * 20)


@pytest.mark.parametrize(("family", "kind", "known"), [("bert", "cross", "encoder"), ("gpt2", "encoder", "decoder")])
def test_a_kind_that_the_model_lacks_is_refused_with_those_it_has(family: str, kind: str, known: str) -> None:
    with pytest.raises(InvalidInput, match=f"no {kind} attention; it has {known}") as caught:
        planning.units_to_remove({"model_type": family}, Recipe(heads={kind: 0.3}))
    assert caught.value.field == "heads"


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("family", [*TRANSLATORS, "llama"])
def test_counts_and_minimums_hold_where_stacks_differ(family: str, even: bool) -> None:
    built = model(family, heads_of(family)[0])
    recipe = Recipe(heads=0.5, ffn=0.5, even=even, min_heads=1, min_ffn=3, iterations=2, scorer="random", seed=3)
    planned = planning.units_to_remove(described(built), recipe)
    structure = engine.prune(built, recipe, batches(built, 1), loss).structure.layers
    assert sum(b.heads_total - len(b.heads_kept) for b in structure) == planned.heads_removed
    assert sum(b.ffn_total - b.ffn_kept for b in structure) == planned.ffn_removed
    assert all(len(b.heads_kept) >= 1 for b in structure)
    assert all(b.ffn_kept >= 3 for b in structure if b.ffn_total)
    if even:
        assert all(len(b.heads_kept) == b.heads_total // 2 and b.ffn_kept == b.ffn_total // 2 for b in structure)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_even_shares_add_up(family: str) -> None:
    plan = described(model(family, heads_of(family)[0]))
    planned = planning.units_to_remove(plan, Recipe(heads=0.3, ffn=0.3))
    shares = planning.even_shares(plan, planned)
    assert sum(shares.heads) == planned.heads_total - planned.heads_removed
    assert sum(shares.ffn) == planned.ffn_total - planned.ffn_removed
    assert shares.approximate is (family == "bart"), "its decoder's heads are larger than its encoder's"


@pytest.mark.parametrize("family", ["t5", "mpnet"])
def test_a_position_bias_is_cut_to_the_heads_that_stayed(family: str) -> None:
    whole = model(family, heads_of(family)[0], attn_implementation="eager")
    heads = torch.ones(len(find_blocks(whole)), 4, dtype=torch.bool)
    heads[0] = torch.tensor([False, True, True, False])
    small = copy.deepcopy(whole)
    surgery.apply(small, Masks(heads=heads))
    attention: Any = small.get_submodule(find_blocks(small)[0].module)
    assert attention.kept_heads == [1, 2]
    batch = batches(whole, 1)[0]
    with surgery.masked(whole, Masks(heads=heads)):
        expected = output(whole, batch)
    torch.testing.assert_close(output(small, batch), expected, rtol=1e-5, atol=1e-5)
    attention.__class__ = type(attention).__mro__[1]  # the stock class: it gets biases of heads that are gone
    with pytest.raises(RuntimeError, match="size of tensor"):
        output(small, batch)


def test_settings_that_make_another_model_are_refused() -> None:
    with pytest.raises(UnsupportedArchitecture, match="share_encoder_decoder_embeddings=False"):
        family_of({"model_type": "marian", "share_encoder_decoder_embeddings": False})
    with pytest.raises(UnsupportedArchitecture, match="num_key_value_heads 3"):
        shape_of({"model_type": "llama", "num_attention_heads": 8, "num_key_value_heads": 3})
    assert family_of({"model_type": "marian"}) is FAMILIES["marian"]
