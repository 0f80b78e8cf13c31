"""Redis and PostgreSQL of the tests' own, on free ports, from the installed binaries.

Where a binary is absent, the test is skipped at a desk and fails where ``CI`` is set.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

_WAIT_SECONDS = 30.0


def absent(what: str) -> None:
    """Skip at a desk, fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed, and CI must not skip")
    pytest.skip(f"{what} is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A Redis without persistence: what `kill` takes is gone."""

    def __init__(self) -> None:
        found = shutil.which("redis-server")
        if found is None:
            absent("redis-server")
            raise AssertionError
        self._binary = found
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _until(lambda: _listens(self.port), "Redis")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It keeps its connections and answers nothing, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class PostgresServer:
    """A PostgreSQL cluster in a temporary directory; as another user where we are root, which it refuses to be.

    ``durable`` commits reach the disk, as they do on a server that anyone keeps; tests go without.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._fsync = "on" if durable else "off"
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        on_path = shutil.which("postgres")
        if not binaries and on_path is None:
            absent("PostgreSQL")
        self._bin = binaries[-1].parent if binaries else Path(str(on_path)).resolve().parent
        self.port = free_port()
        self._top = Path(tempfile.mkdtemp(prefix="prunectl-pg-"))
        self._user: str | None = None
        if os.getuid() == 0:
            self._user = "postgres"
            entry = pwd.getpwnam(self._user)
            os.chown(self._top, entry.pw_uid, entry.pw_gid)
        self._data = self._top / "data"
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "prunectl", "-E", "UTF8", "--no-sync")
        self.start()

    def _run(self, tool: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / tool), *arguments],
            user=self._user,
            cwd=self._top,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{tool}: {done.stdout}{done.stderr}")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync={self._fsync}"
        log = str(self._top / "log")
        self._run("pg_ctl", "-D", str(self._data), "-l", log, "-w", "-t", "30", "-o", options, "start")

    def kill(self) -> None:
        """As a power cut would."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def close(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self._top)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://prunectl@127.0.0.1:{self.port}/{database}"


@contextlib.contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """A new empty database on the server whose maintenance database ``server_url`` names; dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield engine.url.set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a PostgreSQL server's maintenance database: ``PRUNECTL_TEST_POSTGRES``, or one of our own."""
    given = os.environ.get("PRUNECTL_TEST_POSTGRES")
    if given:
        try:
            create_engine(given).connect().close()
        except OperationalError as error:
            pytest.fail(f"PRUNECTL_TEST_POSTGRES does not answer: {error}")
        yield given
        return
    server = PostgresServer()
    try:
        yield server.url("postgres")
    finally:
        server.close()


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """URL of a fresh, empty PostgreSQL database."""
    with fresh_database(postgres_url) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        yield server
    finally:
        server.kill()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _until(holds, what: str) -> None:  # type: ignore[no-untyped-def]
    give_up = time.monotonic() + _WAIT_SECONDS
    while not holds():
        if time.monotonic() > give_up:
            raise RuntimeError(f"{what} did not answer within {_WAIT_SECONDS:g} s")
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone, or reaped between the opening and the reading
        return False
    return state != "Z"


def kill_hard(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
