"""Standings and limits, in memory or in SQL: one contract, run against each."""

from __future__ import annotations

from prunectl.errors import FailureClass
from prunectl.jobs.model import Failure
from prunectl.jobs.ports import JobStore, LimitStore, StandingStore
from prunectl.jobs.records import OwnerLoad, Standing
from support.stores import add, claim, running


def stand(standings: StandingStore, job_id: str, max_running: int | None = None) -> Standing:
    found = standings.standing(job_id, max_running_per_owner=max_running)
    assert found is not None
    return found


class StandingContract:
    """Subclasses give fixtures ``store``, ``standings`` and ``limits`` over the same rows."""

    def test_what_stands_ahead_is_what_claims_take_first(self, store: JobStore, standings: StandingStore) -> None:
        running(store, owner="ada"), running(store, owner="ada"), running(store, owner="bob")
        add(store, owner="ada", priority=5)
        add(store, owner="bob")
        add(store, owner="cy"), add(store, owner="cy")
        add(store, owner="ada")
        job = add(store, owner="ada")
        add(store, owner="ada"), add(store, owner="dan", priority=-1), add(store, owner="bob", queue="gpu")
        found = stand(standings, job.id)
        assert (found.ahead_by_priority, found.ahead_by_fair_share, found.ahead_by_age) == (1, 3, 1)
        assert (found.owner_running, found.owner_limit, found.queue_running, found.ahead) == (2, None, 0, 5)
        # The claims themselves agree: a job that is not there yet can't overtake.
        taken = claim(store)
        assert taken is not None and taken.priority == 5
        assert claim(store) is not None
        assert stand(standings, job.id).queue_running == 2

    def test_a_standing_of_zero_is_claimed_next(self, store: JobStore, standings: StandingStore) -> None:
        jobs = [add(store, owner=owner, priority=priority) for owner, priority in
                (("ada", 0), ("ada", 3), ("bob", 0), ("ada", 0), ("cy", 3), ("bob", 1))]  # fmt: skip
        left = {job.id for job in jobs}
        while left:
            first = [job_id for job_id in left if stand(standings, job_id).ahead == 0]
            assert len(first) == 1
            taken = claim(store)
            assert taken is not None and taken.id == first[0]
            left.remove(taken.id)

    def test_those_who_wait_for_a_back_off_or_a_quota_stand_in_nobodys_way(
        self, store: JobStore, standings: StandingStore, limits: LimitStore
    ) -> None:
        held = running(store, owner="bob")
        add(store, owner="bob"), add(store, owner="cy")
        job = add(store, owner="ada", priority=-1)
        assert stand(standings, job.id).ahead == 2
        assert stand(standings, job.id, max_running=1).ahead == 1
        limits.set_limit("cy", 0)
        assert stand(standings, job.id, max_running=1).ahead == 0
        store.fail(held.lease, Failure(FailureClass.TRANSIENT_IO, "code", "what"))
        later = store.get(held.id)
        assert later is not None
        assert later.not_before > stand(standings, held.id).now
        assert stand(standings, job.id).ahead == 1  # bob's other one, for the held one is not claimable
        assert standings.standing("nothing") is None

    def test_a_limit_of_an_owner_comes_before_the_setting(
        self, store: JobStore, standings: StandingStore, limits: LimitStore
    ) -> None:
        for owner in ("ada", "ada", "ada", "bob", "bob"):
            add(store, owner=owner)
        limits.set_limit("ada", 2)
        first = add(store, owner="ada")
        taken = [claim(store, max_running_per_owner=1) for _ in range(4)]
        owners = sorted(job.owner for job in taken if job is not None)
        assert owners == ["ada", "ada", "bob"]
        assert (stand(standings, first.id, 1).owner_running, stand(standings, first.id, 1).owner_limit) == (2, 2)
        limits.set_limit("ada", 3)  # changed while they wait
        assert claim(store) is not None
        limits.set_limit("ada", None)
        assert claim(store) is not None  # bob's or ada's: no limit is left
        assert limits.limits() == {}

    def test_zero_holds_back(self, store: JobStore, limits: LimitStore) -> None:
        add(store, owner="ada", priority=9)
        other = add(store, owner="bob")
        limits.set_limit("ada", 0)
        limits.set_limit("ada", 0)
        assert limits.limits() == {"ada": 0}
        taken = claim(store)
        assert taken is not None and taken.id == other.id
        assert claim(store) is None

    def test_loads(self, store: JobStore, standings: StandingStore) -> None:
        running(store, owner="bob"), add(store, owner="bob"), add(store, owner="ada")
        gone = add(store, owner="cy")
        store.cancel(gone.id)
        assert standings.loads() == [OwnerLoad("ada", 0, 1), OwnerLoad("bob", 1, 1)]
