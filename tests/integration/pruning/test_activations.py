"""Scores without a gradient equal their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prunectl.pruning import activations, engine, surgery
from prunectl.pruning.blocks import find_blocks
from prunectl.pruning.masks import Masks
from prunectl.recipe import Recipe
from support.models import FAMILIES, model
from support.pruning import batches, loss


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_is_the_mean_output_over_real_tokens(family: str) -> None:
    built = model(family, "fill-mask")
    given = batches(built, 2)
    found = activations.activation(built, given, loss)
    block = find_blocks(built)[1]
    heads, neurons = _inputs(built, block.output, given), _inputs(built, str(block.ffn_second), given)
    expected = heads.view(-1, block.heads_total, block.head_dim).norm(dim=-1).mean(0)
    torch.testing.assert_close(found.heads[1], expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.ffn[1], neurons.abs().mean(0), rtol=1e-5, atol=1e-7)


def test_magnitude_is_the_norm_of_everything_that_goes_with_a_unit() -> None:
    built = model("bert", "fill-mask")
    found = activations.magnitude(built)
    layer = built.bert.encoder.layer[0]
    rows = slice(8, 16)  # the second head
    parts = [
        *(getattr(layer.attention.self, name).weight[rows] for name in ("query", "key", "value")),
        layer.attention.output.dense.weight[:, rows],
    ]
    expected = torch.cat([part.flatten() for part in parts]).norm()
    torch.testing.assert_close(found.heads[0, 1], expected.detach())
    neuron = torch.cat([layer.intermediate.dense.weight[5], layer.output.dense.weight[:, 5]]).norm()
    torch.testing.assert_close(found.ffn[0, 5], neuron.detach())


@pytest.mark.parametrize("scorer", ["activation", "magnitude"])
def test_units_that_put_out_nothing_go_first(scorer: str) -> None:
    built = model("bert", "fill-mask", layers=3)
    with torch.no_grad():
        for layer in built.bert.encoder.layer:
            layer.intermediate.dense.weight[:12] = 0.0
            layer.intermediate.dense.bias[:12] = 0.0
            layer.output.dense.weight[:, :12] = 0.0
            for name in ("query", "key", "value"):
                getattr(layer.attention.self, name).weight[:8] = 0.0
                getattr(layer.attention.self, name).bias[:8] = 0.0
            layer.attention.output.dense.weight[:, :8] = 0.0
    recipe = Recipe(heads=0.25, ffn=0.25, scorer=scorer)  # type: ignore[arg-type]
    masks = engine.choose_masks(built, recipe, batches(built), loss)
    assert masks.heads is not None and masks.ffn is not None
    assert not masks.heads[:, 0].any() and masks.heads[:, 1:].all()
    assert not masks.ffn[:, :12].any() and masks.ffn[:, 12:].all()


def test_iterations_score_the_masked_model() -> None:
    built = model("roberta", "fill-mask")
    masks = Masks(torch.tensor([[True, False, True, True]] * 2), torch.arange(96).view(2, 48) % 2 == 0)
    assert masks.ffn is not None
    with surgery.masked(built, masks):
        found = activations.activation(built, batches(built), loss)
    assert not found.ffn[~masks.ffn].any() and not found.heads[:, 1].any()


def _inputs(built: torch.nn.Module, path: str, given: list[dict[str, Tensor]]) -> Tensor:
    seen: list[Tensor] = []
    handle = built.get_submodule(path).register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        for batch in given:
            built(**batch)
    handle.remove()
    return torch.cat([x[batch["attention_mask"].bool()] for x, batch in zip(seen, given, strict=True)])
