"""The embedded stack's supervisor: ``python -m prunectl.cli.host.stack``.

One process for each home. It holds a lock on ``stack.lock`` for life, brings the database to this version, makes the
local token, listens on a free loopback port, and keeps two children running: the service, which inherits the listening
socket (so that a restart refuses no connection), and a worker.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import httpx2

from prunectl.cli.host import control, processes, service
from prunectl.settings import Settings
from prunectl.version import version

log = logging.getLogger("prunectl.stack")

LOCK_SECONDS = 3.0
WATCH_SECONDS = 5.0
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_SECONDS = 60.0
"""A child that lived so long had started well: the next restart waits the shortest time again."""
LOG_BYTES = 16 * 2**20


def main() -> int:
    """Run until SIGTERM, or until the home is gone; 1 where the start fails, the reason in the last error line."""
    settings = Settings()
    service.configure_logs(settings)
    lock = _acquire(control.lock_file(settings.home))
    if lock is None:
        log.info("another supervisor serves %s", settings.home)
        return 0
    with lock:
        supervisor = Supervisor(settings, lock)
        try:
            supervisor.prepare()
        except Exception as error:
            log.exception("the start failed")
            print(f"error: {error}".splitlines()[0], file=sys.stderr)  # noqa: T201 - the line that the starting command shows
            return 1
        return supervisor.run()


@dataclass
class Child:
    """One of the two processes, with when it started and when it may start again."""

    name: str
    arguments: list[str]
    descriptors: tuple[int, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    due: float = 0.0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Supervisor:
    """Keeps the children alive, and takes them down with it."""

    settings: Settings
    lock: IO[bytes]
    instance: str = field(default_factory=lambda: uuid.uuid4().hex)
    children: list[Child] = field(default_factory=list)
    url: str = ""
    stopping: int = 0

    def prepare(self) -> None:
        """Database, token, socket. Raises what goes wrong."""
        from prunectl.cli.host.tokens import ensure_local_token
        from prunectl.db import migrate

        migrate.upgrade(self.settings.database)
        ensure_local_token(self.settings)
        # Kept open for the stack's whole life: while the service restarts, connections wait, none is refused.
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        descriptor = self.listener.fileno()
        self.children = [
            Child("api", ["api", str(os.getpid()), str(descriptor)], (descriptor,)),
            Child("worker", ["worker", str(os.getpid())]),
        ]

    def run(self) -> int:
        wakeup = self._listen_for_signals()
        announced = False
        try:
            while not self.stopping:
                self._start_what_is_due()
                if not announced and self._service_answers():
                    self._announce()
                    announced = True
                self._pause(wakeup, 0.05 if not announced else self._until_due())
                self._note_deaths()
                if not self._home_is_ours():
                    log.warning("%s was moved or removed: stopping", self.settings.home)
                    break
        finally:
            self._stop_children(wakeup)
            if self._home_is_ours():
                control.info_file(self.settings.home).unlink(missing_ok=True)
        return 0

    # -- children -----------------------------------------------------------------------------------------------------

    def _start_what_is_due(self) -> None:
        for child in self.children:
            if child.process is None and time.monotonic() >= child.due:
                self._spawn(child)

    def _spawn(self, child: Child) -> None:
        with _open_log(control.log_directory(self.settings.home) / f"{child.name}.log") as output:
            child.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "prunectl.cli.host.service", *child.arguments],
                cwd=self.settings.home,
                env={**os.environ, processes.INSTANCE_VARIABLE: self.instance},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=child.descriptors,
            )
        child.started = time.monotonic()
        log.info("%s started, process %d", child.name, child.process.pid)

    def _note_deaths(self) -> None:
        for child in self.children:
            if child.process is None or child.process.poll() is None:
                continue
            lived = time.monotonic() - child.started
            child.failures = 0 if lived > STEADY_SECONDS else child.failures + 1
            wait = BACKOFF_SECONDS[min(child.failures, len(BACKOFF_SECONDS) - 1)]
            child.due = time.monotonic() + wait
            log.error(
                "%s ended with %d after %.0f s; again in %.1f s", child.name, child.process.returncode, lived, wait
            )
            child.process = None

    def _until_due(self) -> float:
        now = time.monotonic()
        waits = [child.due - now for child in self.children if child.process is None]
        return max(0.0, min([WATCH_SECONDS, *waits]))

    def _stop_children(self, wakeup: socket.socket) -> None:
        for child in self.children:
            if child.process is not None and child.alive:
                child.process.terminate()
        deadline = time.monotonic() + control.stop_seconds(self.settings)
        while any(child.alive for child in self.children) and time.monotonic() < deadline and self.stopping < 2:
            self._pause(wakeup, min(1.0, max(0.0, deadline - time.monotonic())))
        processes.kill([p for p in processes.of_instance(self.instance) if p.pid != os.getpid()])
        log.info("stopped")

    # -- being found --------------------------------------------------------------------------------------------------

    def _service_answers(self) -> bool:
        if not self.children[0].alive:
            return False
        try:
            return httpx2.get(f"{self.url}/healthz", timeout=1, trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False

    def _announce(self) -> None:
        started = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        home = self.settings.home
        control.StackInfo(self.url, os.getpid(), version(), self.instance, str(home), started).write(home)
        log.info("ready at %s", self.url)

    def _home_is_ours(self) -> bool:
        """Whether the lock that is held is still the one at the home's path."""
        try:
            there = control.lock_file(self.settings.home).stat()
        except OSError:
            return False
        ours = os.fstat(self.lock.fileno())
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    # -- signals ------------------------------------------------------------------------------------------------------

    def _listen_for_signals(self) -> socket.socket:
        """A socket that becomes readable with each signal, so that waiting costs no time and misses none."""
        reader, self._writer = socket.socketpair()
        reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        return reader

    def _stop(self, *_: Any) -> None:
        self.stopping += 1

    @staticmethod
    def _pause(wakeup: socket.socket, seconds: float) -> None:
        readable, _, _ = select.select([wakeup], [], [], seconds)
        if readable:
            wakeup.recv(4096)


def _acquire(path: Path) -> IO[bytes] | None:
    """The open lock file, exclusively locked and holding this process's id; None where another supervisor has it."""
    file = path.open("a+b")
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # Commands that only look take it shared for a moment; another supervisor keeps it.
            if time.monotonic() > deadline:
                file.close()
                return None
            time.sleep(0.05)
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()).encode())
    file.flush()
    return file


def _open_log(path: Path) -> IO[bytes]:
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


if __name__ == "__main__":
    sys.exit(main())
