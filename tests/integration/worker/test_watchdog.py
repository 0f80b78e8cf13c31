"""When a worker is ended, when it is restarted, and when it is left alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prunectl.errors import Unavailable
from prunectl.jobs.memory import MemoryJobStore
from prunectl.settings import Settings
from prunectl.worker import watchdog as module
from prunectl.worker.slot_board import SlotBoard
from prunectl.worker.stop_flag import StopFlag
from prunectl.worker.watchdog import Watchdog
from support.stores import add


def test_the_board_shows_across_a_fork_who_is_at_work() -> None:
    board = SlotBoard(2)
    before = board.woken_at
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with board.woken(1):
            os.write(writing, b"x")
            time.sleep(60)
    os.read(reading, 1)
    assert board.busy == 1
    assert board.woken_at > before
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert board.busy == 0, "a process that was killed is not at work"
    with board.woken(0), board.woken(1):
        assert board.busy == 2
    assert board.busy == 0
    os.close(reading), os.close(writing)


class Bench:
    def __init__(self, home: Path, ping: Callable[[], None] = lambda: None) -> None:
        self.settings = Settings(home=home, stall_seconds=0.1, cancel_grace_seconds=0.1, lease_seconds=0.2)
        self.store, self.board, self.stop = MemoryJobStore(), SlotBoard(2), StopFlag()
        self.ends: list[bool] = []
        self.dog = Watchdog(
            self.store,
            ["cpu"],
            self.board,
            self.stop,
            ping,
            self.settings,
            end=self.ends.append,
            ask_to_stop=self.stop.raise_level,
        )

    def run(self, seconds: float = 0.5) -> bool:
        """Let it watch; whether it wants a restart."""
        self.dog.start()
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up and not self.dog.restart_wanted:
            time.sleep(0.005)
        return self.dog.restart_wanted


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.005)
    monkeypatch.setattr(module, "CLOSING_SECONDS", 0.1)


def test_work_that_waits_beside_idle_slots_without_a_ring_restarts_the_worker(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    add(bench.store)
    assert bench.run(5)
    assert bench.stop, "it asks for an orderly end first"
    bench.dog.finish()


def test_nothing_to_do_is_no_stall(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    add(bench.store, queue="gpu")  # not ours
    assert not bench.run(0.4)
    bench.dog.finish()


def test_a_slot_at_work_is_never_interrupted(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    add(bench.store)
    with bench.board.woken(0):
        assert not bench.run(0.4)
    bench.dog.finish()


def test_rings_that_arrive_are_a_sign_of_life(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    add(bench.store)
    bench.dog.start()
    for _ in range(40):
        with bench.board.woken(1):
            pass
        time.sleep(0.01)
    assert not bench.dog.restart_wanted
    bench.dog.finish()


def test_a_broker_that_is_down_is_not_mended_by_a_restart(tmp_path: Path) -> None:
    def down() -> None:
        raise Unavailable("the broker does not answer")

    bench = Bench(tmp_path, down)
    add(bench.store)
    assert not bench.run(0.4)
    bench.dog.finish()


def test_a_database_that_is_away_is_asked_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    add(bench.store)
    counts, asked = bench.store.queue_counts, []

    def away(*, at_most: int | None = None) -> dict[str, tuple[int, int]]:
        asked.append(at_most)
        if len(asked) < 3:
            raise Unavailable("the database does not answer")
        return counts(at_most=at_most)

    bench.store.queue_counts = away  # type: ignore[method-assign]
    assert bench.run(5)
    bench.dog.finish()


def ended(bench: Bench, seconds: float = 5.0) -> list[bool]:
    give_up = time.monotonic() + seconds
    while not bench.ends and time.monotonic() < give_up:
        time.sleep(0.005)
    bench.dog.finish()
    return bench.ends[:1]


def test_a_worker_that_does_not_end_once_it_is_idle_is_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.dog.start()
    bench.stop.raise_level()
    assert ended(bench) == [False]


def test_a_worker_that_ends_by_itself_is_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.dog.start()
    bench.stop.raise_level()
    bench.dog.finish()
    time.sleep(0.2)
    assert bench.ends == []


def test_slots_that_hand_back_are_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.dog.start()
    with bench.board.woken(0):
        bench.stop.raise_level()
        time.sleep(0.25)
        assert bench.ends == [], "longer than Celery may take, but a job is being handed back"
        assert ended(bench) == [False]


def test_a_restart_whose_orderly_end_hangs_is_still_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    add(bench.store)
    bench.dog.start()
    assert ended(bench) == [True]
