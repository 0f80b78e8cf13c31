"""The page that adds a family does what it says: its code is run as it stands."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from prunectl.evaluation import macs
from prunectl.pruning import architectures, planning, surgery
from prunectl.pruning.blocks import find_blocks
from support.pruning import batches, masks_for, output

PAGE = Path(__file__).parents[3] / "docs" / "adding-an-architecture.md"


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(architectures, "FAMILIES", dict(architectures.FAMILIES))
    yield PAGE.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def test_the_page_adds_a_family_in_under_40_lines(code: str) -> None:
    assert "opt" not in architectures.FAMILIES, "the page shows a family that the table has: choose another"
    assert len(code.splitlines()) < 40
    exec(compile(code, str(PAGE), "exec"), {})
    sizes = {"vocab_size": 60, "hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 40, "num_hidden_layers": 2}
    config = transformers.OPTConfig(**sizes, num_attention_heads=4, max_position_embeddings=30)
    torch.manual_seed(0)
    whole = transformers.OPTForCausalLM(config).eval()
    masks = masks_for(whole, seed=1, empty=(0,))
    small = copy.deepcopy(whole)
    surgery.apply(small, masks)
    batch = batches(whole, 1)[0]
    with surgery.masked(whole, masks):
        expected = output(whole, batch)
    torch.testing.assert_close(output(small, batch), expected, rtol=0, atol=1e-5)
    plan = {**config.to_dict(), "architectures": ["OPTForCausalLM"]}
    kept = [[block.heads_total for block in find_blocks(small)], [block.ffn_total for block in find_blocks(small)]]
    assert planning.count_parameters(plan, *kept) == macs.parameters(small)
    assert planning.count_macs(plan, 12, *kept) == macs.count(small, 12)
    assert architectures.shape_of({"model_type": "opt"}) == architectures.shape_of(transformers.OPTConfig().to_dict())
