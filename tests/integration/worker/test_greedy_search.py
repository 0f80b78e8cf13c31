"""A whole greedy search with one slot, real runners and a kill in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
import torch

from prunectl.checkpoints import load_pruned
from prunectl.checkpoints.manifest import read_manifest
from prunectl.jobs.model import JobState
from prunectl.schemas import Result
from support.queue_stub import python_path
from support.searching import LAYERS, Search


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())


def values(result: Result) -> list[Any]:
    assert result.search is not None
    return [[(row.layer, row.value) for row in step.candidates] for step in result.search.steps]


@pytest.mark.slow
def test_a_search_of_two_layers_with_a_kill_is_the_undisturbed_one(tmp_path: Path) -> None:
    disturbed = Search(tmp_path / "a")
    job = disturbed.submit(greedy_layers=2, recover="finetune")
    ended = disturbed.finish(job, kill_at=("recover", 1))
    assert ended.state is JobState.SUCCEEDED, ended.failure
    assert ended.failures == 0, "to wait burns no retry"
    assert sum(candidate.failures for candidate in disturbed.candidates()) == 1, "one runner was killed"
    assert len(disturbed.candidates()) == 3 + 2
    assert set(disturbed.successes().values()) == {1}

    result = Result.model_validate(ended.result)
    search = result.search
    assert search is not None and [len(step.candidates) for step in search.steps] == [3, 2]
    assert search.removed == search.steps[-1].removed == result.structure.removed_layers
    assert all(len(row.curve) > 1 and row.cpu_seconds for step in search.steps for row in step.candidates)
    assert {"reload", "benchmark"} <= {stage.name for stage in result.stages}
    metric = result.metrics[search.metric]
    assert (metric.before, metric.after) == (search.steps[-1].held_out.before, search.steps[-1].held_out.after)
    winner = disturbed.store.get(search.steps[-1].job_id)
    assert winner is not None and winner.result is not None
    mine, theirs = (
        load_pruned(unquote(urlparse(r["artifacts"]["checkpoint"]).path)) for r in (ended.result, winner.result)
    )  # type: ignore[index]
    assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True))
    checkpoint = Path(unquote(urlparse(result.artifacts["checkpoint"]).path))
    assert read_manifest(checkpoint)["recipe"]["greedy_layers"] == 2
    assert not {row["step"] for row in read_manifest(checkpoint)["ledger"]} ^ {"original", "layers", "recover"}

    # One search serves every size: the smaller one trains nothing.
    smaller = disturbed.finish(disturbed.submit(greedy_layers=1, recover="finetune"))
    assert smaller.state is JobState.SUCCEEDED and len(disturbed.candidates()) == 3 + 2
    assert smaller.result is not None and smaller.result["search"]["steps"] == ended.result["search"]["steps"][:1]  # type: ignore[index]

    undisturbed = Search(tmp_path / "b")
    plain = undisturbed.finish(undisturbed.submit(greedy_layers=2, recover="finetune"))
    assert values(Result.model_validate(plain.result)) == values(result)


def test_few_candidates_and_the_last_model_that_kept_enough(tmp_path: Path) -> None:
    search = Search(tmp_path)
    ended = search.finish(search.submit(greedy_layers=2, candidates=1, recover="none"))
    assert ended.state is JobState.SUCCEEDED, ended.failure
    result = Result.model_validate(ended.result)
    assert result.search is not None and [len(step.candidates) for step in result.search.steps] == [1, 1]
    assert len(search.candidates()) == 2 < LAYERS


def test_a_candidate_that_fails_fails_the_search_and_a_retry_resumes_it(tmp_path: Path) -> None:
    search = Search(tmp_path)
    job = search.submit(greedy_layers=1, recover="none", candidates=2)
    assert search.supervisor.serve_one(), "the search looks"
    waiting = search.get(job)
    assert waiting.waits_for is not None and len(search.candidates()) == 2
    cancelled = search.candidates()[0]
    search.store.cancel(cancelled.id)
    failed = search.finish(job)
    assert failed.state is JobState.FAILED and failed.failure is not None
    assert failed.failure.code == "candidate_cancelled" and cancelled.id in failed.failure.message
    search.store.retry(job.id)
    ended = search.finish(job)
    assert ended.state is JobState.SUCCEEDED, ended.failure
    assert len(search.candidates()) == 2, "none is queued twice"
