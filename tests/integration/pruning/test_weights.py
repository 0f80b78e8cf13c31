"""Weights: what each granularity, scorer and pattern zeroes, to the weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prunectl.errors import CorruptWeights, InvalidInput
from prunectl.evaluation import macs
from prunectl.pruning import axes, layers, planning, weights
from prunectl.recipe import Recipe
from support.models import FAMILIES, model
from support.pruning import batches, loss


def scores() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {"a": torch.rand(4, 8, generator=generator), "b": 10 * torch.rand(6, 5, generator=generator)}


def zeroed(masks: weights.Masks) -> dict[str, int]:
    return {path: int((~mask).sum()) for path, mask in masks.items()}


def test_elements_are_ranked_over_the_whole_model() -> None:
    given = scores()
    masks = weights.keep(given, Recipe(weights=0.5))
    assert sum(zeroed(masks).values()) == 31 and zeroed(masks)["a"] > 25
    kept = torch.cat([given[path][mask] for path, mask in masks.items()])
    gone = torch.cat([given[path][~mask] for path, mask in masks.items()])
    assert gone.max() <= kept.min()


def test_matrices_lose_the_same_share_each() -> None:
    given = scores()
    masks = weights.keep(given, Recipe(weights=0.4, weight_granularity="matrix"))
    assert zeroed(masks) == {"a": planning.share(0.4, 32), "b": planning.share(0.4, 30)}
    assert all(given[path][~mask].max() <= given[path][mask].min() for path, mask in masks.items())


def test_tensors_go_whole_by_their_mean() -> None:
    masks = weights.keep(scores(), Recipe(weights=0.6, weight_granularity="tensor"))
    assert zeroed(masks) == {"a": 32, "b": 0}
    with pytest.raises(InvalidInput, match=r"nearest that can be met: weights=0\.4839") as caught:
        weights.keep(scores(), Recipe(weights=0.3, weight_granularity="tensor"))
    assert caught.value.field == "weights"
    nearest = Recipe(weights=0.4839, weight_granularity="tensor")
    assert sum(zeroed(weights.keep(scores(), nearest)).values()) in (30, 32)


@pytest.mark.parametrize("granularity", ["element", "matrix"])
def test_wanda_compares_within_an_output_row(granularity: str) -> None:
    recipe = Recipe(weights=0.5, scorer="wanda", weight_granularity=granularity)  # type: ignore[arg-type]
    masks = weights.keep(scores(), recipe)
    assert all((~masks["a"]).sum(1) == 4) and all((~masks["b"]).sum(1) == 2)


@pytest.mark.parametrize("scorer", ["magnitude", "wanda"])
def test_two_of_four(scorer: str) -> None:
    masks = weights.keep(scores(), Recipe(weight_pattern="2:4", scorer=scorer))  # type: ignore[arg-type]
    assert (masks["a"].reshape(-1, 4).sum(1) == 2).all()
    assert (masks["b"][:, :4].sum(1) == 2).all() and masks["b"][:, 4].all(), "a rest shorter than 4 stays"


def test_ties_are_broken_to_the_exact_count() -> None:
    for removed in range(8):
        mask = weights._lowest(torch.ones(3, 7), removed) if removed < 7 else None
        assert mask is None or (~mask).sum(1).tolist() == [removed] * 3


def test_wanda_scores_are_weight_times_the_norm_of_its_input_without_padding() -> None:
    built = model("bert", "feature-extraction", layers=1)
    given = batches(built, 2)
    path = "encoder.layer.0.attention.self.query"
    rows = []
    handle = built.get_submodule(path).register_forward_pre_hook(lambda _m, inputs: rows.append(inputs[0].detach()))
    with torch.no_grad():
        for batch in given:
            built(**batch)
    handle.remove()
    real = torch.cat([x[batch["attention_mask"].bool()] for x, batch in zip(rows, given, strict=True)])
    norms = weights.input_norms(built, given, loss)
    torch.testing.assert_close(norms[path], real.square().sum(0).sqrt())
    weight = built.get_submodule(path).weight
    assert isinstance(weight, Tensor)
    torch.testing.assert_close(weights.importance(built, path, "wanda", norms, 0), weight.detach().abs() * norms[path])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_models_blocks_lose_the_share_and_nothing_else_changes(family: str) -> None:
    built = model(family, "fill-mask")
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    nonzero = macs.nonzero_parameters(built)
    prunable = weights.prunable(built)
    found = weights.zero(built, weights.choose(built, Recipe(weights=0.5), batches(built), loss))
    assert found.total == axes.prunable_weights(layers.described(built))
    assert found.zeroed == found.total // 2 == nonzero - macs.nonzero_parameters(built)
    for name, tensor in built.state_dict().items():
        if name.removesuffix(".weight") in prunable:
            assert torch.equal(tensor[tensor != 0], before[name][tensor != 0])
        else:
            assert torch.equal(tensor, before[name])


def test_a_weight_that_is_no_number_is_an_error() -> None:
    built = model("bert", "fill-mask")
    with torch.no_grad():
        built.bert.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
    with pytest.raises(CorruptWeights, match=r"layer\.0\.output\.dense"):
        weights.choose(built, Recipe(weights=0.5), batches(built), loss)


def test_random_weights_follow_the_seed() -> None:
    built = model("bert", "fill-mask")
    drawn = [
        weights.choose(built, Recipe(weights=0.5, scorer="random", seed=seed), batches(built), loss)
        for seed in (1, 1, 2)
    ]
    path = weights.prunable(built)[0]
    assert torch.equal(drawn[0][path], drawn[1][path]) and not torch.equal(drawn[0][path], drawn[2][path])
