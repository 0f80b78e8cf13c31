"""Starts, finds and stops the embedded stack, from the command line's side. Imports nothing heavy."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prunectl.cli.failures import say
from prunectl.cli.host import packages
from prunectl.errors import Unavailable
from prunectl.settings import Settings
from prunectl.version import version

START_SECONDS = 90.0
"""How long a start may take before it is called failed: a first one compiles byte code, on a slow disk."""
PROBE_SECONDS = 5.0
STOP_MARGIN_SECONDS = 10.0
# The submitter's, not the stack's: each job brings its own, so one command's must not leak into another's.
_NOT_INHERITED = ("PRUNECTL_API_URL", "PRUNECTL_API_TOKEN", "PRUNECTL_MODEL_PATH")
_RELATIVE_SQLITE = re.compile(r"(?P<scheme>sqlite(\+\w+)?:///)(?P<path>[^/:?][^?]*)$")
RESTART_HINT = "restart the embedded stack: prunectl down; prunectl up"


@dataclass(frozen=True)
class StackInfo:
    """``stack.json``: written when the stack answers, removed when it stops. Alone it proves nothing; see `running`."""

    url: str
    pid: int
    version: str
    instance: str
    home: str
    started_at: str

    def write(self, home: Path) -> None:
        partial = home / ".stack.json.partial"
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.replace(info_file(home))


@dataclass(frozen=True)
class Endpoint:
    """Where the embedded service answers, and the token that it takes."""

    url: str
    token: str


def info_file(home: Path) -> Path:
    return home / "stack.json"


def lock_file(home: Path) -> Path:
    return home / "stack.lock"


def log_directory(home: Path) -> Path:
    return home / "logs"


def ensure(settings: Settings) -> Endpoint:
    """The running stack, started first where there is none. Two commands at once start one.

    Raises Unavailable where packages are missing, the home can't be written, or the start fails.
    """
    home = settings.home
    info = running(home)
    if info is None:
        packages.require("api", "worker")
        _prepare(home)
        info = _start(home)
    if info.version != version():
        say(f"hint: the embedded stack is version {info.version}, this is {version()}; {RESTART_HINT}")
    return Endpoint(info.url, _token(settings))


def running(home: Path) -> StackInfo | None:
    """The stack that serves ``home``, or None: no file, nobody holding the lock, or another home's after a move."""
    info = _read_info(home)
    if info is None or holder(home) is None or Path(info.home) != home:
        return None
    return info if _answers(info) else None


def holder(home: Path) -> int | None:
    """Process id of the supervisor that holds ``home``'s lock, 0 while it is not known; None where none does."""
    try:
        with lock_file(home).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read().decode("ascii", "replace").strip()
                return int(text) if text.isdecimal() else 0
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None


def inspect(settings: Settings) -> dict[str, Any]:
    """What ``prunectl status`` shows."""
    home = settings.home
    info = running(home)
    shown: dict[str, Any] = {"schema_version": 1, "running": info is not None, "home": str(home)}
    found = asdict(info) if info else {}
    shown |= {name: found.get(name) for name in ("url", "pid", "version", "started_at")}
    return {**shown, "logs": str(log_directory(home))}


def down(settings: Settings) -> bool:
    """Stop the stack and everything it started; False where there was nothing to stop."""
    home = settings.home
    info = _read_info(home)
    pid = holder(home)
    if info is None and pid is None:
        return False
    packages.require("api", "worker")
    from prunectl.cli.host import processes

    instance = info.instance if info else None
    if pid:
        processes.stop_tree(pid, seconds=stop_seconds(settings) + STOP_MARGIN_SECONDS)
    # A supervisor that was killed outright may have left children that are still on their way out.
    stragglers = processes.of_instance(instance) if instance else []
    processes.kill(stragglers)
    if info is not None and holder(home) is None:
        info_file(home).unlink(missing_ok=True)
    return bool(pid or stragglers)


def stop_seconds(settings: Settings) -> float:
    """How long the supervisor gives its children: the worker first gives a job's runner its own grace."""
    return settings.cancel_grace_seconds + 10.0


def _start(home: Path) -> StackInfo:
    try:
        with FileLock(home / "start.lock", timeout=START_SECONDS):
            info = running(home)
            if info is not None:
                return info
            _clear_the_way(home)
            return _await_ready(_spawn(home), home)
    except Timeout:
        raise Unavailable(
            "another command has been starting the embedded stack for too long",
            hint=f"see {log_directory(home)}; {RESTART_HINT}",
        ) from None


def _clear_the_way(home: Path) -> None:
    """Stop a supervisor that holds the lock but serves another path (the home was moved); refuse one that hangs."""
    pid, info = holder(home), _read_info(home)
    if pid is None:
        info_file(home).unlink(missing_ok=True)
        return
    if info is not None and Path(info.home) != home:
        from prunectl.cli.host import processes

        processes.stop_tree(pid, seconds=STOP_MARGIN_SECONDS * 2)
        info_file(home).unlink(missing_ok=True)
        return
    raise Unavailable(
        f"the embedded stack (process {pid}) does not answer", hint=f"see {log_directory(home)}; {RESTART_HINT}"
    )


def _spawn(home: Path) -> subprocess.Popen[bytes]:
    with (log_directory(home) / "stack.log").open("ab") as log:
        return subprocess.Popen(
            # -P: the home, which is the working directory, must not be a place that modules are imported from.
            [sys.executable, "-P", "-m", "prunectl.cli.host.stack"],
            cwd=home,
            env=stack_environment(os.environ, home),
            # None of the caller's streams: `$(prunectl submit …)` would wait for the stack to close them.
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def stack_environment(variables: Mapping[str, str], home: Path) -> dict[str, str]:
    """The environment of the stack's processes: the caller's, without what belongs to a submission.

    The stack runs in its home, so relative paths are made absolute: there they would point elsewhere.
    """
    kept = {
        name: value for name, value in variables.items() if name not in _NOT_INHERITED and not name.startswith("HF_")
    }
    if "PYTHONPATH" in kept:
        kept["PYTHONPATH"] = os.pathsep.join(
            str(Path(part).absolute()) for part in kept["PYTHONPATH"].split(os.pathsep) if part
        )
    if (storage := kept.get("PRUNECTL_STORAGE_URL")) and "://" not in storage:
        kept["PRUNECTL_STORAGE_URL"] = str(Path(storage).expanduser().absolute())
    if relative := _RELATIVE_SQLITE.match(kept.get("PRUNECTL_DATABASE_URL", "")):
        kept["PRUNECTL_DATABASE_URL"] = relative["scheme"] + str(Path(relative["path"]).absolute())
    return {**kept, "PRUNECTL_HOME": str(home), "PRUNECTL_EMBEDDED": "1"}


def _await_ready(process: subprocess.Popen[bytes], home: Path) -> StackInfo:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        info = _read_info(home)
        if info is not None and info.pid == process.pid and _answers(info):
            return info
        if process.poll() is not None:
            raise Unavailable(
                f"the embedded stack did not start: {_last_error(home)}", hint=f"see {log_directory(home)}"
            )
        time.sleep(0.05)
    process.terminate()
    raise Unavailable(
        f"the embedded stack did not answer within {START_SECONDS:.0f} s", hint=f"see {log_directory(home)}"
    )


def _last_error(home: Path) -> str:
    lines = (log_directory(home) / "stack.log").read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return errors[-1] if errors else (lines[-1] if lines else "it ended at once")


def _answers(info: StackInfo) -> bool:
    """Whether it is this very stack that answers at its address; a port may have gone to a stranger."""
    import httpx2

    try:
        response = httpx2.get(f"{info.url}/healthz", timeout=PROBE_SECONDS, trust_env=False)
        return response.status_code == 200 and response.json().get("instance") == info.instance
    except (httpx2.HTTPError, ValueError):
        return False


def _read_info(home: Path) -> StackInfo | None:
    try:
        return StackInfo(**json.loads(info_file(home).read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):
        # Another version's, or torn by a full disk: as good as none, and rewritten at the next start.
        return None


def _token(settings: Settings) -> str:
    try:
        return settings.token_file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise Unavailable(f"the embedded stack's token can't be read: {error}", hint=RESTART_HINT) from error


def _prepare(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_directory(home).mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise Unavailable(
            f"PRUNECTL_HOME {str(home)!r} can't be written: {error.strerror}",
            hint="set PRUNECTL_HOME to a directory of your own",
        ) from error
