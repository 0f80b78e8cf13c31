"""What every search store does, in memory or in SQL: one contract, run against each."""

from __future__ import annotations

from typing import Any

from prunectl.errors import FailureClass
from prunectl.jobs.intake import new_id
from prunectl.jobs.model import NEVER, Failure, Job, JobState, Lease
from prunectl.jobs.ports import JobStore, SearchStore, SweepStore
from prunectl.jobs.records import NewSweep
from support.stores import RESULT, add, claim, get, new_job

QUEUE = "greedy"


def searching(store: JobStore, **changed: Any) -> Job:
    """A search that has just been claimed."""
    add(store, queue=QUEUE, **changed)
    job = claim(store, QUEUE)
    assert job is not None
    return job


def wait_for(searches: SearchStore, job: Job, *digests: str, sweep_id: str | None = None) -> str:
    """The search waits for candidates with these digests; its sweep's id."""
    sweep = NewSweep(sweep_id or new_id(), job.owner, {"base": {}, "grid": {}}, search_id=job.id)
    news = [new_job(digest=digest, queue=QUEUE, sweep_id=sweep.id, owner=job.owner) for digest in digests]
    added = searches.wait_for(job.lease, sweep, news)
    assert added is not None and len(added) == len(digests)
    return sweep.id


def end_one(store: JobStore, *, fail: bool = False) -> Job:
    """Claim the next candidate and end it."""
    job = claim(store, QUEUE)
    assert job is not None
    if fail:
        store.fail(job.lease, Failure(FailureClass.USER_ERROR, "code", "what"))
    else:
        assert store.succeed(job.lease, RESULT)
    return get(store, job)


class SearchStoreContract:
    """Subclasses give the fixtures ``store``, ``sweeps`` and ``searches``, of one database."""

    def test_a_search_sleeps_until_its_last_candidate_has_ended(
        self, store: JobStore, sweeps: SweepStore, searches: SearchStore
    ) -> None:
        job = searching(store)
        assert searches.candidates(job.id) is None
        sweep_id = wait_for(searches, job, "a", "b")
        waiting = get(store, job)
        assert (waiting.state, waiting.waits_for, waiting.not_before) == (JobState.QUEUED, sweep_id, NEVER)
        assert (waiting.failures, waiting.worker, waiting.lease_token) == (0, None, None)
        assert store.events(job.id)[-1].data == {"state": "queued", "waits_for": sweep_id}
        found = sweeps.sweep(sweep_id)
        assert found is not None and found.search_id == job.id
        first = end_one(store)
        assert searches.wake() == []
        last = end_one(store, fail=True)
        assert claim(store, QUEUE) is None, "nothing but the search is left, and it sleeps"
        [woken] = searches.wake()
        assert (woken.id, woken.state, woken.waits_for) == (job.id, JobState.QUEUED, None)
        assert searches.wake() == [], "once"
        again = claim(store, QUEUE)
        assert again is not None and (again.id, again.attempt) == (job.id, job.attempt + 1)
        known = searches.candidates(job.id)
        assert known is not None and known.sweep_id == sweep_id
        assert {item.id: item.state for item in known.jobs} == {
            first.id: JobState.SUCCEEDED,
            last.id: JobState.FAILED,
        }

    def test_its_sweep_grows_and_identical_jobs_are_shared(
        self, store: JobStore, sweeps: SweepStore, searches: SearchStore
    ) -> None:
        one = searching(store)
        sweep_id = wait_for(searches, one, "s1", "s2")
        other = searching(store, priority=5)
        theirs = wait_for(searches, other, "s1", "s2")
        for _ in range(2):
            end_one(store)
        assert {job.id for job in searches.wake()} == {one.id, other.id}
        again = [claim(store, QUEUE), claim(store, QUEUE)]
        mine = next(job for job in again if job is not None and job.id == one.id)
        assert wait_for(searches, mine, "s1", "s3", sweep_id=sweep_id) == sweep_id
        known, shared = searches.candidates(one.id), searches.candidates(other.id)
        assert known is not None and shared is not None
        assert sorted(job.digest for job in known.jobs) == ["s1", "s2", "s3"]
        assert (shared.sweep_id, [job.state for job in shared.jobs]) == (theirs, [JobState.SUCCEEDED] * 2)

    def test_a_search_whose_candidates_are_all_done_is_woken_at_once(
        self, store: JobStore, searches: SearchStore
    ) -> None:
        add(store, digest="done", queue=QUEUE)
        end_one(store)
        job = searching(store)
        wait_for(searches, job, "done")
        assert [woken.id for woken in searches.wake()] == [job.id]

    def test_a_stale_lease_queues_nothing(self, store: JobStore, sweeps: SweepStore, searches: SearchStore) -> None:
        job = searching(store)
        sweep = NewSweep(new_id(), "ada", {"base": {}, "grid": {}}, search_id=job.id)
        stale = Lease(job.id, job.attempt, "another token")
        assert searches.wait_for(stale, sweep, [new_job(queue=QUEUE, sweep_id=sweep.id)]) is None
        assert (sweeps.sweep(sweep.id), claim(store, QUEUE)) == (None, None)
        assert get(store, job) == job

    def test_cancelling_a_search_takes_its_candidates_with_it(
        self, store: JobStore, sweeps: SweepStore, searches: SearchStore
    ) -> None:
        add(store, digest="theirs", queue=QUEUE, priority=-1)
        job = searching(store)
        wait_for(searches, job, "theirs", "c1", "c2")
        at_work = claim(store, QUEUE)
        assert at_work is not None
        store.cancel(job.id)
        assert (get(store, job).state, get(store, job).waits_for) == (JobState.CANCELLED, None)
        beat = store.heartbeat(at_work.lease, stage=None, progress=0.0, lease_seconds=60)
        assert beat is not None and beat.cancel_requested
        known = searches.candidates(job.id)
        assert known is not None
        assert {item.digest: item.state for item in known.jobs} == {
            "theirs": JobState.QUEUED,
            at_work.digest: JobState.RUNNING,
            ({"c1", "c2"} - {at_work.digest}).pop(): JobState.CANCELLED,
        }

    def test_one_that_is_cancelled_while_it_looks_queues_nothing(self, store: JobStore, searches: SearchStore) -> None:
        job = searching(store)
        store.cancel(job.id)
        sweep = NewSweep(new_id(), "ada", {"base": {}, "grid": {}}, search_id=job.id)
        assert searches.wait_for(job.lease, sweep, [new_job(queue=QUEUE, sweep_id=sweep.id)]) == []
        assert get(store, job).state is JobState.CANCELLED
        assert claim(store, QUEUE) is None

    def test_cancelling_its_sweep_of_searches_reaches_the_candidates(
        self, store: JobStore, sweeps: SweepStore, searches: SearchStore
    ) -> None:
        outer = NewSweep(new_id(), "ada", {"base": {}, "grid": {}})
        sweeps.add_sweep(outer, [new_job(queue=QUEUE, sweep_id=outer.id)])
        job = claim(store, QUEUE)
        assert job is not None
        wait_for(searches, job, "n1")
        sweeps.cancel_sweep(outer.id)
        known = searches.candidates(job.id)
        assert known is not None and [item.state for item in known.jobs] == [JobState.CANCELLED]

    def test_retrying_a_search_retries_what_ended_badly_and_has_no_twin(
        self, store: JobStore, searches: SearchStore
    ) -> None:
        job = searching(store)
        wait_for(searches, job, "r1", "r2", "r3")
        ended = [end_one(store, fail=fail) for fail in (True, True, False)]
        [bad, twinned] = [item for item in ended if item.state is JobState.FAILED]
        add(store, digest=twinned.digest, queue="elsewhere")
        searches.wake()
        again = claim(store, QUEUE)
        assert again is not None
        store.fail(again.lease, Failure(FailureClass.USER_ERROR, "candidate_failed", "what"))
        retried = store.retry(job.id)
        assert retried is not None and (retried.state, retried.waits_for) == (JobState.QUEUED, None)
        assert (get(store, bad).state, get(store, twinned).state) == (JobState.QUEUED, JobState.FAILED)
