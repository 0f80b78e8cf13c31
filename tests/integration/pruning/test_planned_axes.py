"""A whole recipe planned from config.json alone, against models that were really cut."""

from __future__ import annotations

from typing import Any

import pytest

from prunectl.errors import InvalidInput
from prunectl.inspection import inspect
from prunectl.pruning import axes, depth, layers, planning, weights
from prunectl.recipe import Recipe
from support.models import FAMILIES, HEADS, model


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_and_weights_are_counted_before_anything_is_loaded(family: str) -> None:
    built = model(family, "fill-mask", layers=4)
    plan = axes.plan(layers.described(built), Recipe(layers=2, heads=0.5, weights=0.5))
    assert (plan.layers_total, plan.layers_removed) == (4, 2)
    assert (plan.units.heads_total, plan.units.heads_removed) == (8, 4), "of what the layers leave"
    layers.remove(built, (0, 3))
    assert planning.count_parameters(plan.config) == sum(parameter.numel() for parameter in built.parameters())
    whole = axes.plan(layers.described(built), Recipe(weights=0.5))
    sizes = [weights.oriented(built.get_submodule(path)).numel() for path in weights.prunable(built)]
    assert whole.weights_total == sum(sizes) and whole.weights_zeroed == sum(sizes) // 2
    assert plan.weights_total < whole.weights_total


def test_a_pattern_and_a_corpus_are_planned_too() -> None:
    config = layers.described(model("bert", "fill-mask"))
    plan = axes.plan(config, Recipe(weight_pattern="4:8", vocab="builtin:python-docs"))
    assert plan.weights_zeroed * 2 == plan.weights_total
    assert plan.notes == (axes.VOCABULARY_NOTE,)
    assert plan.parameters == planning.count_parameters(config)


def test_a_recipe_that_fits_only_before_the_layers_go_is_refused() -> None:
    config = layers.described(model("bert", "fill-mask", layers=4))
    axes.plan(config, Recipe(heads=0.5, min_heads=2))
    with pytest.raises(InvalidInput, match="nearest") as caught:
        axes.plan(config, Recipe(layers=4, heads=0.5))
    assert caught.value.field == "layers"


def test_textpruner_refuses_a_corpus_and_says_why() -> None:
    config = layers.described(model("xlm-roberta", "fill-mask"))
    recipe = Recipe(vocab="builtin:python-docs", engine="textpruner")
    with pytest.raises(InvalidInput, match="vocabulary pruner.*can prune bert and electra") as caught:
        axes.check_vocabulary(config, recipe)
    assert caught.value.field == "engine"
    axes.check_vocabulary(config, Recipe(vocab="builtin:python-docs"))
    axes.check_vocabulary(layers.described(model("bert", "fill-mask")), recipe)


def test_a_model_without_a_vocabulary_cannot_lose_any() -> None:
    config = {"model_type": "vit", "architectures": ["ViTModel"]}
    with pytest.raises(InvalidInput, match="ViTModel has no vocabulary"):
        axes.check_vocabulary(config, Recipe(vocab="builtin:python-docs"))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_inspection_counts_every_parameter_once(family: str, head: str) -> None:
    built = model(family, head, layers=3)
    found = inspect(layers.described(built), "m")
    assert found.parameters == sum(found.parts.values()) == sum(p.numel() for p in built.parameters())
    assert found.parts["embeddings"] > sum(p.numel() for p in built.get_input_embeddings().parameters())
    [stack] = found.stacks
    assert (stack.layers, stack.heads, stack.ffn, stack.shared) == (3, 4, 48, False)


def test_savings_are_what_cutting_really_saves() -> None:
    built = model("bert", "fill-mask", layers=3)
    savings = {saving.axis: saving for saving in inspect(layers.described(built), "m").savings}
    before = sum(parameter.numel() for parameter in built.parameters())
    layers.remove(built, (1, 2))
    assert savings["layers"].parameters == before - sum(parameter.numel() for parameter in built.parameters())
    assert savings["weights"].parameters == 3 * (4 * 32 * 32 + 2 * 32 * 48)
    assert savings["vocab"].parameters == built.config.vocab_size * 33, "a row of the embedding and of the head's bias"
    assert savings["heads"].units == 12 and savings["ffn"].units == 144


def test_alternate_configuration_names_are_kept_in_step() -> None:
    config: dict[str, Any] = {"model_type": "distilbert", "n_layers": 6, "num_hidden_layers": 6}
    assert depth.without(config, (0, 1)) == {"model_type": "distilbert", "n_layers": 4, "num_hidden_layers": 4}
