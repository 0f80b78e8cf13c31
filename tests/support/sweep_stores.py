"""What every sweep store does, in memory or in SQL: one contract, run against each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prunectl.errors import FailureClass
from prunectl.jobs.intake import new_id
from prunectl.jobs.model import Failure, Job, JobState
from prunectl.jobs.ports import JobStore, SweepStore
from prunectl.jobs.records import Added, JobQuery, NewSweep, Sweep
from support.stores import RESULT, add, claim, get, new_job, running, succeeded

QUEUE = "grid"


def add_sweep(sweeps: SweepStore, *digests: str, force: bool = False, **changed: Any) -> tuple[Sweep, list[Added]]:
    """A sweep with a job for each of ``digests``, in a queue of their own."""
    new = NewSweep(id=new_id(), owner=changed.get("owner", "ada"), spec={"base": {}, "grid": {}}, name="mine")
    jobs = [new_job(digest=digest, sweep_id=new.id, **{"queue": QUEUE, **changed}) for digest in digests]
    added = sweeps.add_sweep(new, jobs, force=force)
    return look(sweeps, new.id), added


def look(sweeps: SweepStore, sweep_id: str) -> Sweep:
    found = sweeps.sweep(sweep_id)
    assert found is not None
    return found


def end(store: JobStore, *, passed: bool | None = None, fail: bool = False) -> Job:
    """Claim the next job of the sweep's queue and end it."""
    job = claim(store, QUEUE)
    assert job is not None
    if fail:
        assert store.fail(job.lease, Failure(FailureClass.USER_ERROR, "code", "what")) is not None
    else:
        gate = None if passed is None else {"passed": passed, "conditions": []}
        assert store.succeed(job.lease, {**RESULT, "gate": gate})
    return get(store, job)


class SqlSweepStoreContract:
    """What SQL can promise and memory need not."""

    def test_nothing_is_left_of_a_sweep_whose_last_job_can_t_be_queued(
        self, store: JobStore, sweeps: SweepStore
    ) -> None:
        new = NewSweep(id=new_id(), owner="ada", spec={"base": {}, "grid": {}})
        jobs = [new_job(sweep_id=new.id) for _ in range(150)]
        broken = replace(jobs[-1], queue=None)  # type: ignore[arg-type]  # NOT NULL refuses it
        with pytest.raises(Exception, match=r"(?i)null"):
            sweeps.add_sweep(new, [*jobs[:-1], broken])
        assert sweeps.sweep(new.id) is None
        assert store.page(JobQuery()).items == []


class SweepStoreContract:
    """Subclasses give fixtures ``store`` and ``sweeps`` over the same rows."""

    def test_a_sweep_comes_back_with_its_jobs_counted(self, store: JobStore, sweeps: SweepStore) -> None:
        sweep, added = add_sweep(sweeps, "d1", "d2", "d3", "d4", "d5")
        assert [item.created for item in added] == [True] * 5
        assert (sweep.name, sweep.owner, sweep.counts) == ("mine", "ada", {JobState.QUEUED: 5})
        assert (sweep.shared, sweep.started_at, sweep.finished_at, sweep.gates_failed) == (0, None, None, 0)
        first, second = end(store, passed=False), end(store, passed=True)
        failed = end(store, fail=True)
        at_work = claim(store, QUEUE)
        assert at_work is not None
        store.heartbeat(at_work.lease, stage="prune", progress=0.5, lease_seconds=60)
        now = look(sweeps, sweep.id)
        assert now.counts == {JobState.QUEUED: 1, JobState.RUNNING: 1, JobState.SUCCEEDED: 2, JobState.FAILED: 1}
        assert (now.gates_failed, now.progress_sum, now.shared) == (1, 0.5, 0)
        assert now.started_at == first.started_at
        assert now.finished_at == max(job.finished_at or 0.0 for job in (first, second, failed))

    def test_its_jobs_are_listed_the_shared_ones_too(self, store: JobStore, sweeps: SweepStore) -> None:
        before = add(store, digest="there")
        add(store, digest="elsewhere")
        sweep, added = add_sweep(sweeps, "there", "new", "new")
        assert [item.created for item in added] == [False, True, False]
        listed = {job.id for job in store.page(JobQuery(sweep_id=sweep.id)).items}
        assert listed == {before.id, added[1].job.id}
        assert (sweep.shared, sweep.counts) == (1, {JobState.QUEUED: 2})
        assert get(store, before) == before  # linked, not moved

    def test_two_sweeps_share_and_force_shares_nothing(self, store: JobStore, sweeps: SweepStore) -> None:
        first, _ = add_sweep(sweeps, "a", "b")
        second, again = add_sweep(sweeps, "a", "b", "c")
        assert [item.created for item in again] == [False, False, True]
        assert (look(sweeps, second.id).shared, sum(second.counts.values())) == (2, 3)
        forced, own = add_sweep(sweeps, "a", "b", force=True)
        assert (forced.shared, [item.created for item in own]) == (0, [True, True])
        other, theirs = add_sweep(sweeps, "a", owner="bob")
        assert (other.shared, [item.created for item in theirs]) == (0, [True])
        assert sum(look(sweeps, first.id).counts.values()) == 2

    def test_cancel_takes_what_it_queued_and_leaves_what_it_shares(self, store: JobStore, sweeps: SweepStore) -> None:
        shared = add(store, digest="there")
        sweep, added = add_sweep(sweeps, "there", "x", "y", "z")
        done, at_work = end(store), claim(store, QUEUE)
        assert at_work is not None
        waiting = next(i.job for i in added if i.created and i.job.id not in (done.id, at_work.id))
        assert {job.id for job in sweeps.cancel_sweep(sweep.id)} == {waiting.id, at_work.id}
        assert get(store, waiting).state is JobState.CANCELLED
        beat = store.heartbeat(at_work.lease, stage=None, progress=0.1, lease_seconds=60)
        assert beat is not None and beat.cancel_requested
        assert get(store, shared).state is JobState.QUEUED
        assert get(store, done).state is JobState.SUCCEEDED
        assert sweeps.cancel_sweep(sweep.id) == []  # a second time changes nothing
        told = [event.data["state"] for event in store.events(waiting.id)]
        assert told == ["queued", "cancelled"]

    def test_retry_takes_the_states_that_it_is_given(self, store: JobStore, sweeps: SweepStore) -> None:
        sweep, _ = add_sweep(sweeps, "r1", "r2", "r3")
        failed, done = end(store, fail=True), end(store)
        sweeps.cancel_sweep(sweep.id)
        assert [job.id for job in sweeps.retry_sweep(sweep.id, (JobState.FAILED,))] == [failed.id]
        again = get(store, failed)
        assert (again.state, again.failures, again.failure) == (JobState.QUEUED, 0, None)
        assert sweeps.retry_sweep(sweep.id, (JobState.FAILED,)) == []
        assert len(sweeps.retry_sweep(sweep.id, (JobState.FAILED, JobState.CANCELLED))) == 1
        assert get(store, done).state is JobState.SUCCEEDED
        assert look(sweeps, sweep.id).counts == {JobState.QUEUED: 2, JobState.SUCCEEDED: 1}
        assert [event.data["state"] for event in store.events(failed.id)][-2:] == ["failed", "queued"]

    def test_a_shared_job_is_retried(self, store: JobStore, sweeps: SweepStore) -> None:
        job = running(store, digest="flaky")
        sweep, _ = add_sweep(sweeps, "flaky")
        store.fail(job.lease, Failure(FailureClass.USER_ERROR, "code", "what"))
        assert [item.id for item in sweeps.retry_sweep(sweep.id, (JobState.FAILED,))] == [job.id]

    def test_a_removed_job_is_no_longer_counted(self, store: JobStore, sweeps: SweepStore) -> None:
        job = succeeded(store, digest="old")
        sweep, _ = add_sweep(sweeps, "old")
        assert sweep.counts == {JobState.SUCCEEDED: 1}
        store.remove(job.id)
        assert (look(sweeps, sweep.id).counts, look(sweeps, sweep.id).shared) == ({}, 0)

    def test_they_are_found_and_listed_by_owner_the_newest_first(self, store: JobStore, sweeps: SweepStore) -> None:
        mine = [add_sweep(sweeps, f"l{number}")[0] for number in range(3)]
        theirs, _ = add_sweep(sweeps, "l0", owner="bob")
        ids = sorted((sweep.id for sweep in mine), reverse=True)
        assert [sweep.id for sweep in sweeps.sweeps(owner="ada", limit=10, after=None)] == ids
        assert [sweep.id for sweep in sweeps.sweeps(owner="ada", limit=2, after=ids[0])] == ids[1:]
        assert {sweep.id for sweep in sweeps.sweeps(owner=None, limit=10, after=None)} == {*ids, theirs.id}
        assert sweeps.find_sweeps(theirs.id[-6:].upper()) == [theirs.id]
        assert sweeps.find_sweeps(theirs.id, owner="ada") == []
        assert sweeps.find_sweeps("%") == sweeps.find_sweeps("____") == []
        assert sweeps.sweep("nothing") is None
        assert sweeps.cancel_sweep("nothing") == sweeps.retry_sweep("nothing", (JobState.FAILED,)) == []

    def test_identical_jobs_are_counted_by_owner_and_state(self, store: JobStore, sweeps: SweepStore) -> None:
        add(store, digest="i1"), succeeded(store, digest="i2"), add(store, digest="i3", owner="bob")
        gone = add(store, digest="i4")
        store.cancel(gone.id)
        assert sweeps.count_identical("ada", ["i1", "i1", "i2", "i3", "i4", "i5"]) == 2
        assert sweeps.count_identical("ada", []) == 0
