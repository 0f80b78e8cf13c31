"""Refit: what the kept units can make up for is made up for, in every family; nothing gets worse."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from prunectl.errors import CorruptWeights
from prunectl.pruning import engine, refit, surgery, token_weights
from prunectl.pruning.blocks import find_blocks, linear
from prunectl.pruning.masks import Masks
from prunectl.recipe import Recipe
from support.models import EVERY_FAMILY, heads_of, model
from support.pruning import batches, loss, masks_for, output


class Products(TorchDispatchMode):
    """Counts products of matrices, those of linear layers among them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return func(*args, **(kwargs or {}))


def fidelity(whole: Any) -> Any:
    """The distance from what the unpruned model says, as a loss."""
    whole = copy.deepcopy(whole)

    def measure(built: Any, batch: Any) -> torch.Tensor:
        return (built(**batch)[0] - whole(**batch)[0]).square().mean()

    return measure


def with_twins(built: Any) -> Masks:
    """Makes each block's second half of neurons a copy of its first, and gives the masks that remove the copies."""
    masks = masks_for(built, seed=0, keep=1.1)
    assert masks.ffn is not None
    with torch.no_grad():
        for row, block in enumerate(find_blocks(built)):
            half = block.ffn_total // 2
            for path in block.ffn_first:
                matrix: Any = linear(built, path)
                weight = matrix.weight if hasattr(matrix, "nf") is False else matrix.weight.T
                weight[half:] = weight[:half]
                if matrix.bias is not None:
                    matrix.bias[half:] = matrix.bias[:half]
            masks.ffn[row, half : block.ffn_total] = False
    return masks


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_what_others_can_do_too_is_not_missed(family: str) -> None:
    built = model(family, heads_of(family)[0])
    masks = with_twins(built)
    whole, given = copy.deepcopy(built), batches(built, 3, 16, 6)
    expected = output(whole, given[0])
    lost = float((engine.masked_outputs(built, masks, given[0]) - expected).norm())
    found = refit.refit(built, masks, given, fidelity(whole))
    left = float((engine.masked_outputs(built, masks, given[0]) - expected).norm())
    assert lost > 0.05, "removing the copies changes nothing: the test is blind"
    # Layers that share their weights are solved for at once, with inputs from before the solution.
    assert left < (0.5 if family == "albert" else 0.15) * lost
    assert found.matrices and not found.undone and found.loss_after < found.loss_before


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "albert", "llama"])
def test_the_cut_model_computes_what_the_refitted_masked_one_does(family: str) -> None:
    built = model(family, heads_of(family)[0])
    masks = masks_for(built, seed=3, empty=(0,))
    given = batches(built, 2, 16, 6)
    refit.refit(built, masks, given, fidelity(built))
    expected = engine.masked_outputs(built, masks, given[0])
    surgery.apply(built, masks)
    torch.testing.assert_close(
        output(built, given[0]), expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max()))
    )


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_what_a_layer_has_computed_is_not_computed_again(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    built = model(family, heads_of(family)[0])
    masks, given = masks_for(built, seed=3), batches(built, 2, 16, 6)

    def refitted() -> tuple[dict[str, torch.Tensor], int]:
        """The weights, and the products of matrices that it took."""
        small = copy.deepcopy(built)
        with Products() as products:
            refit.refit(small, masks, given, fidelity(built))
        return dict(small.state_dict()), products.count

    weights, work = refitted()
    monkeypatch.setattr(refit, "reusable", lambda _stages: [])
    expected, more = refitted()
    torch.testing.assert_close(weights, expected, rtol=0, atol=0)
    assert work == more if family == "albert" else work < more  # shared layers are run whole


def test_one_matrix_is_the_ridge_solution() -> None:
    """Against numpy's least squares on rows that were gathered by hand."""
    built = model("bert", "fill-mask", layers=1)
    masks = Masks(torch.ones(1, 4, dtype=torch.bool), torch.arange(48).view(1, 48) % 2 == 0)
    given, old = batches(built, 3, 16, 6), copy.deepcopy(built)
    found = refit.refit(built, masks, given, fidelity(built))
    assert [fit.module for fit in found.fits] == ["bert.encoder.layer.0.output.dense"]
    x, y = [], []
    old_second: Any = old.bert.encoder.layer[0].output.dense

    def gather(_module: Any, inputs: Any, result: Any) -> None:
        real = batch["attention_mask"].bool()
        x.append(inputs[0][real])
        y.append(result[real])

    hook = old_second.register_forward_hook(gather)
    for batch in given:
        output(old, batch)
    hook.remove()
    inputs, targets = torch.cat(x).double()[:, ::2], torch.cat(y).double()
    penalty = found.fits[0].ridge * inputs.square().sum(0).mean()  # type: ignore[operator]
    rows = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    # Weights are held back in units of their mean square, the bias in its own: it enters every row as 1.
    held = torch.cat([penalty.expand(24), (found.fits[0].ridge * len(inputs) * torch.ones(1)).double()]).sqrt()  # type: ignore[operator]
    former = torch.cat([old_second.weight.detach()[:, ::2].T, old_second.bias.detach().unsqueeze(0)]).double()
    rows = torch.cat([rows, torch.diag(held)])
    wanted = torch.cat([targets, held.unsqueeze(1) * former])
    solution = torch.linalg.lstsq(rows, wanted, driver="gelsd").solution
    second = built.bert.encoder.layer[0].output.dense
    torch.testing.assert_close(second.weight[:, ::2].double().T, solution[:-1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(second.bias.double(), solution[-1], rtol=1e-3, atol=1e-5)


def test_a_loss_that_would_rise_undoes_everything() -> None:
    built = model("bert", "fill-mask")
    before = copy.deepcopy(built.state_dict())
    closer = fidelity(built)
    found = refit.refit(built, masks_for(built, seed=2), batches(built, 2, 16, 6), lambda m, b: -closer(m, b))
    assert found.undone and found.matrices == 0 and found.loss_after == found.loss_before
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())


def test_nothing_removed_changes_nothing_and_leaves_no_trace() -> None:
    built = model("roberta", "fill-mask").train()
    before = copy.deepcopy(built.state_dict())
    heard: list[float] = []
    found = refit.refit(built, masks_for(built, seed=0, keep=1.1), batches(built), loss, progress=heard.append)
    assert found.fits == [] and heard == [0.5, 1.0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())
    assert built.training
    for module in built.modules():
        assert not module._forward_pre_hooks and not module._forward_hooks and "forward" not in vars(module)


def test_a_text_that_is_held_back_takes_no_part_in_the_choice() -> None:
    assert refit.held_back({"input_ids": torch.zeros(17, 3)}).nonzero().squeeze(1).tolist() == [0, 8, 16]


def test_weights_that_are_no_numbers_are_named() -> None:
    built = model("bert", "fill-mask")
    with torch.no_grad():
        built.bert.encoder.layer[0].intermediate.dense.weight[:] = float("nan")
    with pytest.raises(CorruptWeights, match="not a finite number"):
        refit.refit(built, masks_for(built, seed=2), batches(built, 2, 16, 6), loss)


def test_the_recipe_says_whether(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model("bert", "fill-mask")
    given = batches(whole, 2, 16, 6)
    close = fidelity(whole)
    outputs = {}
    for refits in (True, False):
        built = copy.deepcopy(whole)
        pruned = engine.prune(built, Recipe(heads=0.5, ffn=0.5, scorer="magnitude", refit=refits), given, close)
        assert (pruned.refit is not None) == refits
        outputs[refits] = float((output(built, given[0]) - output(whole, given[0])).norm())
    assert outputs[True] < 0.9 * outputs[False]


def test_tokens_weigh_as_the_loss_listens_to_them() -> None:
    """Of the last layer, a classifier of BERT's reads the first token alone; of the first layer, all of them."""
    built = model("bert", "text-classification")
    given = batches(built, 2, 4, 6)
    names = ["bert.encoder.layer.0.output.dense", "bert.encoder.layer.1.output.dense"]
    flags = [parameter.requires_grad for parameter in built.parameters()]
    found = token_weights.token_weights(built, given, loss, names)

    def narrow(built: Any, batch: Any) -> torch.Tensor:
        if len(batch["input_ids"]) > 2:
            raise torch.OutOfMemoryError("no")
        return loss(built, batch)

    halves = token_weights.token_weights(built, given, narrow, names)
    for name in names:
        for (whole,), (pieced,) in zip(found[name], halves[name], strict=True):
            torch.testing.assert_close(pieced, whole, rtol=1e-3, atol=1e-5)
    for batch, (first,), (last,) in zip(given, found[names[0]], found[names[1]], strict=True):
        tokens = batch["attention_mask"].sum(1)
        starts = torch.cat([torch.zeros(1, dtype=torch.long), tokens.cumsum(0)[:-1]])
        floor = token_weights.FLOOR / (1 + token_weights.FLOOR)
        expected = torch.full((int(tokens.sum()),), floor)
        expected[starts] += tokens / (1 + token_weights.FLOOR)
        torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-5)
        assert (first > floor).all() and float(first.mean()) == pytest.approx(1.0, rel=1e-4)
    assert [parameter.requires_grad for parameter in built.parameters()] == flags
    assert not any(module._forward_hooks for module in built.modules())
