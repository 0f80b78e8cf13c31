"""Counts from config.json alone: exact against real models, and refused where they contradict each other."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from prunectl.errors import InvalidInput
from prunectl.pruning import planning, surgery
from prunectl.recipe import Recipe
from support.models import FAMILIES, HEADS, config, model
from support.pruning import batches, random_masks

BERT = {
    "model_type": "bert",
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
}


def described(built: Any) -> dict[str, Any]:
    return {**built.config.to_dict(), "architectures": [type(built).__name__]}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_and_macs_equal_those_of_the_real_model_whole_and_cut(family: str, head: str) -> None:
    built = model(family, head, attn_implementation="eager")
    plan, length = described(built), 11
    masks = random_masks(2, 4, 48, seed=3)
    assert masks.heads is not None and masks.ffn is not None
    heads, ffn = masks.heads.sum(1).tolist(), masks.ffn.sum(1).tolist()
    assert planning.count_parameters(plan) == sum(parameter.numel() for parameter in built.parameters())
    assert planning.count_macs(plan, length) == _macs(built, length)
    surgery.apply(built, masks)
    assert planning.count_parameters(plan, heads, ffn) == sum(parameter.numel() for parameter in built.parameters())
    assert planning.count_macs(plan, length, heads, ffn) == _macs(built, length)


@pytest.mark.parametrize("family", FAMILIES)
def test_untied_vocabulary_projections_count_twice(family: str) -> None:
    built = model(family, "fill-mask", tie_word_embeddings=False)
    assert planning.count_parameters(described(built)) == sum(parameter.numel() for parameter in built.parameters())


@pytest.mark.parametrize(("family", "name"), [("bert", "BertForPreTraining"), ("electra", "ElectraForPreTraining")])
def test_pretraining_heads_count_too(family: str, name: str) -> None:
    built = getattr(transformers, name)(config(family, "fill-mask", attn_implementation="eager")).eval()
    assert planning.count_parameters(described(built)) == sum(parameter.numel() for parameter in built.parameters())
    assert planning.count_macs(described(built), 11) == _macs(built, 11)


def _macs(built: Any, length: int) -> int:
    batch = {name: tensor[1:2] for name, tensor in batches(built, 1, length=length)[0].items()}
    with FlopCounterMode(display=False) as counter:
        built(**batch)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("fraction", "total", "removed"),
    [(0.29, 100, 29), (0.3, 144, 43), (0.3, 10, 3), (0.57, 100, 57), (0.0, 12, 0), (1e-9, 9, 0)],
)
def test_a_share_is_the_floor_of_what_was_written(fraction: float, total: int, removed: int) -> None:
    assert planning.share(fraction, total) == removed


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 10**6))
@settings(max_examples=50, deadline=None)
def test_a_share_never_takes_everything(fraction: float, total: int) -> None:
    share = planning.share(fraction, total)
    assert 0 <= share < total
    assert share == Fraction(repr(fraction)) * total // 1


@given(st.integers(0, 5000), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_steps_grow_to_the_whole_by_equal_parts(removed: int, iterations: int) -> None:
    steps = planning.steps(removed, iterations)
    parts = [after - before for before, after in zip([0, *steps], steps, strict=False)]
    assert len(steps) == iterations and steps[-1] == removed
    assert max(parts) - min(parts) <= 1 and parts == sorted(parts, reverse=True)


@pytest.mark.parametrize(
    ("recipe", "heads", "ffn"),
    [
        (Recipe(heads=0.3), 43, 0),
        (Recipe(heads=0.3, even=True), 36, 0),
        (Recipe(ffn=0.5), 0, 18432),
        (Recipe(ffn=0.3), 0, 11059),
        (Recipe(ffn=0.3, multiple_of=64), 0, 36864 - 403 * 64),
        (Recipe(ffn=0.3, multiple_of=64, even=True), 0, 12 * (3072 - 33 * 64)),
        (Recipe(heads=0.99, ffn=0.99), 142, 36495),
        (Recipe(heads=0.9, min_heads=1), 129, 0),
    ],
)
def test_units_to_remove(recipe: Recipe, heads: int, ffn: int) -> None:
    planned = planning.units_to_remove(BERT, recipe)
    assert (planned.heads_total, planned.ffn_total) == (144, 36864)
    assert (planned.heads_removed, planned.ffn_removed) == (heads, ffn)


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"heads": 0.95, "min_heads": 1}, "heads"),
        ({"heads": 0.95, "engine": "textpruner"}, "heads"),
        ({"heads": 0.7, "min_heads": 5, "even": True}, "heads"),
        ({"ffn": 0.9, "min_ffn": 1000}, "ffn"),
        ({"ffn": 0.51, "min_ffn": 1500, "multiple_of": 512}, "ffn"),
    ],
)
def test_a_fraction_that_the_minimum_forbids_is_refused_with_the_nearest_that_it_allows(
    recipe: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        planning.units_to_remove(BERT, Recipe(**recipe))
    assert caught.value.field == field
    found = re.search(rf"nearest that can be met: {field}=([\d.]+)$", caught.value.message)
    assert found is not None
    planning.units_to_remove(BERT, Recipe(**{**recipe, field: float(found[1])}))
    with pytest.raises(InvalidInput):
        planning.units_to_remove(BERT, Recipe(**{**recipe, field: float(found[1]) + 0.0001}))


@pytest.mark.parametrize(
    ("recipe", "field", "nearest"),
    [
        ({"ffn": 0.5, "multiple_of": 100}, "multiple_of", "96"),
        ({"ffn": 0.99, "multiple_of": 3072, "even": True}, "multiple_of", "24"),
        ({"heads": 0.1, "min_heads": 13}, "min_heads", "12"),
        ({"ffn": 0.1, "min_ffn": 4000}, "min_ffn", "3072"),
    ],
)
def test_impossible_counts_name_the_nearest_possible(recipe: dict[str, Any], field: str, nearest: str) -> None:
    with pytest.raises(InvalidInput, match=rf"nearest.*: {nearest}$") as caught:
        planning.units_to_remove(BERT, Recipe(**recipe))
    assert caught.value.field == field
    if field == "multiple_of":
        planning.units_to_remove(BERT, Recipe(**{**recipe, field: int(nearest)}))


def test_textpruner_refuses_a_family_that_it_has_no_map_for() -> None:
    with pytest.raises(InvalidInput, match="bert, roberta, xlm-roberta, electra") as caught:
        planning.units_to_remove({"model_type": "distilbert"}, Recipe(heads=0.1, engine="textpruner"))
    assert caught.value.field == "engine"


def test_even_shares_add_up() -> None:
    planned = planning.units_to_remove(BERT, Recipe(heads=0.3, ffn=0.3))
    shares = planning.even_shares(BERT, planned)
    assert sum(shares.heads) == 144 - 43 and sum(shares.ffn) == 36864 - 11059
    assert max(shares.heads) - min(shares.heads) <= 1 and not shares.approximate
