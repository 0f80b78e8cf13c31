"""Process trees of the embedded stack: stopped politely, then for good. Nothing that it started is left."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable

import psutil

INSTANCE_VARIABLE = "PRUNECTL_INSTANCE_ID"
_PR_SET_PDEATHSIG = 1


def stop_tree(pid: int, *, seconds: float) -> None:
    """SIGTERM to ``pid``; after ``seconds``, SIGKILL to whatever is left of it and of all that it had started."""
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
        root.terminate()
    except psutil.NoSuchProcess:
        return
    # Looked at before the signal and again after it, so that a runner that is being started is not missed.
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and _alive(root):
        tree = _merged(tree, _children(root))
        time.sleep(0.05)
    psutil.wait_procs([process for process in tree if _alive(process)], timeout=2)
    kill(tree)


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each that is alive, and return when they are gone."""
    alive = [process for process in processes if _alive(process)]
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)


def of_instance(instance: str) -> list[psutil.Process]:
    """Every process of ours that carries the mark of one start of the stack in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and process.environ().get(INSTANCE_VARIABLE) == instance:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def die_with_parent(parent: int) -> None:
    """Ask the kernel for a SIGTERM when the parent dies, however it dies; end at once if it has. Linux only."""
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died before the wish was registered.
    if os.getppid() != parent:
        raise SystemExit(f"the parent {parent} is gone")


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _merged(known: list[psutil.Process], more: list[psutil.Process]) -> list[psutil.Process]:
    return list(dict.fromkeys([*known, *more]))


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
