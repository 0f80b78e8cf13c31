"""Watches one runner from its start to its end."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from prunectl.worker.lease_keeper import LeaseKeeper
from prunectl.worker.report import Received
from prunectl.worker.runner_process import RunnerProcess
from prunectl.worker.stop_flag import HURRYING, StopFlag

_TICK_SECONDS = 0.2


class Ending(StrEnum):
    """Why a runner ended: by itself, or because we ended it."""

    EXITED = "exited"
    FENCED = "fenced"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"


@dataclass(frozen=True, slots=True)
class Outcome:
    ending: Ending
    status: int
    received: Received


def watch(
    process: RunnerProcess,
    keeper: LeaseKeeper,
    stop: StopFlag,
    *,
    deadline: float,
    grace_seconds: float,
    say: Callable[[str], None],
) -> Outcome:
    """Until the runner is gone, its whole group with it. ``deadline`` is the job's own, monotonic.

    A runner that has to end gets SIGTERM, ``grace_seconds``, then SIGKILL; a fenced one SIGKILL at once, as another
    worker may be at the same job. Raises whatever interrupts it, with the runner killed.
    """
    received = Received()
    ending: Ending | None = None
    kill_at = 0.0
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.report, selectors.EVENT_READ)
            open_pipe = True
            while process.poll() is None:
                if open_pipe and selector.select(_TICK_SECONDS):
                    open_pipe = _receive(process.report, received)
                    if not open_pipe:
                        selector.unregister(process.report)
                    keeper.note(received.stage, received.progress)
                elif not open_pipe:
                    time.sleep(0.01)  # it has closed its pipe: it is about to exit
                now = time.monotonic()
                if ending is None and (reason := reason_to_end(keeper, stop, now > deadline)) is not None:
                    ending, kill_at = reason, now + (0 if reason is Ending.FENCED else grace_seconds)
                    say(f"ending the job: {reason}")
                    process.terminate()
                if ending is not None and (now >= kill_at or keeper.fenced or stop.level >= HURRYING):
                    process.kill()
    finally:
        process.kill()  # what it started and left behind, too
    while open_pipe:
        open_pipe = _receive(process.report, received)
    status = process.poll()
    assert status is not None
    if keeper.fenced:
        ending = Ending.FENCED
    return Outcome(ending or Ending.EXITED, status, received)


def _receive(descriptor: int, received: Received) -> bool:
    data = os.read(descriptor, 65536)
    received.feed(data)
    return bool(data)


def reason_to_end(keeper: LeaseKeeper, stop: StopFlag, timed_out: bool) -> Ending | None:
    """Why a runner must not go on, or None."""
    if keeper.fenced:
        return Ending.FENCED
    if stop:
        return Ending.STOPPED
    if keeper.cancel_requested:
        return Ending.CANCELLED
    return Ending.TIMED_OUT if timed_out else None
