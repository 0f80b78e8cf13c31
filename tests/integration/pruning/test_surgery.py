"""The invariant: the small model computes what the masked one computed, whatever the family and the mask."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunectl.pruning import surgery
from prunectl.pruning.blocks import find_blocks
from prunectl.pruning.masks import Masks
from support.models import FAMILIES, HEADS, model
from support.pruning import batches, output, random_masks


@functools.cache
def original(family: str, head: str, attention: str) -> Any:
    return model(family, head, layers=3, attn_implementation=attention)


@given(
    family=st.sampled_from(FAMILIES),
    head=st.sampled_from(HEADS),
    attention=st.sampled_from(["sdpa", "eager"]),
    seed=st.integers(0, 2**31),
    keep=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    empty=st.sets(st.integers(0, 2)),
)
@settings(max_examples=25, deadline=None)
def test_small_equals_masked(family: str, head: str, attention: str, seed: int, keep: float, empty: set[int]) -> None:
    whole = original(family, head, attention)
    masks = random_masks(3, 4, 48, seed=seed, keep=keep, empty=tuple(empty))
    small = copy.deepcopy(whole)
    surgery.apply(small, masks)
    assert masks.heads is not None and masks.ffn is not None
    for batch in batches(whole, 2):
        with surgery.masked(whole, masks):
            expected = output(whole, batch)
        torch.testing.assert_close(output(small, batch), expected, rtol=0, atol=1e-5)
    assert [block.heads_total for block in find_blocks(small)] == masks.heads.sum(1).tolist()
    assert [block.ffn_total for block in find_blocks(small)] == masks.ffn.sum(1).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_with_a_layer_that_keeps_nothing(family: str) -> None:
    whole = original(family, "fill-mask", "sdpa")
    masks = random_masks(3, 4, 48, seed=1, empty=(1,))
    small = copy.deepcopy(whole)
    surgery.apply(small, masks)
    batch = batches(whole, 1)[0]
    with surgery.masked(whole, masks):
        expected = output(whole, batch)
    assert not torch.allclose(expected, output(whole, batch), atol=1e-2), "the masks change nothing: the test is blind"
    torch.testing.assert_close(output(small, batch), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_modules_report_their_new_sizes(family: str) -> None:
    small = model(family, "fill-mask")
    masks = Masks(heads=torch.tensor([[True, True, True, False], [False] * 4]))
    surgery.apply(small, masks)
    first, second = find_blocks(small)
    module, empty = small.get_submodule(first.module), small.get_submodule(second.module)
    assert (getattr(module, first.heads_attribute), getattr(module, first.width_attribute)) == (3, 24)
    assert (getattr(empty, first.heads_attribute), getattr(empty, first.width_attribute)) == (0, 0)
    assert isinstance(empty, type(module)), "hooks of transformers find attention modules by class"
    for path in (first.query, first.output, second.query, second.output):
        matrix: Any = small.get_submodule(path)
        assert list(matrix.weight.shape) == [matrix.out_features, matrix.in_features]


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_maps_of_every_layer_can_still_be_seen(family: str) -> None:
    small = model(family, "feature-extraction", attn_implementation="eager")
    surgery.apply(small, Masks(heads=torch.tensor([[False] * 4, [True, False, True, True]])))
    with torch.inference_mode():
        seen = small(**batches(small, 1)[0], output_attentions=True).attentions
    assert [list(weights.shape) for weights in seen] == [[4, 0, 9, 9], [4, 3, 9, 9]]


def test_a_small_model_can_be_trained_on() -> None:
    small = model("bert", "fill-mask")
    surgery.apply(small, random_masks(2, 4, 48, seed=2, empty=(0,)))
    small.train()
    small(**batches(small, 1)[0])[0].sum().backward()
    gradients = [
        parameter.grad
        for parameter in small.parameters()
        if parameter.numel() and "bert.encoder" in name_of(small, parameter)
    ]
    assert sum(gradient is not None and bool(gradient.any()) for gradient in gradients) > 10


def name_of(built: Any, wanted: Any) -> str:
    return next(name for name, parameter in built.named_parameters() if parameter is wanted)


@pytest.mark.parametrize("masks", [
    Masks(heads=torch.ones(2, 5, dtype=torch.bool)), Masks(heads=torch.ones(3, 4, dtype=torch.bool)),
    Masks(heads=torch.ones(2, 4, dtype=torch.bool), ffn=torch.ones(1, 48, dtype=torch.bool)),
])  # fmt: skip
def test_masks_that_do_not_fit_change_nothing(masks: Masks) -> None:
    built = model("bert", "fill-mask")
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    with pytest.raises(ValueError, match="doesn't fit"):
        surgery.apply(built, masks)
    assert all(torch.equal(before[name], tensor) for name, tensor in built.state_dict().items())


def test_masking_leaves_no_hook_behind() -> None:
    built = model("bert", "fill-mask")
    with pytest.raises(RuntimeError, match="inside"), surgery.masked(built, random_masks(2, 4, 48, seed=0)):
        raise RuntimeError("inside")
    assert not any(module._forward_pre_hooks for module in built.modules())
