"""Results that jobs share: computed once, never trusted when damaged, taken over from the dead."""

from __future__ import annotations

import _thread
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from prunectl.errors import Unavailable
from prunectl.jobs.leftovers import SharedCollector
from prunectl.jobs.ports import Storage
from prunectl.recipe import digest_of
from prunectl.storage import open_storage
from prunectl.storage.layout import shared_lease_name, shared_name
from prunectl.worker.shared_results import Arrays, Facts, SharedResults, packed, unpacked

CONDITIONS = {"model": "sha256:1", "seed": 0}
KEY = digest_of(CONDITIONS)
ENTRY, LEASE = shared_name("scores", KEY), shared_lease_name("scores", KEY)
ARRAYS = {"heads": np.arange(6, dtype=np.float32).reshape(2, 3), "texts": np.array([3, 1])}


class Work:
    """Counts how often it is done."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.times = seconds, 0

    def __call__(self) -> tuple[Arrays, Facts]:
        self.times += 1
        time.sleep(self.seconds)
        return dict(ARRAYS), {"task": "fill-mask"}


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(str(tmp_path / "storage"))
    return open_storage(f"memory://shared/{tmp_path.name}")


def sharing(storage: Storage, **clocks: float) -> SharedResults:
    return SharedResults(storage, **{"beat_seconds": 0.02, "dead_seconds": 0.2, "poll_seconds": 0.01, **clocks})


def test_the_second_job_finds_what_the_first_computed(storage: Storage) -> None:
    work, shared = Work(), sharing(storage)
    first, second = (shared.get("scores", CONDITIONS, work) for _ in range(2))
    assert (first.reused, second.reused, work.times) == (False, True, 1)
    assert second.facts == {"task": "fill-mask"}
    assert all(np.array_equal(second.arrays[name], array) for name, array in ARRAYS.items())
    assert storage.list("shared") == [ENTRY.removeprefix("shared/")]  # no lease is left
    assert not shared.get("scores", {**CONDITIONS, "seed": 1}, work).reused


@pytest.mark.parametrize("place", [0, 4, 40, -1])
def test_a_changed_or_missing_byte_is_noticed(place: int) -> None:
    data = bytearray(packed(ARRAYS, {}))
    data[place] ^= 1
    for damaged in (bytes(data), bytes(data)[:-5], b""):
        with pytest.raises(ValueError):
            unpacked(damaged)


def test_a_damaged_entry_is_computed_again_and_mended(storage: Storage) -> None:
    work, shared = Work(), sharing(storage)
    shared.get("scores", CONDITIONS, work)
    storage.write(ENTRY, storage.read(ENTRY)[:-3])
    assert not shared.get("scores", CONDITIONS, work).reused
    assert shared.get("scores", CONDITIONS, work).reused
    assert work.times == 2


def test_those_who_come_meanwhile_wait_for_a_live_holder(storage: Storage) -> None:
    work, shared, found = Work(0.5), sharing(storage), []
    threads = []
    for _ in range(3):
        threads.append(threading.Thread(target=lambda: found.append(shared.get("scores", CONDITIONS, work))))
        threads[-1].start()
        time.sleep(0.05)  # whoever comes first has its lease by then
    for thread in threads:
        thread.join()
    assert work.times == 1
    assert sorted(one.reused for one in found) == [False, True, True]


def test_a_beat_that_never_begins_holds_nothing_up(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that dies as it starts, as one does for want of memory: the system has it, and its code never runs."""
    monkeypatch.setattr(_thread, "start_new_thread", lambda _function, _arguments: 0)
    monkeypatch.setattr(threading.Thread, "start", lambda _thread: pytest.fail("it would be waited for"))
    assert not sharing(storage).get("scores", CONDITIONS, Work()).reused
    assert sharing(storage).get("scores", CONDITIONS, Work()).reused
    assert storage.list("shared") == [ENTRY.removeprefix("shared/")]


def test_a_refused_thread_costs_the_sharing_only(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_function: object, _arguments: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert not sharing(storage).get("scores", CONDITIONS, Work()).reused
    assert storage.list("shared") == [ENTRY.removeprefix("shared/")]


def test_a_dead_holder_is_replaced(storage: Storage) -> None:
    storage.write(LEASE, b'{"token": "dead", "beat": 7}')
    work, started = Work(), time.monotonic()
    assert not sharing(storage).get("scores", CONDITIONS, work).reused
    assert time.monotonic() - started >= 0.2
    assert not storage.exists(LEASE)


def test_waiting_has_an_end(storage: Storage) -> None:
    shared, work = sharing(storage), Work(1.0)
    holder = threading.Thread(target=lambda: shared.get("scores", CONDITIONS, work))
    holder.start()
    time.sleep(0.05)
    own = Work()
    assert not sharing(storage, wait_seconds=0.1).get("scores", CONDITIONS, own).reused
    assert own.times == 1
    holder.join()


def test_a_holder_that_fails_leaves_the_work_to_the_next(storage: Storage) -> None:
    def fail() -> tuple[Arrays, Facts]:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        sharing(storage).get("scores", CONDITIONS, fail)
    assert not storage.exists(LEASE)
    assert not sharing(storage, dead_seconds=60).get("scores", CONDITIONS, Work()).reused


def test_a_storage_that_is_away_costs_the_sharing_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path))

    def refuse(*_: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(storage, "write", refuse)
    assert not sharing(storage).get("scores", CONDITIONS, Work()).reused


def test_old_entries_and_leases_are_collected(storage: Storage) -> None:
    sharing(storage).get("scores", CONDITIONS, Work())
    storage.write(LEASE, b"{}")
    assert SharedCollector(storage, 3600, 3600).collect() == []
    assert SharedCollector(storage, 3600, -10).collect() == [LEASE]
    assert SharedCollector(storage, -10, 3600).collect() == [ENTRY]
