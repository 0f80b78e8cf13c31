"""What every fault test asks for at its end, and the faults that need some machinery."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from prunectl.jobs.leftovers import ArtifactCollector, SharedCollector
from prunectl.jobs.model import Job, JobState
from prunectl.storage.names import STAGING_PREFIX
from prunectl.worker.scratch import collect_scratch
from support.fleet import Fleet, until
from support.queue_stub import PAUSED
from support.servers import alive

RECOVERY_SECONDS = 40.0
"""Far above lease + sweep + back-off of a test's clocks, for machines that are busy with other things."""


def assert_nothing_lost(
    fleet: Fleet,
    jobs: Iterable[Job],
    *,
    seconds: float = RECOVERY_SECONDS,
    expected: Mapping[str, JobState] | None = None,
    whole: Iterable[str] = ("config.json", "model.safetensors"),
) -> list[Job]:
    """N in = N ended, each once and as ``expected`` (success where it names none); nothing torn, nothing orphaned.

    The workers must still be up or not needed any more; artifacts of dead attempts are collected as they would be a day
    later, and what then remains is exactly what the jobs name.
    """
    jobs = list(jobs)
    wanted = {job.id: (expected or {}).get(job.id, JobState.SUCCEEDED) for job in jobs}
    ended = fleet.wait(jobs, seconds)
    assert {job.id: job.state for job in ended} == wanted
    for job in ended:
        states = [event.data["state"] for event in fleet.store.events(job.id) if event.kind == "state"]
        ends = [state for state in states if JobState(state).terminal]
        assert ends == [job.state], f"{job.id} ended once: {states}"
        assert job.state is not JobState.FAILED or job.failure is not None
        assert job.lease_token is None and job.lease_until is None
        pids = fleet.starts(job)
        until(lambda pids=pids: not any(alive(pid) for pid in pids), f"runners of {job.id} to end", 10)  # type: ignore[misc]
    _assert_whole_artifacts(fleet, ended, set(whole))
    return ended


def _assert_whole_artifacts(fleet: Fleet, ended: list[Job], whole: set[str]) -> None:
    root = Path(fleet.storage.root)  # type: ignore[union-attr]
    collector = ArtifactCollector(fleet.store, fleet.storage, after_seconds=-60.0)
    shared = SharedCollector(fleet.storage, retention_seconds=3600.0, after_seconds=-60.0)

    def published() -> list[Path]:
        return [directory for job in ended for directory in (root / "runs" / job.id).glob("*")]

    for directory in published():
        try:
            names = {path.name for path in directory.iterdir()}
        except FileNotFoundError:  # withdrawn meanwhile by an attempt that came too late
            continue
        assert whole <= names or not directory.exists(), f"torn: {directory} has only {names}"
    collector.collect()
    named = [Path(unquote(urlparse((job.result or {})["artifacts"]["checkpoint"]).path)) for job in ended if job.result]
    assert len(named) == sum(job.state is JobState.SUCCEEDED for job in ended)
    assert set(published()) == set(named), "one artifact for each success, and no other"

    def collected() -> bool:
        # A supervisor that has only now learnt that its attempt is over may be removing what that published. What a runner
        # was killed over, which its own attempt does not know of, the collector of shared results removes.
        shared.collect()
        return not list(root.rglob(f"{STAGING_PREFIX}*"))

    until(collected, "what is half-written to go", 5)


def assert_scratch_can_go(home: Path) -> None:
    """After the workers have ended: what killed supervisors left is unlocked, and the next worker's round removes it."""
    scratch = home / "scratch"
    for directory in scratch.iterdir() if scratch.is_dir() else ():
        os.utime(directory, (0, 0))
    collect_scratch(scratch)
    assert not scratch.is_dir() or list(scratch.iterdir()) == []


def paused(fleet: Fleet, job: Job, seconds: float = 20.0) -> None:
    """Wait until the job's first attempt has come to its point."""
    until((fleet.settings.home / PAUSED / job.id).exists, f"the point of {job.id}", seconds)


@contextlib.contextmanager
def small_disk(where: Path, size: str = "256k", options: str = "") -> Iterator[Path]:
    """A file system of ``size`` at ``where``; skips, visibly, where mounting is not allowed."""
    where.mkdir(parents=True, exist_ok=True)
    wanted = f"size={size}{',' if options else ''}{options}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", wanted, "tmpfs", str(where)], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def fill(disk: Path) -> Path:
    """Write until the disk is full; the file that takes the space."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return ballast


class TcpProxy:
    """Passes connections on to a port of this host; `swallow` makes those that are open half-open.

    Half-open: the peer is gone and no packet says so. Bytes that are sent arrive nowhere, and none come back.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._generation = 0
        self.swallow_new = False
        """Whether connections that are made from now on lead nowhere as well."""
        self._sockets: list[socket.socket] = []
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        """Every connection that is open leads nowhere from now on."""
        self._generation += 1

    def close(self) -> None:
        self._closed = True
        for item in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
            item.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()  # as a host whose server is down
                continue
            self._sockets.append(server)
            generation = self._generation if not self.swallow_new else -1
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, sink, generation), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, generation: int) -> None:
        while True:
            try:
                data = source.recv(65536)
                if self._generation != generation:
                    if data:
                        continue  # read and dropped: the sender's buffer must not fill
                    return
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
            except OSError:
                return
