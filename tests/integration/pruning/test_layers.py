"""Layers: influence, choice, removal; the smaller model computes what the larger one with the layers skipped does."""

from __future__ import annotations

import copy

import pytest
import torch

from prunectl.errors import InvalidInput
from prunectl.pruning import depth, engine, layers, planning
from prunectl.pruning.masks import Masks
from prunectl.recipe import Recipe
from support.models import FAMILIES, config, model
from support.pruning import batches, loss, output, random_masks

TWELVE = {"model_type": "bert", "num_hidden_layers": 12}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_smaller_model_computes_what_skipping_gives(family: str) -> None:
    whole = model(family, "fill-mask", layers=4)
    batch = batches(whole, 1)[0]
    for removed in ((1, 2), (0, 1, 3)):
        small = copy.deepcopy(whole)
        layers.remove(small, removed)
        with layers.skipped(whole, removed):
            expected = output(whole, batch)
        assert not torch.allclose(expected, output(whole, batch), atol=1e-3), "skipping changes nothing: a blind test"
        torch.testing.assert_close(output(small, batch), expected, rtol=0, atol=1e-6)
        described = layers.described(small)
        assert depth.stacks_of(described)[0].layers == 4 - len(removed)
        assert planning.count_parameters(described) == sum(p.numel() for p in small.parameters())


def test_influence_is_one_minus_the_mean_cosine_of_a_layers_two_sides() -> None:
    whole = model("bert", "fill-mask", layers=3)
    given = batches(whole, 2)
    expected = torch.zeros(3)
    tokens = 0
    for batch in given:
        with torch.inference_mode():
            states = whole(**batch, output_hidden_states=True).hidden_states
        real = batch["attention_mask"].bool()
        tokens += int(real.sum())
        for index in range(3):
            cosine = torch.cosine_similarity(states[index], states[index + 1], dim=-1)
            expected[index] += cosine[real].sum()
    hooks = [len(module._forward_hooks) for module in whole.modules()]  # transformers has put some of its own
    found = layers.block_influence(whole, given, loss)
    torch.testing.assert_close(torch.tensor(found), 1 - expected / tokens, rtol=1e-4, atol=1e-6)
    assert [len(module._forward_hooks) for module in whole.modules()] == hooks


def test_a_layer_that_does_nothing_goes_first() -> None:
    whole = model("bert", "fill-mask", layers=4)
    with torch.no_grad():
        for name, parameter in whole.bert.encoder.layer[2].named_parameters():
            if "output" in name and "LayerNorm" not in name:
                parameter.zero_()
            if "LayerNorm" in name:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    found = layers.block_influence(whole, batches(whole), loss)
    assert min(found) == found[2]
    assert depth.choose(layers.described(whole), Recipe(layers=1), found) == (2,)


@pytest.mark.parametrize(
    ("choice", "removed"),
    [("top", (9, 10, 11)), ("bottom", (0, 1, 2)), ("alternate", (6, 8, 10)), ("influence", (3, 4, 5))],
)
def test_which_layers_go(choice: str, removed: tuple[int, ...]) -> None:
    influence = [abs(index - 4.0) for index in range(12)]
    recipe = Recipe(layers=3, layer_choice=choice)  # type: ignore[arg-type]
    assert depth.choose(TWELVE, recipe, influence) == removed


def test_random_layers_follow_the_seed() -> None:
    drawn = {depth.choose(TWELVE, Recipe(layers=4, layer_choice="random", seed=seed)) for seed in range(20)}
    assert len(drawn) > 10 and all(len(set(layers)) == 4 for layers in drawn)
    recipe = Recipe(layers=4, layer_choice="random", seed=3)
    assert depth.choose(TWELVE, recipe) == depth.choose(TWELVE, recipe)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [(12, "layers=11"), (40, "layers=11"), ("3,12", "nearest: 11"), (tuple(range(12)), "without 11")],
)
def test_what_cannot_be_removed_names_the_nearest_that_can(given: object, nearest: str) -> None:
    with pytest.raises(InvalidInput, match=nearest) as caught:
        depth.count(TWELVE, Recipe(layers=given))  # type: ignore[arg-type]
    assert caught.value.field == "layers"


def test_what_heads_and_neurons_kept_is_told_in_the_original_numbers() -> None:
    whole = model("bert", "fill-mask", layers=4)
    original = layers.described(whole)
    layers.remove(whole, (0, 2))
    pruned = layers.in_original(engine.apply(whole, random_masks(2, 4, 48, seed=1)), original, (0, 2))
    assert [block.index for block in pruned.structure.layers] == [1, 3]
    assert pruned.structure.removed_layers == [0, 2]
    assert [entry["module"] for entry in pruned.kept] == [
        f"bert.encoder.layer.{index}.{part}" for index in (1, 3) for part in ("attention.output.dense", "output.dense")
    ]


def test_nothing_removed_leaves_the_model_alone() -> None:
    whole = model("distilbert", "fill-mask")
    before = config("distilbert", "fill-mask").to_dict()
    layers.remove(whole, ())
    assert whole.config.n_layers == before["n_layers"]
    assert layers.in_original(engine.apply(whole, Masks()), layers.described(whole), ()).structure.removed_layers == []
