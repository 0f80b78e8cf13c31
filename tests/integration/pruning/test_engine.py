"""Recipes to smaller models: counts, both engines, and what is recorded."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from textpruner import GeneralConfig, TransformerPruner, TransformerPruningConfig

from prunectl.errors import EngineUnavailable, InvalidInput, UnsupportedArchitecture
from prunectl.pruning import engine, planning, surgery
from prunectl.pruning.engine import Pruned
from prunectl.pruning.textpruner import LossModel, supports
from prunectl.recipe import Recipe
from support.models import FAMILIES, HEADS, model
from support.pruning import batches, loss, output

RECIPES = [
    Recipe(heads=0.4, min_heads=1),
    Recipe(heads=0.6, ffn=0.95, min_heads=1),
    Recipe(heads=0.5, ffn=0.5, iterations=3, min_heads=1),
    Recipe(heads=0.5, ffn=0.3, iterations=2, even=True, min_heads=1),
    Recipe(ffn=0.6, multiple_of=8),
    Recipe(ffn=0.3, even=True, multiple_of=4),
    Recipe(heads=0.5, ffn=0.5, scorer="random", seed=9, min_heads=1),
]


def with_engine(recipe: Recipe, name: str) -> Recipe:
    return recipe.model_copy(update={"engine": name, "refit": False})


def removed(pruned: Pruned) -> tuple[int, int]:
    layers = pruned.structure.layers
    return sum(b.heads_total - len(b.heads_kept) for b in layers), sum(b.ffn_total - b.ffn_kept for b in layers)


@pytest.mark.parametrize(
    "recipe", RECIPES, ids=lambda recipe: ",".join(f"{k}={v}" for k, v in recipe.document().items())
)
@pytest.mark.parametrize("family", ["xlm-roberta", "electra"])
def test_both_engines_keep_the_same_units_and_give_the_same_model(family: str, recipe: Recipe) -> None:
    whole = model(family, "fill-mask", layers=3)
    given = batches(whole)
    ours, theirs = copy.deepcopy(whole), copy.deepcopy(whole)
    native = engine.prune(ours, with_engine(recipe, "native"), given, loss)
    library = engine.prune(theirs, with_engine(recipe, "textpruner"), given, loss)
    planned = planning.units_to_remove(whole.config.to_dict(), recipe)
    assert removed(native) == removed(library) == (planned.heads_removed, planned.ffn_removed)
    assert native.kept == library.kept
    torch.testing.assert_close(output(ours, given[0]), output(theirs, given[0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        output(ours, given[0]), engine.masked_outputs(whole, native.masks, given[0]), rtol=0, atol=1e-5
    )
    shapes = [{name: list(tensor.shape) for name, tensor in built.state_dict().items()} for built in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("even", [False, True])
def test_the_engine_walks_as_the_librarys_own_loop_does(even: bool, tmp_path: Path) -> None:
    whole = model("bert", "text-classification", layers=3)
    given = batches(whole)
    config = TransformerPruningConfig(
        target_ffn_size=24,
        target_num_of_heads=2,
        pruning_method="iterative",
        n_iters=2,
        ffn_even_masking=even,
        head_even_masking=even,
    )
    pruner = TransformerPruner(
        LossModel(copy.deepcopy(whole), loss), config, GeneralConfig(use_device="cpu", output_dir=str(tmp_path))
    )
    pruner.prune(given, keep_shape=True, save_model=False)
    for name in ("native", "textpruner"):
        recipe = Recipe(heads=0.5, ffn=0.5, iterations=2, even=even, min_heads=1, engine=name)
        masks = engine.choose_masks(copy.deepcopy(whole), recipe, given, loss)
        assert masks.heads is not None and masks.ffn is not None
        assert torch.equal(masks.heads, pruner.head_mask.bool())
        assert torch.equal(masks.ffn, pruner.ffn_mask.bool())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_recorded_rebuilds_the_masked_original(family: str, head: str) -> None:
    whole = model(family, head, layers=3)
    given = batches(whole)
    small = copy.deepcopy(whole)
    pruned = engine.prune(small, Recipe(heads=0.6, ffn=0.6, refit=False), given, loss)
    assert len(pruned.kept) == 6
    with ExitStack() as hooks:
        for entry in pruned.kept:
            module: Any = whole.get_submodule(entry["module"])
            mask = torch.zeros(entry["total"])
            mask[entry["kept"]] = 1.0
            mask = mask.repeat_interleave(module.in_features // entry["total"])
            hooks.enter_context(module.register_forward_pre_hook(lambda _m, inputs, mask=mask: (inputs[0] * mask,)))
        expected = output(whole, given[0])
    torch.testing.assert_close(output(small, given[0]), expected, rtol=0, atol=1e-5)
    assert {entry["unit"] for entry in pruned.kept} == {"head", "neuron"}


def test_an_untouched_axis_is_not_recorded_as_masked() -> None:
    pruned = engine.prune(built := model("bert", "fill-mask"), Recipe(heads=0.5), batches(built), loss)
    assert [entry["module"] for entry in pruned.kept] == [
        "bert.encoder.layer.0.attention.output.dense", "bert.encoder.layer.1.attention.output.dense"
    ]  # fmt: skip
    assert [block.ffn_kept for block in pruned.structure.layers] == [48, 48]


def test_textpruner_keeps_a_head_a_layer_and_still_removes_what_was_asked() -> None:
    whole = model("bert", "fill-mask", layers=3)
    with torch.no_grad():  # the first layer's heads matter least by far
        whole.bert.encoder.layer[0].attention.output.dense.weight.mul_(1e-4)
    pruned = engine.prune(whole, Recipe(heads=0.5, engine="textpruner"), batches(whole), loss)
    kept = [len(block.heads_kept) for block in pruned.structure.layers]
    assert kept[0] == 1 and sum(kept) == 6


def test_textpruner_may_leave_a_feed_forward_empty_as_the_native_engine_does() -> None:
    whole = model("bert", "fill-mask", layers=3)
    with torch.no_grad():
        whole.bert.encoder.layer[1].output.dense.weight.mul_(1e-5)
    kept = []
    for name in ("native", "textpruner"):
        pruned = engine.prune(copy.deepcopy(whole), Recipe(ffn=0.7, engine=name, refit=False), batches(whole), loss)
        kept.append([block.ffn_kept for block in pruned.structure.layers])
    assert kept[0] == kept[1] and kept[0][1] == 0 and sum(kept[0]) == 144 - 100


def test_textpruner_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    built = model("bert", "fill-mask")
    heard: list[float] = []
    recipe = Recipe(heads=0.5, ffn=0.5, iterations=2, engine="textpruner")
    masks = engine.choose_masks(built, recipe, batches(built), loss, progress=heard.append, workspace=tmp_path / "work")
    engine.apply(built, masks, engine="textpruner")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not hasattr(built.bert, "prune_heads")
    assert heard == sorted(heard) and heard[-1] == 1.0 and len(heard) == 4
    assert capfd.readouterr().out == "", "stdout is data"
    assert all(parameter.grad is None for parameter in built.parameters())


@pytest.mark.parametrize("scorer", ["taylor", "random"])
def test_the_same_recipe_gives_the_same_model(scorer: Any) -> None:
    recipe = Recipe(heads=0.5, ffn=0.5, scorer=scorer, seed=4)
    kept = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        kept.append(engine.prune(built := model("roberta", "fill-mask"), recipe, batches(built), loss).kept)
    assert kept[0] == kept[1]


def test_engine_textpruner_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textpruner", None)
    built = model("bert", "fill-mask")
    with pytest.raises(EngineUnavailable) as caught:
        engine.prune(built, Recipe(heads=0.5, engine="textpruner"), batches(built), loss)
    assert "pip install --no-deps textpruner==1.1.post2" in str(caught.value.hint)


def test_engine_textpruner_without_the_family() -> None:
    built = model("distilbert", "fill-mask")
    with pytest.raises(InvalidInput, match="bert, roberta, xlm-roberta, electra"):
        engine.prune(built, Recipe(heads=0.5, engine="textpruner"), batches(built), loss)
    with pytest.raises(InvalidInput):
        supports(built.config.to_dict())
    supports({"model_type": "bert"})


def test_a_model_that_has_been_pruned_is_refused() -> None:
    built = model("bert", "fill-mask")
    given = batches(built)
    surgery.apply(built, engine.choose_masks(built, Recipe(heads=0.4), given, loss))
    with pytest.raises(UnsupportedArchitecture, match="pruned already"):
        engine.prune(built, Recipe(heads=0.4), given, loss)


@pytest.fixture(autouse=True)
def _random_state() -> Iterator[None]:
    state = torch.random.get_rng_state()
    yield
    torch.random.set_rng_state(state)


@pytest.mark.parametrize("family", ["bart", "t5", "mt5"])
def test_families_that_textpruner_maps_for_their_vocabulary_alone(family: str, tmp_path: Path) -> None:
    built = model(family, "text2text-generation")
    with pytest.raises(InvalidInput, match=f"layers of {family} .its model map has the family for vocabulary alone"):
        supports(built.config.to_dict())
    with pytest.raises(AttributeError, match="intermediate_size"):  # what the library itself does with them
        TransformerPruner(
            LossModel(built, loss),
            TransformerPruningConfig(),
            GeneralConfig(output_dir=str(tmp_path), use_device="cpu"),
        ).get_importance_score(batches(built, 1))
