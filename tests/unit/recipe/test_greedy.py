"""The recipe of a greedy search: what goes together, what its candidates are, what a plan says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from prunectl.errors import InvalidInput
from prunectl.jobs import searches
from prunectl.pruning import axes, depth
from prunectl.recipe import Recipe
from prunectl.schemas import JobCreate, flatten, job_digest, nest
from prunectl.validation import parse_job

BERT = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "type_vocab_size": 2,
    "vocab_size": 100,
}


def body(**recipe: Any) -> JobCreate:
    return parse_job({"model": "m", "recipe": recipe, "evaluation": {"max_drop": 0.1, "bench_batch": [1, 16]}})


def test_a_search_distills_unless_it_is_told_otherwise() -> None:
    assert Recipe(greedy_layers=2).recover == Recipe(keep_performance=0.95).recover == "distill"
    plain = Recipe(greedy_layers=2, recover="none")
    assert Recipe.model_validate(plain.document()) == plain
    assert plain.digest != Recipe(greedy_layers=2).digest
    assert Recipe(layers=2).recover == "none"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"greedy_layers": 2, "layers": 1}, "greedy_layers and layers are two ways to choose layers: give one"),
        ({"greedy_layers": 2, "heads": 0.3}, "prune the search's checkpoint by heads in a second job"),
        ({"keep_performance": 0.9, "vocab": "c.txt"}, "keep_performance and vocab don't go together yet"),
        ({"greedy_layers": 2, "engine": "textpruner"}, "engine textpruner has no greedy search"),
        ({"layers": 2, "candidates": 3}, "candidates goes with greedy_layers=N or keep_performance=F"),
        ({"greedy_layers": 2, "even": True}, "even goes with heads and ffn, not with greedy_layers"),
    ],
)
def test_what_does_not_go_together(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Recipe(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"greedy_layers": 0}, {"keep_performance": 1.5}, {"greedy_layers": 1, "candidates": 0}]
)
def test_a_wrong_value_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(reversed(wrong))):
        body(**wrong)


def test_selection_belongs_to_a_search() -> None:
    with pytest.raises(InvalidInput, match="selection is what a greedy search chooses layers by"):
        parse_job({"model": "m", "recipe": {"heads": 0.3}, "evaluation": {"selection": 0.2}})


def test_a_plan_counts_layers_and_trainings() -> None:
    planned = axes.plan(BERT, Recipe(greedy_layers=3))
    assert (planned.layers_total, planned.layers_removed) == (6, 3)
    assert "trains at most 15 candidates" in planned.notes[0]
    assert "at most 9 candidates" in axes.plan(BERT, Recipe(greedy_layers=3, candidates=3)).notes[0]
    assert depth.count(BERT, Recipe(keep_performance=0.95)) == 5
    with pytest.raises(InvalidInput, match="nearest that can be met: greedy_layers=5"):
        depth.count(BERT, Recipe(greedy_layers=6))


def test_albert_has_nothing_to_choose() -> None:
    shared = {**BERT, "architectures": ["AlbertForMaskedLM"], "model_type": "albert", "num_hidden_groups": 1}
    with pytest.raises(InvalidInput, match="one set of weights"):
        depth.count(shared | {"embedding_size": 16}, Recipe(greedy_layers=1))


def test_a_candidate_is_known_by_what_it_is_and_not_by_its_search() -> None:
    one = body(greedy_layers=3, export="onnx", recover="finetune", recover_epochs=5, seed=7)
    other = body(greedy_layers=5, keep_performance=0.9, candidates=3, recover="finetune", recover_epochs=5, seed=7)
    candidates = [searches.candidate_body(search, (1, 4)) for search in (one, other)]
    assert len({job_digest("ada", "id", candidate) for candidate in candidates}) == 1
    recipe, evaluation = candidates[0].recipe, candidates[0].evaluation
    assert (recipe.layers, recipe.recover, recipe.recover_epochs, recipe.seed) == ((1, 4), "finetune", 5, 7)
    assert (recipe.export, evaluation.max_drop, evaluation.selection) == (None, None, 0.15)
    assert parse_job(nest(flatten(candidates[0]))) == candidates[0]
    different = searches.candidate_body(body(greedy_layers=3, recover="finetune", seed=8), (1, 4))
    assert job_digest("ada", "id", different) != job_digest("ada", "id", candidates[0])
