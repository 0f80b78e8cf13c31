"""What every job store does, in memory or in SQL: one contract, run against each."""

from __future__ import annotations

import base64
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from ulid import ULID

from prunectl.errors import Conflict, FailureClass, InvalidInput
from prunectl.jobs import model
from prunectl.jobs.model import Failure, Job, JobState, Lease, TransitionRefused
from prunectl.jobs.ports import JobStore
from prunectl.jobs.records import JobQuery, MetricFilter, NewJob

_NUMBERS = itertools.count(1)
TIMES = ("created_at", "not_before", "lease_until", "started_at", "finished_at", "cancel_requested_at")
RESULT: dict[str, Any] = {
    "model_digest": "sha256:0",
    "metrics": {"parameters": {"before": 10, "after": 5}, "eval_loss": {"before": 1.0, "after": 1.5, "n": 8}},
    "artifacts": {"checkpoint": "file:///storage/runs/x"},
    "gate": {"passed": True, "conditions": []},
}


def new_job(**changed: Any) -> NewJob:
    """A job that no other equals."""
    number = next(_NUMBERS)
    values: dict[str, Any] = {
        "id": str(ULID()).lower(),
        "owner": "ada",
        "queue": "cpu",
        "priority": 0,
        "spec": {"model": "m", "recipe": {"heads": 0.3}, "evaluation": {}, "tags": {}},
        "digest": f"sha256:{number}",
        "recipe_digest": "sha256:r",
        "model_name": "bert",
        "model_identity": "dir:/m",
        "max_failures": 2,
    }
    return NewJob(**{**values, **changed})


def add(store: JobStore, **changed: Any) -> Job:
    [added] = store.add([new_job(**changed)])
    assert added.created
    return added.job


def claim(store: JobStore, queue: str = "cpu", lease_seconds: float = 60.0, **more: Any) -> Job | None:
    return store.claim([queue], worker="w1", device="cpu", lease_seconds=lease_seconds, **more)


def running(store: JobStore, lease_seconds: float = 60.0, **changed: Any) -> Job:
    """A running job, in a queue of its own so that no other is claimed instead."""
    queue = f"q{next(_NUMBERS)}"
    add(store, queue=queue, **changed)
    job = claim(store, queue, lease_seconds)
    assert job is not None
    return job


def succeeded(store: JobStore, metrics: dict[str, float] | None = None, **changed: Any) -> Job:
    job = running(store, **changed)
    result = RESULT if metrics is None else {**RESULT, "metrics": {name: {"after": v} for name, v in metrics.items()}}
    assert store.succeed(job.lease, result)
    return get(store, job)


def get(store: JobStore, job: Job) -> Job:
    found = store.get(job.id)
    assert found is not None
    return found


def failure(failure_class: FailureClass = FailureClass.USER_ERROR) -> Failure:
    return Failure(failure_class, "some_code", "what happened", "what to do")


def _later(store: JobStore) -> Job:
    job = running(store)
    store.fail(job.lease, failure(FailureClass.TRANSIENT_IO))
    return get(store, job)


def _cancel_wanted(store: JobStore, **more: Any) -> Job:
    job = running(store, **more)
    store.cancel(job.id)
    return get(store, job)


def _failed(store: JobStore, **changed: Any) -> Job:
    job = running(store, **changed)
    store.fail(job.lease, failure())
    return get(store, job)


def _cancelled(store: JobStore, **changed: Any) -> Job:
    job = add(store, **changed)
    store.cancel(job.id)
    return get(store, job)


SITUATIONS: dict[str, Callable[[JobStore], Job]] = {
    "queued": lambda store: add(store, queue=f"q{next(_NUMBERS)}"),
    "queued, not yet": _later,
    "running": running,
    "running, last attempt": lambda store: running(store, max_failures=0),
    "running, cancellation wanted": _cancel_wanted,
    "running, lease over": lambda store: running(store, lease_seconds=-5.0),
    "running, lease over, last attempt": lambda store: running(store, lease_seconds=-5.0, max_failures=0),
    "running, lease over, cancellation wanted": lambda store: _cancel_wanted(store, lease_seconds=-5.0),
    "succeeded": succeeded,
    "failed": _failed,
    "cancelled": _cancelled,
}

Pure = Callable[[Job, Lease, float], Job]
Stored = Callable[[JobStore, Job, Lease], object]


def _guarded(act: Callable[[], object]) -> object:
    try:
        return act()
    except Conflict:
        return None


TRANSITIONS: dict[str, tuple[Pure, Stored]] = {
    "claim": (
        lambda job, lease, now: model.claim(job, worker="w2", device="gpu", token="?", now=now, lease_seconds=30),
        lambda store, job, lease: store.claim([job.queue], worker="w2", device="gpu", lease_seconds=30),
    ),
    "heartbeat": (
        lambda job, lease, now: model.heartbeat(job, lease, stage="score", progress=0.5, now=now, lease_seconds=90),
        lambda store, job, lease: store.heartbeat(lease, stage="score", progress=0.5, lease_seconds=90),
    ),
    "succeed": (
        lambda job, lease, now: model.succeed(job, lease, RESULT, now=now),
        lambda store, job, lease: store.succeed(lease, RESULT),
    ),
    "acknowledge_cancel": (
        lambda job, lease, now: model.acknowledge_cancel(job, lease, now=now),
        lambda store, job, lease: store.acknowledge_cancel(lease),
    ),
    "hand_back": (
        lambda job, lease, now: model.hand_back(job, lease, now=now),
        lambda store, job, lease: store.hand_back(lease),
    ),
    "cancel": (
        lambda job, lease, now: model.cancel(job, now=now),
        lambda store, job, lease: _guarded(lambda: store.cancel(job.id)),
    ),
    "retry": (
        lambda job, lease, now: model.retry(job, now=now),
        lambda store, job, lease: _guarded(lambda: store.retry(job.id)),
    ),
    "expire": (lambda job, lease, now: model.expire(job, now=now), lambda store, job, lease: store.sweep() or None),
    **{
        f"fail {item}": (
            lambda job, lease, now, item=item: model.fail(job, lease, failure(item), now=now),
            lambda store, job, lease, item=item: store.fail(lease, failure(item)),
        )
        for item in FailureClass
    },
}
LEASES: dict[str, Callable[[Job], Lease]] = {
    "own": lambda job: Lease(job.id, job.attempt, job.lease_token or "none"),
    "other token": lambda job: Lease(job.id, job.attempt, "0" * 32),
    "older attempt": lambda job: Lease(job.id, job.attempt - 1, job.lease_token or "none"),
}
_BY_LEASE = ("heartbeat", "succeed", "acknowledge_cancel", "hand_back", *(f"fail {item}" for item in FailureClass))


def assert_same(stored: Job, expected: Job) -> None:
    """Equal but for the lease's token, which is random, and for the moment that passed between the two."""
    left, right = asdict(stored), asdict(replace(expected, lease_token=stored.lease_token))
    for name in TIMES:
        assert left.pop(name) == pytest.approx(right.pop(name), abs=5.0), name
    assert left == right
    assert (stored.lease_token is None) == (expected.lease_token is None)


class JobStoreContract:
    """Subclasses give a fixture ``store``."""

    def test_its_clock_is_the_time_of_day(self, store: JobStore) -> None:
        assert store.now() == pytest.approx(time.time(), abs=5.0)

    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_each_transition_is_the_pure_one(self, store: JobStore, situation: str) -> None:
        checked = 0
        for name, (pure, stored) in TRANSITIONS.items():
            for lease_name in LEASES if name in _BY_LEASE else ["own"]:
                job = SITUATIONS[situation](store)
                lease = LEASES[lease_name](job)
                try:
                    expected: Job | None = pure(job, lease, store.now())
                except TransitionRefused:
                    expected = None
                outcome = stored(store, job, lease)
                where = f"{name} with {lease_name} lease, job {situation}"
                assert bool(outcome) == (expected is not None), where
                assert_same(get(store, job), expected or job)
                store.sweep()  # so that no expired job of this round is in the next one's way
                checked += 1
        assert checked == len(TRANSITIONS) + (len(LEASES) - 1) * len(_BY_LEASE)

    def test_a_claim_takes_priority_then_the_least_busy_owner_then_age(self, store: JobStore) -> None:
        first = add(store, owner="ada")
        second = add(store, owner="ada")
        other = add(store, owner="bob")
        urgent = add(store, owner="ada", priority=5)
        taken = [claim(store) for _ in range(5)]
        assert [job.id if job else None for job in taken] == [urgent.id, other.id, first.id, second.id, None]

    def test_a_claim_honours_the_quota_of_an_owner(self, store: JobStore) -> None:
        add(store, owner="ada"), add(store, owner="ada")
        other = add(store, owner="bob", priority=-1)
        assert claim(store, max_running_per_owner=1) is not None
        second = claim(store, max_running_per_owner=1)
        assert second is not None and second.id == other.id
        assert claim(store, max_running_per_owner=1) is None

    def test_a_claim_takes_only_its_queues(self, store: JobStore) -> None:
        add(store, queue="gpu")
        assert claim(store, "cpu") is None
        assert claim(store, "gpu") is not None

    def test_a_claim_takes_the_best_of_all_its_queues(self, store: JobStore) -> None:
        old = add(store, queue="cpu")
        other = add(store, queue="gpu", owner="bob")
        urgent = add(store, queue="gpu", priority=1)
        newer = add(store, queue="cpu", owner="bob")
        taken = [store.claim(["gpu", "cpu"], worker="w", lease_seconds=60) for _ in range(5)]
        assert [job and (job.id, job.device) for job in taken] == [
            (urgent.id, "gpu"),
            (other.id, "gpu"),
            (old.id, "cpu"),
            (newer.id, "cpu"),
            None,
        ]

    @pytest.mark.parametrize("seed", range(4))
    def test_claims_come_in_the_order_of_the_pure_rule(self, store: JobStore, seed: int) -> None:
        chance = random.Random(seed)
        waiting: list[Job] = []
        for number in range(60):
            waiting += [
                item.job
                for item in store.add(
                    [
                        new_job(
                            id=f"{seed}{number:025d}",
                            owner=f"o{chance.randrange(6)}",
                            priority=chance.choice((-3, 0, 0, 7)),
                            queue=chance.choice(("cpu", "gpu")),
                        )
                    ]
                )
            ]
        busy: list[Job] = []
        for _ in range(150):
            quota = chance.choice((None, 1, 2, 3))
            queues = chance.choice((("cpu",), ("gpu", "cpu")))
            running = Counter(job.owner for job in busy)
            ready = [job for job in waiting if job.queue in queues and (quota is None or running[job.owner] < quota)]
            best = min(ready, key=lambda job: (-job.priority, running[job.owner], job.created_at, job.id), default=None)
            taken = store.claim(queues, worker="w", lease_seconds=60, max_running_per_owner=quota)
            assert (taken and taken.id) == (best and best.id)
            if taken is not None:
                waiting = [job for job in waiting if job.id != taken.id]
                busy.append(taken)
            if busy and chance.random() < 0.6:
                ended = busy.pop(chance.randrange(len(busy)))
                if chance.random() < 0.3:
                    assert store.hand_back(ended.lease)
                    waiting.append(get(store, ended))
                else:
                    assert store.succeed(ended.lease, RESULT)

    def test_each_claim_has_its_own_token_and_a_higher_attempt(self, store: JobStore) -> None:
        job = running(store)
        assert store.hand_back(job.lease)
        again = claim(store, job.queue)
        assert again is not None
        assert again.attempt == job.attempt + 1
        assert again.lease_token != job.lease_token
        assert store.heartbeat(job.lease, stage=None, progress=0.0, lease_seconds=60) is None
        assert not store.succeed(job.lease, RESULT)
        assert get(store, job) == again

    def test_an_identical_job_is_found_instead_of_queued(self, store: JobStore) -> None:
        first = add(store, digest="sha256:same")
        [again] = store.add([new_job(digest="sha256:same")])
        assert not again.created
        assert again.job.id == first.id
        [others] = store.add([new_job(digest="sha256:same", owner="bob")])
        assert others.created
        [forced] = store.add([new_job(digest="sha256:same")], force=True)
        assert forced.created
        newest = store.identical("sha256:same")
        assert newest is not None and newest.id in (forced.job.id, others.job.id)

    def test_hundreds_at_once_find_those_that_exist(self, store: JobStore) -> None:
        first = store.add([new_job(digest=f"sha256:{number}") for number in range(510)])
        store.add([new_job(digest=f"sha256:{number}", owner="bob") for number in range(3)])
        ended = first[7].job
        store.cancel(ended.id)
        again = store.add([new_job(digest=f"sha256:{number}", tags={"n": f"{number}"}) for number in range(520)])
        assert [number for number, added in enumerate(again) if added.created] == [7, *range(510, 520)]
        for number, (old, new) in enumerate(zip(first, again, strict=False)):
            assert (old.job.id == new.job.id) == (number != 7)
        assert [event.data["state"] for event in store.events(again[7].job.id)] == ["queued"]
        assert get(store, again[515].job).tags == {"n": "515"}

    def test_identical_jobs_of_one_call_are_one(self, store: JobStore) -> None:
        twice = [new_job(digest="sha256:twice"), new_job(digest="sha256:twice")]
        added = store.add(twice)
        assert [item.created for item in added] == [True, False]
        assert {item.job.id for item in added} == {twice[0].id}

    def test_a_failed_or_cancelled_job_does_not_count_as_existing(self, store: JobStore) -> None:
        cancelled = add(store, digest="sha256:c")
        store.cancel(cancelled.id)
        failed = running(store, digest="sha256:f")
        store.fail(failed.lease, failure())
        assert [item.created for item in store.add([new_job(digest="sha256:c"), new_job(digest="sha256:f")])] == [
            True,
            True,
        ]
        # and can still be retried, beside the new one
        assert store.retry(cancelled.id) is not None

    def test_a_job_comes_back_as_it_went_in(self, store: JobStore) -> None:
        new = new_job(name="mine", tags={"team": "a", "with.dot/and-dash": "b"}, timeout_seconds=12.5, sweep_id="s1")
        [added] = store.add([new])
        job = get(store, added.job)
        assert job == added.job
        for name in asdict(new):
            assert getattr(job, name) == getattr(new, name)
        assert (job.state, job.attempt, job.failures, job.progress) == (JobState.QUEUED, 0, 0, 0.0)
        assert job.created_at == job.not_before == pytest.approx(store.now(), abs=5.0)

    def test_what_does_not_exist(self, store: JobStore) -> None:
        assert store.get("nothing") is None
        assert store.cancel("nothing") is None
        assert store.retry("nothing") is None
        assert store.remove("nothing") is None
        assert store.identical("nothing") is None
        assert store.find("nothing") == []
        assert store.events("nothing") == []
        assert store.add([]) == []
        assert store.sweep() == []

    def test_find_by_beginning_end_and_whole(self, store: JobStore) -> None:
        job = add(store, id="01hz0000000000000000abcdef")
        add(store, id="01hz1111111111111111abcdxx", owner="bob")
        for text in (job.id, "01hz000", "bcdef", "abcdef", "ABCDEF"):
            assert store.find(text) == [job.id], text
        assert len(store.find("01hz")) == 2
        assert store.find("01hz", owner="bob") == ["01hz1111111111111111abcdxx"]
        assert len(store.find("01hz", limit=1)) == 1
        for text in ("hz00", "abcd", "%", "____", "01hz%", "é"):
            assert store.find(text) == [], text

    def test_pages_by_every_sort_key_hold_each_job_once_in_order(self, store: JobStore) -> None:
        for number in range(5):
            succeeded(
                store, {"speedup": 1.0 + number % 3}, priority=number % 2, name=f"n{number}" if number % 2 else None
            )
        add(store), running(store), _failed(store)
        for key in ("created_at", "priority", "name", "finished_at", "speedup", "state", "id", "model"):
            for sort in (key, f"-{key}"):
                seen: list[Job] = []
                query = JobQuery(sort=sort, limit=3)
                while True:
                    page = store.page(query)
                    seen += page.items
                    if page.next_cursor is None:
                        break
                    query = replace(query, cursor=page.next_cursor)
                assert len({job.id for job in seen}) == len(seen) == 8, sort
                values = [_value(job, key) for job in seen]
                filled = [value for value in values if value is not None]
                assert values == filled + [None] * (len(values) - len(filled)), f"{sort}: empty values come last"
                assert filled == sorted(filled, reverse=sort.startswith("-")), sort

    @pytest.mark.parametrize("sort", ["-created_at", "created_at", "-priority"])
    def test_pages_by_owner_and_state_follow_each_other(self, store: JobStore, sort: str) -> None:
        makers = (add, running, succeeded, _failed, _cancelled)
        made = [makers[n % 5](store, owner=("ada", "bob")[n % 2], priority=n % 3, name=f"{n}") for n in range(30)]
        everything = [get(store, job) for job in made]
        since = store.now() - everything[0].created_at + 60.0
        queries: list[dict[str, Any]] = [
            {"owner": "ada"},
            {"owner": "bob", "states": (JobState.FAILED, JobState.QUEUED)},
            {"states": (JobState.RUNNING,)},
            {"owner": "ada", "states": (JobState.SUCCEEDED,), "active_or_since_seconds": 60.0},
            {"active_or_since_seconds": -60.0},
            {"active_or_since_seconds": since, "owner": "bob"},
        ]
        for filters in queries:
            wanted = [
                job
                for job in everything
                if filters.get("owner") in (None, job.owner)
                and (not filters.get("states") or job.state in filters["states"])
                and (filters.get("active_or_since_seconds", 60.0) > 0 or not job.state.terminal)
            ]
            key = sort.removeprefix("-")
            wanted.sort(key=lambda job: (getattr(job, key), job.id), reverse=sort.startswith("-"))
            seen: list[str] = []
            query = JobQuery(sort=sort, limit=4, **filters)
            while True:
                page = store.page(query)
                seen += [job.id for job in page.items]
                if page.next_cursor is None:
                    break
                query = replace(query, cursor=page.next_cursor)
            assert seen == [job.id for job in wanted], filters

    def test_filters(self, store: JobStore) -> None:
        fast = succeeded(store, {"speedup": 2.0, "eval_accuracy": 0.9}, model_name="org/Bert-base", tags={"t": "1"})
        slow = succeeded(store, {"speedup": 1.1, "eval_accuracy": 0.95}, model_name="org/roberta", owner="bob")
        waiting = add(store, model_name="bert%x", sweep_id="s1", tags={"t": "2"})

        def ids(**query: Any) -> set[str]:
            return {job.id for job in store.page(JobQuery(**query)).items}

        assert ids() == {fast.id, slow.id, waiting.id}
        assert ids(owner="bob") == {slow.id}
        assert ids(states=(JobState.SUCCEEDED,)) == {fast.id, slow.id}
        assert ids(model_glob="org/*") == {fast.id, slow.id}
        assert ids(model_glob="org/bert*") == set()  # case counts
        assert ids(model_glob="bert%?") == {waiting.id}
        assert ids(model_glob="bert?x") == {waiting.id}
        assert ids(model_glob="org/roberta") == {slow.id}
        assert ids(sweep_id="s1") == {waiting.id}
        assert ids(tags={"t": "1"}) == {fast.id}
        assert ids(tags={"t": "1", "u": "1"}) == set()
        assert ids(where=(MetricFilter("speedup", ">", 1.5),)) == {fast.id}
        assert ids(where=(MetricFilter("speedup", ">=", 1.1), MetricFilter("eval_accuracy", ">", 0.92))) == {slow.id}
        assert ids(where=(MetricFilter("progress", "==", 1),)) == {fast.id, slow.id}
        assert ids(where=(MetricFilter("progress", "<", 1),)) == {waiting.id}
        assert ids(since_seconds=60) == {fast.id, slow.id, waiting.id}
        assert ids(since_seconds=-60) == set()
        assert ids(active_or_since_seconds=-60) == {waiting.id}

    @pytest.mark.parametrize("sort", ["speed", "-", "", "eval_", "id; DROP TABLE jobs", "spec"])
    def test_an_unknown_sort_key_is_refused(self, store: JobStore, sort: str) -> None:
        with pytest.raises(InvalidInput, match="can't sort by"):
            store.page(JobQuery(sort=sort))

    @pytest.mark.parametrize(
        "condition", [MetricFilter("speed", ">", 1), MetricFilter("speedup", "~", 1), MetricFilter("spec", "=", 1)]
    )
    def test_an_unknown_condition_is_refused(self, store: JobStore, condition: MetricFilter) -> None:
        with pytest.raises(InvalidInput):
            store.page(JobQuery(where=(condition,)))

    def test_a_cursor_belongs_to_its_query(self, store: JobStore) -> None:
        for _ in range(3):
            add(store)
        cursor = store.page(JobQuery(limit=1)).next_cursor
        assert cursor is not None
        assert len(store.page(JobQuery(limit=2, cursor=cursor)).items) == 2
        for query in (JobQuery(sort="priority", cursor=cursor), JobQuery(owner="ada", cursor=cursor)):
            with pytest.raises(InvalidInput, match="cursor"):
                store.page(query)
        fingerprint, value, job_id = json.loads(base64.urlsafe_b64decode(cursor + "=="))
        forged = [
            base64.urlsafe_b64encode(json.dumps([fingerprint, *rest]).encode()).decode()
            for rest in (["soon", job_id], [True, job_id], [float("nan"), job_id], [None, job_id], [value, "\0"])
        ]
        for text in ("", "nonsense", "%%%", cursor[:-3], "W10", "é", *forged):
            with pytest.raises(InvalidInput, match="cursor"):
                store.page(JobQuery(cursor=text))

    def test_a_page_has_an_end(self, store: JobStore) -> None:
        store.add([new_job() for _ in range(502)])
        assert len(store.page(JobQuery(limit=10_000)).items) == 500
        assert len(store.page(JobQuery(limit=-3)).items) == 1

    def test_events_tell_the_life_of_a_job(self, store: JobStore) -> None:
        job = running(store)
        for stage in ("score", "score", "prune"):
            store.heartbeat(job.lease, stage=stage, progress=0.1, lease_seconds=60)
        store.cancel(job.id)
        store.acknowledge_cancel(job.lease)
        events = store.events(job.id)
        told = [(event.kind, event.data.get("state") or event.data.get("stage"), event.attempt) for event in events]
        assert told == [
            ("state", "queued", 0),
            ("state", "running", 1),
            ("stage", "score", 1),
            ("stage", "prune", 1),
            ("state", "running", 1),
            ("state", "cancelled", 1),
        ]
        ids = [event.id for event in events]
        assert ids == sorted(set(ids))
        assert [event.id for event in store.events(job.id, after=ids[2], limit=2)] == ids[3:5]

    def test_a_stale_worker_leaves_no_event_and_no_metric(self, store: JobStore) -> None:
        job = running(store)
        store.hand_back(job.lease)
        before = store.events(job.id)
        store.succeed(job.lease, RESULT), store.fail(job.lease, failure())
        store.heartbeat(job.lease, stage="score", progress=0.9, lease_seconds=60)
        assert store.events(job.id) == before
        assert store.page(JobQuery(where=(MetricFilter("parameters", ">", 0),))).items == []

    def test_a_sweep_expires_each_dead_lease_once(self, store: JobStore) -> None:
        dead = [running(store, lease_seconds=-1.0) for _ in range(3)]
        alive = running(store)
        assert {job.id for job in store.sweep()} == {job.id for job in dead}
        assert store.sweep() == []
        assert get(store, alive) == alive
        for job in dead:
            assert get(store, job).failure == Failure(
                FailureClass.LOST,
                "worker_lost",
                "the worker w1 stopped answering during attempt 1",
                "prunectl logs shows how far it came; prunectl workers shows who is alive",
            )

    def test_removal(self, store: JobStore) -> None:
        job = succeeded(store)
        assert store.referenced_artifacts() == {"file:///storage/runs/x"}
        removed = store.remove(job.id)
        assert removed == job
        assert store.get(job.id) is None
        assert store.events(job.id) == []
        assert store.referenced_artifacts() == set()
        active = running(store)
        with pytest.raises(Conflict):
            store.remove(active.id)

    def test_which_uploads_are_named_and_which_ids_are_nobodys(self, store: JobStore) -> None:
        before = store.referenced_uploads()
        data, vocabulary = "a" * 64, "b" * 64
        spec = {
            "model": "m",
            "recipe": {"vocab": f"upload:sha256:{vocabulary}/words.txt"},
            "evaluation": {"data": f"upload:sha256:{data}/rows.jsonl"},
            "tags": {},
        }
        job, other = add(store, spec=spec), add(store)
        assert store.referenced_uploads() - before == {data, vocabulary}
        assert store.unknown([job.id, "01nobody", other.id]) == {"01nobody"}
        assert store.unknown([f"{number:026d}" for number in range(1100)] + [job.id]) == {
            f"{number:026d}" for number in range(1100)
        }
        assert store.unknown([]) == set()

    def test_conflicts_name_the_state(self, store: JobStore) -> None:
        done = succeeded(store)
        with pytest.raises(Conflict, match="succeeded"):
            store.cancel(done.id)
        with pytest.raises(Conflict, match="succeeded"):
            store.retry(done.id)
        waiting = add(store)
        with pytest.raises(Conflict, match="queued"):
            store.retry(waiting.id)

    def test_counts(self, store: JobStore) -> None:
        add(store), add(store), add(store, queue="gpu"), _later(store), succeeded(store)
        assert claim(store) is not None
        counts = {queue: n for queue, n in store.queue_counts().items() if queue in ("cpu", "gpu")}
        assert counts == {"cpu": (1, 1), "gpu": (1, 0)}
        add(store), add(store)
        assert store.queue_counts()["cpu"] == (3, 1)
        for at_most, ready in ((1, 1), (2, 2), (3, 3), (9, 3)):
            capped = {queue: n for queue, n in store.queue_counts(at_most=at_most).items() if queue in ("cpu", "gpu")}
            assert capped == {"cpu": (ready, 1), "gpu": (1, 0)}
        [(worker, job_id)] = store.running()
        assert worker == "w1"
        assert get(store, add(store)).id != job_id


def _value(job: Job, key: str) -> Any:
    if key == "speedup":
        return (job.result or {}).get("metrics", {}).get("speedup", {}).get("after")
    return getattr(job, "model_name" if key == "model" else key)
