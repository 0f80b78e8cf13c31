"""Selection: TextPruner's order and ties, the recipe's counts."""

from __future__ import annotations

import pytest
import torch
from textpruner.pruners.utils import generate_mask

from prunectl.errors import CorruptWeights
from prunectl.pruning import planning
from prunectl.pruning.architectures import BlockShape, shape_of
from prunectl.pruning.masks import Masks, keep_best, next_masks
from prunectl.pruning.scores import Scores
from prunectl.recipe import Recipe


def scores(seed: int, layers: int = 4, heads: int = 6, ffn: int = 24, *, ties: bool = False) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.rand(layers, units, generator=generator) for units in (heads, ffn)]
    return Scores(*((part * 5).floor() if ties else part for part in made))


def blocks(layers: int = 4, heads: int = 6, ffn: int = 24) -> tuple[BlockShape, ...]:
    return shape_of({
        "model_type": "bert", "num_hidden_layers": layers, "num_attention_heads": heads, "hidden_size": heads * 2,
        "intermediate_size": ffn,
    }).blocks  # fmt: skip


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("even", "multiple_of"), [(False, 1), (True, 1), (False, 4)])
def test_the_order_is_textpruners(even: bool, multiple_of: int, ties: bool) -> None:
    compared = 0
    for seed in range(25):
        for kept in (92, 80, 64, 48, 29):
            importance = scores(seed, ties=ties).ffn
            ours = keep_best(importance, kept, even, multiple_of)
            if (ours.sum(1) == 0).any():
                continue  # there the library puts a unit back
            assert torch.equal(ours, generate_mask(importance, kept, even, multiple_of=multiple_of).bool())
            compared += 1
    assert compared > 50


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(heads=0.5, ffn=0.7),
        Recipe(heads=0.75, min_heads=1),
        Recipe(heads=0.5, min_heads=3),
        Recipe(heads=0.5, ffn=0.6, even=True),
        Recipe(ffn=0.6, multiple_of=8),
        Recipe(ffn=0.6, multiple_of=4, min_ffn=6),
        Recipe(ffn=0.9, min_ffn=2),
        Recipe(heads=0.9, ffn=0.95),
        Recipe(heads=0.6, ffn=0.6, iterations=5, min_heads=1),
        Recipe(heads=0.5, ffn=0.5, iterations=4, even=True),
    ],
)
def test_counts_minimums_and_multiples_hold_and_iterations_only_remove(recipe: Recipe) -> None:
    for seed in range(20):
        masks = Masks()
        for step in range(recipe.iterations):
            before, masks = masks, next_masks(scores(seed * 100 + step), recipe, step, masks, blocks())
            for old, new in ((before.heads, masks.heads), (before.ffn, masks.ffn)):
                assert old is None or new is None or not (new & ~old).any()
        for mask, rankings, least, units in (
            (masks.heads, planning.rank_heads(recipe, blocks()), recipe.min_heads, 6),
            (masks.ffn, planning.rank_ffn(recipe, blocks()), recipe.min_ffn, 24),
        ):
            if mask is None:
                continue
            kept = mask.sum(1)
            assert int(kept.sum()) == 4 * units - sum(ranking.removed for ranking in rankings)
            assert int(kept.min()) >= least
            assert not recipe.even or len(set(kept.tolist())) == 1
            assert units == 6 or not (kept % recipe.multiple_of).any()


def test_the_lowest_scores_go_and_an_untouched_axis_has_no_mask() -> None:
    given = Scores(torch.tensor([[1.0, 9.0], [2.0, 8.0]]), torch.ones(2, 4))
    masks = next_masks(given, Recipe(heads=0.5), 0, Masks(), blocks(2, 2, 4))
    assert masks.ffn is None and masks.heads is not None
    assert masks.heads.tolist() == [[False, True], [False, True]]


def test_a_layer_may_lose_everything_unless_a_minimum_forbids_it() -> None:
    given = Scores(torch.tensor([[1.0, 2.0], [8.0, 9.0]]), torch.ones(2, 4))
    empty = next_masks(given, Recipe(heads=0.5), 0, Masks(), blocks(2, 2, 4)).heads
    guarded = next_masks(given, Recipe(heads=0.5, min_heads=1), 0, Masks(), blocks(2, 2, 4)).heads
    assert empty is not None and empty.tolist() == [[False, False], [True, True]]
    assert guarded is not None and guarded.tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    broken = Scores(torch.full((2, 2), bad), torch.ones(2, 4))
    with pytest.raises(CorruptWeights, match="not finite"):
        next_masks(broken, Recipe(heads=0.5), 0, Masks(), blocks(2, 2, 4))
