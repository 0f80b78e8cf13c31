"""The API killed while jobs are submitted, and its broker with it: what was acknowledged is there, once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx2
import pytest

from prunectl.db.session import make_engine
from prunectl.db.token_store import SqlTokenStore
from prunectl.jobs.records import JobQuery, Token
from support.faults import assert_nothing_lost
from support.fleet import Fleet, until
from support.servers import free_port
from support.service import config_only

from .conftest import Stack

JOBS = 100


class Service:
    """``prunectl api`` over a fleet's stack, at one address."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.port = fleet, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config_only(fleet.settings.home / "zoo" / "tiny")
        token = Token(id="t", name="ci", owner="ada", scopes=("submit",))
        SqlTokenStore(make_engine(fleet.settings.database)).add_token(token, hashlib.sha256(b"s3cret").hexdigest())
        self.process: subprocess.Popen[bytes] | None = None
        self.log = (fleet.settings.home / "api.log").open("ab")

    def start(self) -> None:
        environment = {**self.fleet.environment(), "PRUNECTL_MODEL_PATH": str(self.fleet.settings.home / "zoo")}
        command = [sys.executable, "-P", "-m", "prunectl.cli.main", "api", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, env=environment, cwd=self.fleet.settings.home, stdout=self.log, stderr=self.log
        )
        until(self.answers, "the API", 60)

    def answers(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/healthz", trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    def submit(self, number: int) -> str:
        """The job's id. Raises TransportError where the API is away."""
        response = httpx2.post(
            f"{self.url}/v1/jobs",
            json={"model": "tiny", "recipe": {"heads": 0.5, "seed": number}, "tags": {"stub": "ok"}},
            headers={"Authorization": "Bearer s3cret", "Idempotency-Key": f"job-{number}"},
            trust_env=False,
            timeout=30,
        )
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def service(fleet: Fleet) -> Iterator[Service]:
    found = Service(fleet)
    try:
        yield found
    finally:
        found.kill()
        found.log.close()


def test_the_api_killed_while_a_hundred_jobs_are_submitted(fleet: Fleet, service: Service) -> None:
    fleet.start(slots=2)
    service.start()
    ids: dict[int, str] = {}
    kills = 0
    number = 0
    while number < JOBS:
        if number in (20, 50, 80) and kills < (20, 50, 80).index(number) + 1:
            service.kill()
            kills += 1
        try:
            ids[number] = service.submit(number)
        except httpx2.TransportError:
            service.start()
            continue  # as a client would: the same key again
        number += 1
    assert kills == 3
    service.kill()  # for good: workers need nobody to tell them
    stored = {job.id for job in fleet.store.page(JobQuery(limit=500)).items}
    assert stored == set(ids.values())
    assert len(stored) == JOBS
    jobs = [job for job in map(fleet.store.get, ids.values()) if job is not None]
    assert_nothing_lost(fleet, jobs, seconds=240)


@pytest.mark.parametrize("stack", ["Redis, SQLite", "Redis, PostgreSQL"], indirect=True)
def test_submits_are_answered_while_redis_is_down_or_frozen(stack: Stack, fleet: Fleet, service: Service) -> None:
    assert stack.redis is not None
    fleet.servers_were_killed = True
    fleet.start(slots=2)
    service.start()
    service.submit(0)
    stack.redis.freeze()
    slowest = {"frozen": timed(service, range(1, 4))}
    stack.redis.thaw()
    stack.redis.kill()
    slowest["down"] = timed(service, range(4, 8))
    stack.redis.start()
    assert slowest["down"] < 3 and slowest["frozen"] < 8, slowest
    jobs = fleet.store.page(JobQuery(limit=500)).items
    assert len(jobs) == 8
    assert_nothing_lost(fleet, jobs, seconds=90)


def timed(service: Service, numbers: range) -> float:
    """Seconds of the slowest submit."""
    seconds = []
    for number in numbers:
        before = time.monotonic()
        service.submit(number)
        seconds.append(time.monotonic() - before)
    return max(seconds)
