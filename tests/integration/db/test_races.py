"""Many processes at the same rows: each job is won once, each lease expired once, each identical submit queued once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from sqlalchemy import select

from prunectl.db import migrate
from prunectl.db.claiming import claim_one
from prunectl.db.idempotency_store import SqlIdempotencyStore
from prunectl.db.job_store import SqlJobStore
from prunectl.db.limit_store import SqlLimitStore
from prunectl.db.session import make_engine
from prunectl.db.sweep_store import SqlSweepStore
from prunectl.db.tables import jobs
from prunectl.jobs.steering import Steering
from support.queue_stub import python_path
from support.stores import add, claim, new_job

_PRELUDE = """
import json, sys
from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import make_engine
from support.stores import claim, new_job
store = SqlJobStore(make_engine(sys.argv[1]))
sys.stdin.readline()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        found: str = request.getfixturevalue("sqlite_url")
        return found
    found = request.getfixturevalue("postgres_database")
    migrate.upgrade(found)
    return found


def race(url: str, code: str, *, processes: int = 4) -> list[list[str]]:
    """Run ``code`` in several processes that start at the same moment; what each printed as JSON."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _PRELUDE + code, url],
            env={"PYTHONPATH": python_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in started]
    assert all(process.returncode == 0 for process in started)
    return [json.loads(answer) for answer in answers]


def test_each_job_is_claimed_once(url: str) -> None:
    store = SqlJobStore(make_engine(url))
    ids = {added.job.id for added in store.add([new_job() for _ in range(200)])}
    won = race(
        url,
        "won = []\nwhile (job := claim(store)) is not None: won.append(job.id)\nprint(json.dumps(won))",
    )
    everything = [job_id for part in won for job_id in part]
    assert len(everything) == len(ids)
    assert set(everything) == ids


def test_each_job_is_claimed_once_by_steered_claims(url: str) -> None:
    store = SqlJobStore(make_engine(url))
    new = [new_job(owner=f"o{number % 2}", model_identity=f"m{number % 3}") for number in range(200)]
    ids = {added.job.id for added in store.add(new)}
    won = race(
        url,
        "from prunectl.jobs.steering import Steering\n"
        "won, slot = [], Steering()\n"
        "while (job := claim(store, steering=slot)) is not None:\n"
        "    won.append(job.id)\n"
        "    slot = Steering(job.model_identity)\n"
        "print(json.dumps(won))",
    )
    everything = [job_id for part in won for job_id in part]
    assert len(everything) == len(ids)
    assert set(everything) == ids


def test_a_job_that_another_claim_has_locked_is_passed_over(postgres_database: str) -> None:
    migrate.upgrade(postgres_database)
    engine = make_engine(postgres_database)
    store = SqlJobStore(engine)
    old, *found = [add(store, model_identity=model) for model in "baab"]
    with engine.begin() as connection:
        connection.execute(select(jobs.c.id).where(jobs.c.id == found[0].id).with_for_update())
        first = claim(store, steering=Steering("a"))
        assert first is not None and first.id == old.id
    # Only what a claim takes is locked: one at the same time would otherwise see none of the owner's other jobs.
    with engine.begin() as connection:
        values = {
            "the_queue": "cpu",
            "the_priority": 0,
            "the_owner": "ada",
            "oldest": old.created_at,
            "warm_model": "a",
        }
        by = {"by_worker": "w", "on_device": None, "new_token": "t", "lease_seconds": 60.0}
        taken = connection.execute(claim_one(steered=True).returning(jobs.c.id), {**values, **by}).scalar_one()
        assert taken == found[0].id
        others = [claim(store, steering=Steering("a")) for _ in range(3)]
        assert [job and job.id for job in others] == [found[1].id, found[2].id, None]


def test_each_dead_lease_is_expired_once(url: str) -> None:
    store = SqlJobStore(make_engine(url))
    for _ in range(100):
        add(store, priority=1)
        assert claim(store, lease_seconds=-5) is not None
    swept = race(url, "print(json.dumps([job.id for job in store.sweep()]))", processes=3)
    everything = [job_id for part in swept for job_id in part]
    assert len(everything) == len(set(everything)) == 100


def test_identical_submits_at_once_queue_one_job(url: str) -> None:
    answers = race(
        url,
        "made = [store.add([new_job(digest=f'sha256:{i}')])[0] for i in range(20)]\n"
        "print(json.dumps([f'{a.created} {a.job.id}' for a in made]))",
    )
    for column in zip(*answers, strict=True):
        assert sum(answer.startswith("True") for answer in column) == 1
        assert len({answer.split()[1] for answer in column}) == 1


def test_identical_sweeps_at_once_queue_each_job_once(url: str) -> None:
    answers = race(
        url,
        "from prunectl.db.sweep_store import SqlSweepStore\n"
        "from support.sweep_stores import add_sweep\n"
        "digests = [f'sha256:{i}' for i in range(150)]\n"
        "sweep, added = add_sweep(SqlSweepStore(make_engine(sys.argv[1])), *digests)\n"
        "print(json.dumps([sweep.id, sum(a.created for a in added), sorted({a.job.id for a in added})]))",
    )
    assert sum(created for _, created, _ in answers) == 150
    assert len({tuple(ids) for _, _, ids in answers}) == 1
    sweeps = SqlSweepStore(make_engine(url))
    for sweep_id, created, _ in answers:
        found = sweeps.sweep(sweep_id)
        assert found is not None
        assert (sum(found.counts.values()), found.shared) == (150, 150 - created)


def test_an_owners_own_limit_holds_against_claims_at_once(url: str) -> None:
    engine = make_engine(url)
    SqlLimitStore(engine).set_limit("ada", 2)
    SqlJobStore(engine).add([new_job() for _ in range(20)])
    won = race(
        url,
        "won = []\nwhile (job := claim(store)) is not None: won.append(job.id)\nprint(json.dumps(won))",
    )
    assert sum(len(part) for part in won) == 2


def test_identical_sweeps_at_once_queue_their_jobs_once(url: str) -> None:
    answers = race(
        url,
        "made = store.add([new_job(digest=f'sha256:{i}', priority=i) for i in range(150)])\n"
        "print(json.dumps([f'{a.created} {a.job.id}' for a in made]))",
    )
    for column in zip(*answers, strict=True):
        assert sum(answer.startswith("True") for answer in column) == 1
        assert len({answer.split()[1] for answer in column}) == 1
    store = SqlJobStore(make_engine(url))
    for priority, answer in enumerate(answers[0]):
        job = store.get(answer.split()[1])
        assert job is not None and job.priority == priority
        assert [event.data["state"] for event in store.events(job.id)] == ["queued"]


def test_a_quota_holds_against_claims_at_once(url: str) -> None:
    store = SqlJobStore(make_engine(url))
    store.add([new_job() for _ in range(20)])
    won = race(
        url,
        "won = []\n"
        "while (job := claim(store, max_running_per_owner=3)) is not None: won.append(job.id)\n"
        "print(json.dumps(won))",
    )
    assert sum(len(part) for part in won) == 3


def test_one_request_that_is_sent_many_times_at_once_makes_one_job(url: str) -> None:
    code = """
from prunectl.jobs.records import (AlreadyAnswered, RequestKey)
made = []
for number in range(20):
    try:
        added = store.add([new_job(digest="same")], force=True, request=RequestKey("ada", f"key-{number}", "body"))
        made.append(f"{number} {added[0].job.id}")
    except AlreadyAnswered:
        pass
print(json.dumps(made))
"""
    lines = [line.split() for answer in race(url, code) for line in answer]
    made = dict(lines)
    assert len(lines) == len(made) == 20
    engine = make_engine(url)
    keys = SqlIdempotencyStore(engine)
    assert {number: keys.recall("ada", f"key-{number}") for number in made} == {
        number: ("body", [job_id]) for number, job_id in made.items()
    }
    with engine.connect() as connection:
        assert set(connection.scalars(select(jobs.c.id))) == set(made.values())
