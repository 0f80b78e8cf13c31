"""When a search can't go on, and what its runner is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prunectl.errors import FailureClass
from prunectl.jobs import searches
from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.model import Failure, Job, JobState
from prunectl.jobs.records import Candidates
from support.stores import RESULT, add

WHY = Failure(FailureClass.OOM_HOST, "out_of_memory", "the job ran out of memory")


def candidate(*layers: int, state: JobState, sweep_id: str = "s", digest: str = "", **more: Any) -> Job:
    spec = {"model": "m", "recipe": {"layers": list(layers)}, "evaluation": {}}
    job = add(MemoryJobStore(), spec=spec, digest=digest or f"d{layers}", sweep_id=sweep_id)
    return replace(job, state=state, **more)


@pytest.fixture
def search() -> Job:
    return add(MemoryJobStore(), spec={"model": "m", "recipe": {"greedy_layers": 2}, "evaluation": {}})


def test_a_failed_candidate_stops_the_search_and_names_itself(search: Job) -> None:
    failed = candidate(1, 3, state=JobState.FAILED, failure=WHY)
    found = searches.obstacle(search, Candidates("s", [candidate(0, state=JobState.SUCCEEDED), failed]))
    assert found is not None and found.code == "candidate_failed"
    assert found.message.startswith(f"the candidate {failed.id} (without the layers 1,3) failed: out_of_memory")
    assert found.hint is not None and f"prunectl retry {search.id}" in found.hint


def test_what_stands_in_for_a_failed_one_is_no_obstacle(search: Job) -> None:
    both = [candidate(1, state=state, digest="same", failure=WHY) for state in (JobState.FAILED, JobState.QUEUED)]
    assert searches.obstacle(search, Candidates("s", both)) is None


@pytest.mark.parametrize(("sweep_id", "code"), [("s", "candidate_cancelled"), ("another search's", None)])
def test_only_a_candidate_of_its_own_that_was_cancelled_stops_it(search: Job, sweep_id: str, code: str | None) -> None:
    found = searches.obstacle(search, Candidates("s", [candidate(1, state=JobState.CANCELLED, sweep_id=sweep_id)]))
    assert (found and found.code) == code


def test_a_runner_is_told_of_those_that_ended_well(search: Job) -> None:
    assert searches.is_search(search)
    done = candidate(2, state=JobState.SUCCEEDED, result={**RESULT, "selection": {"eval_loss": {"after": 1.0}}})
    assert not searches.is_search(done)
    known = Candidates("s", [done, candidate(3, state=JobState.RUNNING)])
    [told] = searches.known(known)
    assert (told["job_id"], told["removed"], told["checkpoint"]) == (done.id, [2], "file:///storage/runs/x")
    assert told["metrics"] == {"eval_loss": RESULT["metrics"]["eval_loss"]}
    assert searches.active(known) and not searches.active(None)
    assert searches.known(None) == [] and searches.obstacle(search, None) is None
