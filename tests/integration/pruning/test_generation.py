"""A cut model writes what the masked one writes, token for token, whichever cache it keeps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from prunectl.pruning import surgery
from prunectl.pruning.blocks import find_blocks
from support.models import DECODERS, TRANSLATORS, heads_of, model
from support.pruning import batches, masks_for

WAYS: dict[str, dict[str, Any]] = {
    "cached": {},
    "uncached": {"use_cache": False},
    "beams": {"num_beams": 3},
    "static cache": {"cache_implementation": "static"},
}


def written(built: Any, way: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(tokens, what each step thought of every token)."""
    ids = batches(built, 1)[0]["input_ids"]
    steps = {"do_sample": False, "max_new_tokens": 6, "return_dict_in_generate": True, "output_logits": True}
    with torch.inference_mode():
        text = built.generate(ids, attention_mask=torch.ones_like(ids), **steps, **way)
    return text.sequences, torch.stack(text.logits)


CASES = [
    *((family, "cached") for family in (*DECODERS, *TRANSLATORS)),
    *((family, way) for family in ("gpt2", "llama", "bart", "t5") for way in ("uncached", "beams", "static cache")),
]


@pytest.mark.parametrize(("family", "way"), CASES)
def test_a_cut_model_writes_what_the_masked_one_writes(family: str, way: str) -> None:
    # A T5 decoder deeper than its encoder can't be cached, cut or not: transformers takes the encoder's depth for both.
    more = {"num_decoder_layers": 2} if family in ("t5", "mt5") else {}
    whole = model(family, heads_of(family)[0], layers=2, **more)
    whole.generation_config.eos_token_id = None  # so that all texts are of full length
    lasts = len(find_blocks(whole)) - 1
    seen = []
    for seed, empty in ((0, ()), (1, (0, 2)), (2, (lasts,))):
        masks = masks_for(whole, seed=seed, empty=tuple(row for row in empty if row <= lasts))
        small = copy.deepcopy(whole)
        surgery.apply(small, masks)
        with surgery.masked(whole, masks):
            tokens, thoughts = written(whole, WAYS[way])
        found, own_thoughts = written(small, WAYS[way])
        assert torch.equal(found, tokens)
        torch.testing.assert_close(own_thoughts, thoughts, rtol=1e-5, atol=1e-5)
        seen.append(thoughts)
    assert not torch.allclose(seen[0], seen[1], atol=1e-2), "the masks change nothing: the test is blind"
