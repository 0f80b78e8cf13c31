"""Disks that are full or read-only: a clear error, nothing torn, and all goes on when there is room again."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from prunectl.errors import DiskFull, Unavailable
from prunectl.jobs.model import JobState
from support.faults import assert_nothing_lost, fill, small_disk
from support.fleet import CLOCKS, Fleet, until

from .conftest import Stack


@pytest.fixture
def on_small_storage(stack: Stack, tmp_path: Path) -> Iterator[tuple[Fleet, Path]]:
    """Workers whose shared storage is a file system of 512 KiB."""
    with small_disk(tmp_path / "disk", "512k") as disk:
        fleet = Fleet(tmp_path, database_url=stack.database, broker_url=stack.broker, storage_url=str(disk / "storage"))
        try:
            yield fleet, disk
        finally:
            fleet.close()


def test_no_space_for_artifacts(on_small_storage: tuple[Fleet, Path]) -> None:
    fleet, _ = on_small_storage
    fleet.start(slots=2)
    large = fleet.submit(*["fill 2000000"] * 3, max_failures=0)
    small = fleet.submit(*["ok"] * 10)
    ended = assert_nothing_lost(
        fleet, [*large, *small], seconds=60, expected={job.id: JobState.FAILED for job in large}
    )
    for job in ended[:3]:
        assert job.failure is not None
        assert (job.failure.failure_class, job.failure.code) == ("disk_full", "disk_full")
        assert job.failure.hint


def test_storage_that_is_read_only_for_a_while(on_small_storage: tuple[Fleet, Path]) -> None:
    fleet, disk = on_small_storage
    fleet.start()
    assert_nothing_lost(fleet, fleet.submit("ok"))
    remount(disk, "ro")
    jobs = fleet.submit("ok", "ok", max_failures=9)
    until(lambda: all(fleet.get(job).failures for job in jobs), "the first attempts")
    for job in jobs:
        found = fleet.get(job).failure
        assert found is not None
        assert found.code == "unavailable"
    remount(disk, "rw")
    assert_nothing_lost(fleet, jobs, seconds=90)


def remount(disk: Path, how: str) -> None:
    """Busy for as long as a file is open for writing."""
    give_up = time.monotonic() + 10
    while subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=False, capture_output=True).returncode:
        assert time.monotonic() < give_up, f"can't remount {disk}"
        time.sleep(0.1)


@pytest.mark.parametrize("stack", ["filesystem, SQLite", "Redis, SQLite"], indirect=True)
def test_no_space_for_sqlite(stack: Stack, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        shutil.copyfile(urlsplit(stack.database).path, disk / "prunectl.db")
        url = f"sqlite:///{disk / 'prunectl.db'}"
        fleet = Fleet(tmp_path, database_url=url, broker_url=stack.broker)
        fleet.servers_were_killed = True  # Celery's own words about what it can't do are not counted
        try:
            worker = fleet.start()
            jobs = fleet.submit("late 2", *["ok"] * 10, max_failures=9)
            fleet.runner(jobs[0])
            ballast = fill(disk)
            with pytest.raises(DiskFull):
                for _ in range(200):
                    fleet.submit("ok")
            time.sleep(CLOCKS["lease_seconds"] + 2)  # nobody can renew: the worker gives its job up
            assert worker.poll() is None
            ballast.unlink()
            everything = _all_jobs(fleet)
            assert {job.id for job in jobs} <= {job.id for job in everything}
            assert_nothing_lost(fleet, everything, seconds=120)
        finally:
            fleet.close()


def _all_jobs(fleet: Fleet):  # type: ignore[no-untyped-def]
    from prunectl.jobs.records import JobQuery

    found, cursor = [], None
    while True:
        page = fleet.store.page(JobQuery(limit=500, cursor=cursor))
        found += page.items
        if page.next_cursor is None:
            return found
        cursor = page.next_cursor


@pytest.mark.parametrize("stack", ["filesystem, SQLite"], indirect=True)
def test_no_space_for_messages(stack: Stack, tmp_path: Path) -> None:
    with small_disk(tmp_path / "broker", "64k") as disk:
        fleet = Fleet(tmp_path, database_url=stack.database, broker_url=stack.broker)
        fleet.servers_were_killed = True
        try:
            fleet.start()
            ballast = fill(disk)
            before = time.monotonic()
            jobs = fleet.submit(*["ok"] * 5)
            assert time.monotonic() - before < 3, "who submits is not held up"
            time.sleep(2)
            ballast.unlink()
            assert_nothing_lost(fleet, jobs)
        finally:
            fleet.close()


@pytest.mark.parametrize("stack", ["filesystem, SQLite"], indirect=True)
def test_a_broker_folder_that_cannot_be_written(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("in the way")
    with pytest.raises(Unavailable):
        Fleet(tmp_path, database_url=stack.database, broker_url=stack.broker)
