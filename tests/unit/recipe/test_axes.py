"""Recipes of several axes: what they may say, what they mean, and that old digests stand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from prunectl.errors import InvalidInput
from prunectl.recipe import Recipe
from prunectl.schemas import JobCreate, flatten, nest
from prunectl.validation import parse_job


def test_digests_of_the_first_version_stand() -> None:
    assert Recipe(heads=0.3).digest == "sha256:e330f52d70040a6e2472a76f20306bdd038cbf317ae7ca248976abb773ac1030"
    mixed = Recipe(heads=0.3, ffn=0.25, scorer="random", seed=3)
    assert mixed.digest == "sha256:dff9ec0d5aede069482251cc0afff56628b3590b43b187b7354b0d738ffaee2c"
    assert Recipe(heads=0.3, scorer="taylor").digest == Recipe(heads=0.3).digest
    assert Recipe(weights=0.5, scorer="magnitude").digest == Recipe(weights=0.5).digest
    assert Recipe(heads=0.3, scorer="magnitude").digest != Recipe(heads=0.3).digest


@pytest.mark.parametrize(
    ("given", "meant"),
    [(2, 2), ("2", 2), (" 2 ", 2), ("3,", (3,)), ("5,1,5", (1, 5)), ([4, 0], (0, 4)), ("0,11", (0, 11))],
)
def test_a_bare_number_counts_layers_and_a_list_names_them(given: Any, meant: Any) -> None:
    recipe = Recipe(layers=given)
    assert recipe.layers == meant
    assert Recipe(**recipe.document()) == Recipe(**recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("given", ["a", "1,b", -1, 1.5, True, [], "", ",", "1,,2", [1.5]])
def test_what_is_neither_is_refused_by_name(given: Any) -> None:
    with pytest.raises(InvalidInput, match="^layers: .*neither a number of layers nor indices") as caught:
        parse_job({"model": "m", "recipe": {"layers": given}})
    assert caught.value.field == "layers"


def test_a_pattern_implies_its_share() -> None:
    assert Recipe(weight_pattern="2:4").weights == 0.5
    with pytest.raises(ValidationError, match=r"removes weights=0\.5, no other"):
        Recipe(weight_pattern="2:4", weights=0.4)
    with pytest.raises(ValidationError, match="element only"):
        Recipe(weight_pattern="2:4", weight_granularity="matrix")


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"heads": 0.3, "scorer": "wanda"}, "heads takes taylor, fisher, activation, magnitude, random"),
        ({"weights": 0.3, "scorer": "taylor"}, "weights takes magnitude, wanda, random"),
        ({"layers": 2, "scorer": "random"}, "layer_choice"),
        ({"vocab": "builtin:python-docs", "scorer": "magnitude"}, "corpus"),
    ],
)
def test_a_scorer_that_no_axis_can_use_is_refused_with_those_that_can(recipe: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Recipe(**recipe)


def test_a_scorer_goes_where_it_can_and_the_rest_take_their_defaults() -> None:
    mixed = Recipe(heads=0.3, weights=0.5, scorer="wanda")
    assert (mixed.scorer_of("heads"), mixed.scorer_of("weights")) == ("taylor", "wanda")
    both = Recipe(ffn=0.3, weights=0.5, scorer="magnitude")
    assert both.scorer_of("ffn") == both.scorer_of("weights") == "magnitude"
    plain = Recipe(heads=0.3, weights=0.5)
    assert (plain.scorer_of("heads"), plain.scorer_of("weights")) == ("taylor", "magnitude")


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({}, "nothing to remove"),
        ({"seed": 3}, "nothing to remove"),
        ({"layers": "1,2", "layer_choice": "top"}, "give layers=N"),
        ({"heads": 0.1, "weight_granularity": "tensor"}, "needs weights=F"),
        ({"layers": 1, "engine": "textpruner"}, "no pruner for layers"),
        ({"heads": 0.1, "scorer": "activation", "engine": "textpruner"}, "taylor or random"),
    ],
)
def test_contradictions_are_refused(recipe: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Recipe(**recipe)


def test_axes_stand_in_the_order_of_the_steps() -> None:
    recipe = Recipe(weights=0.1, ffn=0.1, heads=0.1, layers=1, vocab="builtin:python-docs")
    assert recipe.axes == ("vocab", "layers", "heads", "ffn", "weights")


def test_a_flat_file_holds_all_of_it() -> None:
    flat = {
        "model": "m", "vocab": "builtin:python-docs", "layers": "0,2", "ffn": 0.2, "weights": 0.5,
        "weight-granularity": "matrix", "scorer": "magnitude",
    }  # fmt: skip
    job = parse_job(nest(flat))
    assert JobCreate.model_validate(nest(flatten(job))) == job
    assert flatten(job)["layers"] == [0, 2]


@pytest.mark.parametrize("timeout", ["30d", "90s", "1234567.5s", "0.00001s"])
def test_a_timeout_comes_back_as_it_was(timeout: str) -> None:
    job = JobCreate.model_validate({"model": "m", "recipe": {"heads": 0.1}, "timeout_seconds": timeout})
    assert JobCreate.model_validate(nest(flatten(job))) == job


def test_heads_and_neurons_are_refitted_unless_the_recipe_says_otherwise() -> None:
    usual, without = Recipe(heads=0.3), Recipe(heads=0.3, refit=False)
    assert usual.refit and not without.refit
    assert usual.document() == {"heads": 0.3, "seed": 0} and without.document()["refit"] is False
    assert usual.digest == Recipe(heads=0.3, refit=True).digest != without.digest
    for recipe in (usual, without, Recipe(layers=1), Recipe(ffn=0.2, engine="textpruner")):
        assert Recipe.model_validate(recipe.document()) == recipe
    assert not Recipe(layers=1).refit and not Recipe(ffn=0.2, engine="textpruner").refit


@pytest.mark.parametrize("recipe", [{"layers": 1}, {"weights": 0.5}, {"heads": 0.3, "engine": "textpruner"}])
def test_a_refit_of_nothing_is_refused(recipe: Any) -> None:
    with pytest.raises(ValidationError, match="refit can't be used"):
        Recipe(refit=True, **recipe)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"target_macs": 0.5, "speedup": 2}, "two budgets"),
        ({"target_macs": 0.5, "heads": 0.3}, "leave heads out"),
        ({"target_latency": 5, "engine": "textpruner"}, "no solver"),
        ({"speedup": 2, "even": True}, "even goes with"),
        ({"target_macs": 0.5, "iterations": 2}, "iterations goes with"),
        ({"target_macs": 0.5, "scorer": "magnitude"}, "takes fisher, taylor"),
        ({"target_macs": 1.5}, "less than 1"),
        ({"speedup": 1}, "greater than 1"),
    ],
)
def test_budgets_that_contradict_the_rest_are_refused(recipe: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Recipe(**recipe)


def test_a_budget_is_an_axis_with_a_scorer_and_a_refit_of_its_own() -> None:
    recipe = Recipe(target_macs=0.5, weights=0.5)
    assert recipe.axes == ("target_macs", "weights") and recipe.budget == "target_macs" and recipe.refit
    assert (recipe.scorer_of("target_macs"), recipe.scorer_of("weights")) == ("fisher", "magnitude")
    assert recipe.document() == {"target_macs": 0.5, "weights": 0.5, "seed": 0}
    assert Recipe(heads=0.5).budget is None


def test_int8_is_kept_in_an_onnx_file_and_old_digests_stay() -> None:
    recipe = Recipe(heads=0.3, quantize="int8")
    assert recipe.export == "onnx" and recipe.document() | {"seed": 0} == {
        "heads": 0.3,
        "quantize": "int8",
        "export": "onnx",
        "seed": 0,
    }
    assert recipe.digest == Recipe(heads=0.3, quantize="int8", export="onnx").digest != Recipe(heads=0.3).digest
    assert "export" not in Recipe(heads=0.3).document()
    assert recipe.digest == "sha256:8fb320ca64be781dfef98670f191e2e7c95572b1b1438ad58a1f87866b618e15"
    static = Recipe(heads=0.3, quantize="int8-static")
    assert static.document() == recipe.document() | {"quantize": "int8-static"} and static.digest != recipe.digest
    with pytest.raises(ValidationError, match="nothing to remove"):
        Recipe(quantize="int8")
    with pytest.raises(ValidationError, match="int8"):
        Recipe(heads=0.3, quantize="int4")  # type: ignore[arg-type]
