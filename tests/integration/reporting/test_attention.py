"""The attention page: what it shows is what the model computes, head for head, in the original's numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from prunectl.attention import AttentionFound, Pictured
from prunectl.checkpoints.load import load_original, load_pruned
from prunectl.errors import InvalidInput
from prunectl.evaluation.attention import MAX_TOKENS, attention_of
from prunectl.pruning import engine
from prunectl.pruning.blocks import find_blocks
from prunectl.pruning.masks import Masks
from prunectl.pruning.vocabulary import load_tokenizer
from prunectl.schemas import Structure
from prunectl.storage.layout import published_name
from prunectl.worker import picturing
from prunectl.worker.assignment import Assignment
from prunectl.worker.report import Report
from prunectl.zoo.fetch import local_config, model_digest
from support import models, pipeline

TEXT = "Return the number of items in a list."


def look(directory: Path, structure: Structure | None = None, text: str = TEXT, **options: Any) -> AttentionFound:
    if structure is None:
        model = load_original(directory, local_config(directory))
        structure = engine.structure_of(find_blocks(model), Masks())
    else:
        model = load_pruned(directory)
    return attention_of(model, load_tokenizer(directory), structure, text, **options)


def pictured(
    original: Path, recipe: dict[str, Any], home: Path, *, layers: tuple[int, ...] | None = None, text: str = TEXT
) -> tuple[dict[str, Any], str]:
    """(the data of the page that is drawn of a job, the whole page)."""
    result, _ = pipeline.run(original, recipe, home)
    checkpoint = published_name(result.artifacts["checkpoint"])
    assert checkpoint
    asked = Pictured(job="01job", checkpoint=checkpoint, model_digest=model_digest(original), text=text, layers=layers)
    scratch = home / "drawing"
    scratch.mkdir()
    spec = {"model": str(original), "recipe": recipe, "attention": asked.model_dump(mode="json")}
    assignment = Assignment(
        job_id="01picture",
        attempt=1,
        lease_token="tokentoken",
        spec={**spec, "environment": {"cwd": str(home)}},
        model_identity="",
        model_name=str(original),
        device="cpu",
        storage_url=str(home / "storage"),
        scratch=str(scratch),
        threads=1,
        embedded=True,
    )
    with open("/dev/null", "wb") as sink:
        drawn = picturing.run(assignment, Report(sink.fileno()))
    assert set(drawn.artifacts) == {"attention"}
    page = Path(drawn.artifacts["attention"].removeprefix("file://")).read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1]), page


@pytest.mark.parametrize("family", models.EVERY_FAMILY)
def test_every_family_shows_a_distribution_for_each_head(tmp_path: Path, family: str) -> None:
    if family == "vit":
        model = load_original(models.build(tmp_path, family, "image-classification"), local_config(tmp_path))
        with pytest.raises(InvalidInput, match="images"):
            attention_of(model, None, engine.structure_of(find_blocks(model), Masks()), TEXT)
        return
    found = look(models.build(tmp_path, family, models.heads_of(family)[0]))
    expected = {"encoder", "decoder", "cross"} if family in models.TRANSLATORS else None
    parts = {part.part for part in found.parts}
    assert parts == (expected or ({"decoder"} if family in models.DECODERS else {"encoder"}))
    for part in found.parts:
        for layer in part.layers:
            weights = torch.tensor(layer.weights)
            assert weights.shape == (layer.heads_total, len(part.queries), len(part.keys))
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]), atol=0.02, rtol=0)


def test_a_pruned_models_heads_keep_their_original_numbers(tmp_path: Path) -> None:
    """With masks that change nothing before it, layer 0 attends as it did: each head that stayed, under its number."""
    original = models.build(tmp_path / "model", "bert")
    [part], page = pictured(original, {"heads": 0.5, "scorer": "random", "seed": 3, "refit": False}, tmp_path)
    whole = look(original).parts[0]
    assert part["layers"] == [layer.index for layer in whole.layers]
    gone = part["after"]["gone"]
    assert sum(map(sum, gone)) == sum(layer.heads_total for layer in whole.layers) // 2
    assert not any(map(any, part["before"]["gone"]))
    for head, went in enumerate(gone[0]):
        before, after = part["before"]["weights"][0][head], part["after"]["weights"][0][head]
        assert before == whole.layers[0].weights[head]
        if went:
            assert not any(map(any, after))
        else:
            torch.testing.assert_close(torch.tensor(after), torch.tensor(before), atol=0.0015, rtol=0)
    assert page.count("#dc2626") >= sum(map(sum, gone))  # the heat map crosses them, too


@pytest.mark.parametrize(
    ("family", "head", "recipe"),
    [
        ("xlm-roberta", "fill-mask", {"heads": 0.9, "layers": [1], "scorer": "random"}),
        ("llama", "text-generation", {"heads": 0.5, "scorer": "random"}),
        ("bart", "text2text-generation", {"heads": 0.6, "layers": [1], "scorer": "random"}),
    ],
)
def test_what_went_is_marked(tmp_path: Path, family: str, head: str, recipe: dict[str, Any]) -> None:
    original = models.build(tmp_path / "model", family, head)
    parts, _ = pictured(original, recipe, tmp_path)
    assert [part["name"] for part in parts] == (
        ["encoder", "decoder", "cross-attention"]
        if family in models.TRANSLATORS
        else ["decoder" if family in models.DECODERS else "encoder"]
    )
    for part in parts:
        layers, heads = len(part["layers"]), part["heads"]
        for side in ("before", "after"):
            weights = torch.tensor(part[side]["weights"])
            tokens = part[f"{side}_tokens"]
            assert weights.shape == (layers, heads, len(tokens["queries"]), len(tokens["keys"]))
            attends = weights.sum((2, 3)) > 0
            assert attends.tolist() == [[not gone for gone in row] for row in part[side]["gone"]]
    removed = recipe.get("layers", [])
    assert all(all(parts[0]["after"]["gone"][number]) for number in removed)


def test_layers_can_be_chosen_and_a_long_text_is_cut(tmp_path: Path) -> None:
    original = models.build(tmp_path / "model", "bert", max_position_embeddings=128)
    [part], page = pictured(
        original, {"heads": 0.5, "scorer": "random"}, tmp_path, layers=(1,), text="the list of items " * 40
    )
    assert part["layers"] == [1]
    assert len(part["before_tokens"]["queries"]) == MAX_TOKENS
    assert f"cut at {MAX_TOKENS} tokens" in page


def test_the_page_loads_nothing_and_runs_no_text(tmp_path: Path) -> None:
    original = models.build(tmp_path / "model", "bert")
    hostile = "</script><script>alert(1)</script> & <img src=x onerror=alert(2)>"
    _, page = pictured(original, {"heads": 0.5, "scorer": "random"}, tmp_path, text=hostile)
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "default-src 'none'" in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", page)


def test_scores_stand_in_the_structure_of_what_they_ranked(tmp_path: Path) -> None:
    original = models.build(tmp_path / "model", "bert")
    result, _ = pipeline.run(original, {"heads": 0.25, "ffn": 0.5, "layers": [0]}, tmp_path)
    [block] = result.structure.layers
    assert block.index == 1
    assert block.head_scores is not None and block.ffn_scores is not None
    assert len(block.head_scores) == block.heads_total
    kept = {head: score for head, score in enumerate(block.head_scores) if head in block.heads_kept}
    assert min(kept.values()) >= max(set(block.head_scores) - set(kept.values()))
    assert block.ffn_scores == sorted(block.ffn_scores)
    assert len(block.ffn_scores) == 5
