"""With ``PRUNECTL_CELERY_EVENTS=1``, a Celery event receiver sees jobs: their ids, their states, and no rings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.events.state import State

from prunectl.dispatch import make_app
from support.fleet import Fleet, until
from support.servers import RedisServer


class Watcher(threading.Thread):
    """What Flower does: a receiver that feeds every event into Celery's own `State`."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(daemon=True)
        self.app = make_app(fleet.settings)
        self.state: State = self.app.events.State()
        self.seen: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self.stopping = False

    def run(self) -> None:
        with self.app.connection_for_read() as first:
            receiver = self.app.events.Receiver(first, handlers={"*": self._keep})
            with receiver.consumer_context(wakeup=False) as (connection, *_):
                self.ready.set()
                while not self.stopping:
                    try:
                        connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    def _keep(self, event: dict[str, Any]) -> None:
        self.seen.append(event)
        self.state.event(event)

    def kinds(self, job_id: str) -> list[str]:
        return [event["type"] for event in self.seen if event.get("uuid") == job_id]


@pytest.fixture
def fleet(tmp_path: Path, sqlite_url: str, redis_server: RedisServer) -> Iterator[Fleet]:
    redis.Redis(port=redis_server.port).flushall()
    found = Fleet(tmp_path, database_url=sqlite_url, broker_url=redis_server.url, celery_events=True)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def watcher(fleet: Fleet) -> Iterator[Watcher]:
    watcher = Watcher(fleet)
    watcher.start()
    assert watcher.ready.wait(10)
    yield watcher
    watcher.stopping = True
    watcher.join(10)


def test_jobs_are_seen_as_tasks_and_rings_are_not(fleet: Fleet, watcher: Watcher) -> None:
    fleet.start(slots=1, name="w1")
    good, bad, cancelled = fleet.submit("ok", "error weights_corrupt", "sleep 60")
    until(lambda: "task-started" in watcher.kinds(cancelled.id), "the last job to be claimed")
    fleet.store.cancel(cancelled.id)
    fleet.wait([good, bad, cancelled])
    until(lambda: "task-revoked" in watcher.kinds(cancelled.id), "its end to be told")
    assert watcher.kinds(good.id) == ["task-received", "task-started", "task-succeeded"]
    assert watcher.kinds(bad.id) == ["task-received", "task-started", "task-failed"]
    assert watcher.kinds(cancelled.id) == ["task-received", "task-started", "task-revoked"]
    tasks = watcher.state.tasks
    assert set(tasks) == {good.id, bad.id, cancelled.id}  # no ring among them
    assert {task.name for task in tasks.values()} == {"prunectl.job"}
    assert [tasks[job.id].state for job in (good, bad, cancelled)] == ["SUCCESS", "FAILURE", "REVOKED"]
    assert "weights_corrupt" in tasks[bad.id].exception
    assert {task.worker.hostname for task in tasks.values()} == {"prunectl@w1"}
    assert watcher.state.workers["prunectl@w1"].alive
    assert tasks[good.id].runtime >= 0

    # Tried again by its user: it ends as it ended last.
    fleet.store.retry(bad.id)
    fleet.bell.ring("cpu")
    until(lambda: watcher.kinds(bad.id).count("task-failed") == 2, "the second failure")
    assert watcher.kinds(bad.id)[3:] == ["task-retried", "task-received", "task-started", "task-failed"]


@pytest.mark.slow
def test_a_broker_that_is_away_delays_no_job(fleet: Fleet, watcher: Watcher, redis_server: RedisServer) -> None:
    fleet.start(slots=1)
    [job] = fleet.submit("sleep 2")
    until(lambda: bool(fleet.starts(job)), "the job to start")
    watcher.stopping = True
    watcher.join(10)
    redis_server.kill()
    try:
        [ended] = fleet.wait([job], seconds=30)
        assert ended.state == "succeeded"
    finally:
        redis_server.start()
