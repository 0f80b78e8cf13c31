"""Steered claims, in memory or in SQL: one contract, run against each."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import writing
from prunectl.db.tables import jobs as table
from prunectl.jobs.memory import MemoryJobStore
from prunectl.jobs.model import Job
from prunectl.jobs.ports import JobStore
from prunectl.jobs.steering import PATIENCE_SECONDS, WINDOW, Steering, choose, is_starting
from support.stores import RESULT, add, get, new_job

COLD = Steering()
A = Steering("a")
_IDS = itertools.count()


def waiting(store: JobStore, models: str, **changed: Any) -> list[Job]:
    """A job of each model, a letter each, queued one after the other."""
    return [add(store, model_identity=model, **changed) for model in models]


def together(store: JobStore, models: str, **changed: Any) -> list[Job]:
    """A job of each model, queued at once, as a sweep's are."""
    new = [new_job(id=f"{next(_IDS):026d}", model_identity=model, **changed) for model in models]
    return [added.job for added in store.add(new)]


def take(store: JobStore, steering: Steering | None, **more: Any) -> Job | None:
    return store.claim(["cpu"], worker="w", lease_seconds=60, steering=steering, **more)


def taken(store: JobStore, steering: Steering | None, **more: Any) -> str | None:
    job = take(store, steering, **more)
    return None if job is None else job.id


def past_its_baseline(store: JobStore, job: Job | None) -> None:
    assert job is not None
    assert store.heartbeat(job.lease, stage="prune", progress=0.5, lease_seconds=60) is not None


def age(store: JobStore, job: Job, seconds: float) -> Job:
    """Let the job have been queued so many seconds earlier."""
    created_at = job.created_at - seconds
    if isinstance(store, MemoryJobStore):
        store.move(job.id, lambda old: replace(old, created_at=created_at))
    else:
        assert isinstance(store, SqlJobStore)
        with writing(store._engine) as connection:
            connection.execute(table.update().where(table.c.id == job.id).values(created_at=created_at))
    return get(store, job)


class SteeringContract:
    """Subclasses give a fixture ``store``."""

    def test_a_slot_goes_on_with_its_model(self, store: JobStore) -> None:
        b, first, second, c = waiting(store, "baac")
        assert [taken(store, A) for _ in range(5)] == [first.id, second.id, b.id, c.id, None]

    def test_without_steering_the_oldest_is_next(self, store: JobStore) -> None:
        found = waiting(store, "babc")
        assert [taken(store, None) for _ in found] == [job.id for job in found]

    def test_an_idle_slot_leaves_a_model_alone_that_another_has_just_begun(self, store: JobStore) -> None:
        a, also_a, b, still_a, c = waiting(store, "aabac")
        assert [taken(store, COLD) for _ in range(3)] == [a.id, b.id, c.id]
        # Where all are being begun, to wait for a model's baseline is better than to idle.
        assert [taken(store, COLD) for _ in range(3)] == [also_a.id, still_a.id, None]

    @pytest.mark.parametrize(
        ("stage", "shared"), [("fetch", False), ("baseline", False), ("score", False), ("prune", True), ("save", True)]
    )
    def test_a_model_whose_baseline_is_there_is_taken_in_turn(self, store: JobStore, stage: str, shared: bool) -> None:
        a, also_a, b = waiting(store, "aab")
        first = take(store, COLD)
        assert first is not None and first.id == a.id
        assert store.heartbeat(first.lease, stage=stage, progress=0.5, lease_seconds=60) is not None
        assert taken(store, COLD) == (also_a if shared else b).id

    def test_a_slot_whose_model_is_done_spreads_like_an_idle_one(self, store: JobStore) -> None:
        _a, _also_a, b, c = waiting(store, "aabc")
        assert take(store, COLD) is not None
        assert [taken(store, Steering("z")) for _ in range(2)] == [b.id, c.id]

    def test_another_owners_beginnings_move_nothing(self, store: JobStore) -> None:
        add(store, owner="bob", model_identity="a", priority=1)
        a, _b = waiting(store, "ab")
        assert take(store, COLD) is not None
        assert taken(store, COLD) == a.id

    def test_priority_and_fair_share_come_first(self, store: JobStore) -> None:
        old_a = add(store, owner="ada", model_identity="a")
        other = add(store, owner="bob", model_identity="b")
        also_a = add(store, owner="bob", model_identity="a")
        urgent = add(store, owner="ada", model_identity="c", priority=3)
        # The urgent one first; then bob, who has nothing running, though ada has the older job of this model.
        assert [taken(store, A) for _ in range(4)] == [urgent.id, also_a.id, old_a.id, other.id]

    def test_nobodys_turn_is_given_away(self, store: JobStore) -> None:
        [mine] = waiting(store, "b", owner="ada")
        [theirs] = waiting(store, "a", owner="bob")
        assert [taken(store, A) for _ in range(2)] == [mine.id, theirs.id]

    def test_a_quota_holds(self, store: JobStore) -> None:
        waiting(store, "bab")
        theirs = add(store, owner="bob", model_identity="z")
        assert [taken(store, A, max_running_per_owner=1) for _ in range(3)][1:] == [theirs.id, None]

    def test_jobs_that_cannot_be_claimed_are_not_chosen(self, store: JobStore) -> None:
        gone, a, b = waiting(store, "aab")
        store.cancel(gone.id)
        add(store, queue="gpu", model_identity="c")
        assert [taken(store, Steering("c")), taken(store, A)] == [a.id, b.id]

    def test_who_has_waited_long_is_overtaken_no_more(self, store: JobStore) -> None:
        old, a = waiting(store, "ba")
        age(store, old, PATIENCE_SECONDS - 30)
        assert taken(store, A) == a.id
        [a] = waiting(store, "a")
        age(store, old, PATIENCE_SECONDS + 30)
        assert [taken(store, A), taken(store, A)] == [old.id, a.id]

    def test_nor_by_a_stream_of_new_jobs(self, store: JobStore) -> None:
        old = age(store, add(store, model_identity="b"), PATIENCE_SECONDS + 1)
        together(store, "a" * 100)
        assert taken(store, A) == old.id

    def test_an_idle_slot_does_not_pass_over_who_has_waited_long(self, store: JobStore) -> None:
        add(store, model_identity="a")
        assert take(store, COLD) is not None
        old, _b = waiting(store, "ab")
        age(store, old, PATIENCE_SECONDS + 30)
        assert taken(store, COLD) == old.id

    def test_jobs_of_one_sweep_are_sorted_by_model_however_long_it_takes(self, store: JobStore) -> None:
        sweep = [age(store, job, 10 * PATIENCE_SECONDS) for job in together(store, "babca")]
        by_model = {model: [job.id for job in sweep if job.model_identity == model] for model in "abc"}
        slot, order = COLD, []
        while (job := take(store, slot)) is not None:
            assert store.succeed(job.lease, RESULT)
            order.append(job.id)
            slot = Steering(job.model_identity)
        assert order == by_model["b"] + by_model["a"] + by_model["c"]

    def test_only_the_oldest_are_looked_at(self, store: JobStore) -> None:
        found = together(store, "b" * (WINDOW - 1) + "aa")
        assert taken(store, A) == found[WINDOW - 1].id
        assert taken(store, A) == found[WINDOW].id
        found = together(store, "b" * WINDOW, owner="bob") + together(store, "a", owner="bob")
        assert taken(store, A) == found[0].id

    @pytest.mark.parametrize("seed", range(4))
    def test_steered_claims_come_in_the_order_of_the_pure_rule(self, store: JobStore, seed: int) -> None:
        chance = random.Random(seed)
        left: list[Job] = []
        for _ in range(8):
            changed = {"owner": f"o{chance.randrange(3)}", "priority": chance.choice((0, 0, 5))}
            some = together(store, "".join(chance.choices("abcd", k=8)), **changed) if chance.random() < 0.5 else []
            some += waiting(store, chance.choice("abcd"), **changed)
            seconds = chance.choice((0.0, 60.0, 2 * PATIENCE_SECONDS))
            left += [age(store, job, seconds) for job in some]
        busy: list[Job] = []
        for _ in range(60):
            steering = chance.choice((None, COLD, *(Steering(model) for model in "abcd")))
            running = Counter(job.owner for job in busy)
            ready = sorted(left, key=lambda job: (-job.priority, running[job.owner], job.created_at, job.id))
            best = ready[0] if ready else None
            if best is not None and steering is not None:
                turn = (best.priority, best.owner)
                theirs = [job for job in ready if (job.priority, job.owner) == turn]
                starting = {job.model_identity for job in busy if job.owner == best.owner and is_starting(job.stage)}
                best = choose(theirs, steering, starting, store.now())
            job = take(store, steering)
            assert (job and job.id) == (best and best.id)
            if job is not None:
                left = [other for other in left if other.id != job.id]
                busy.append(job)
            if busy and chance.random() < 0.4:
                at = chance.randrange(len(busy))
                past_its_baseline(store, busy[at])
                busy[at] = get(store, busy[at])
            if busy and chance.random() < 0.6:
                assert store.succeed(busy.pop(chance.randrange(len(busy))).lease, RESULT)
