"""The invariant over all families: the small model computes what the masked one computed, whatever the mask."""

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
from support.models import EVERY_FAMILY, heads_of, model
from support.pruning import batches, masks_for, output


@functools.cache
def original(family: str, head: str, attention: str) -> Any:
    return model(family, head, layers=3, attn_implementation=attention)


@pytest.mark.parametrize("family", EVERY_FAMILY)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_small_equals_masked(family: str, data: st.DataObject) -> None:
    only_plain = family in ("deberta-v2", "mpnet")
    attention = data.draw(st.sampled_from(["eager"] if only_plain else ["sdpa", "eager"]))
    whole = original(family, data.draw(st.sampled_from(heads_of(family))), attention)
    rows = range(len(find_blocks(whole)))
    masks = masks_for(
        whole,
        seed=data.draw(st.integers(0, 2**31)),
        keep=data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])),
        empty=tuple(data.draw(st.sets(st.sampled_from(rows)))),
    )
    axes = data.draw(st.sampled_from(["both", "heads", "ffn"]))
    masks = Masks(None if axes == "ffn" else masks.heads, None if axes == "heads" else masks.ffn)
    small = copy.deepcopy(whole)
    surgery.apply(small, masks)
    for batch in batches(whole, 2):
        with surgery.masked(whole, masks):
            expected = output(whole, batch)
        # Relative to the largest output where that is above 1, as the check of every job is.
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(output(small, batch), expected, rtol=0, atol=1e-5 * scale)
    kept = [block.heads_total for block in find_blocks(small)]
    if masks.heads is not None:
        assert kept == [
            int(masks.heads[row, : block.heads_total].sum()) for row, block in enumerate(find_blocks(whole))
        ]
