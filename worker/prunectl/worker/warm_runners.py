"""Warm runners: forks of one template process that has imported what a job needs, so that a job doesn't pay for that.

A runner that the template forks becomes a child of this process, which then waits for it, signals it and learns how it
ended as of one that it had started itself; the template's own end is no concern of a runner's.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunectl.worker.lifeline import adopt_orphans

logger = logging.getLogger(__name__)

OF_A_JOB = frozenset({"TMPDIR", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"})
"""Variables that a runner takes up after the template's imports; any other that differs asks for another template."""
MAX_JOBS = 200
MAX_MESSAGE_BYTES = 150_000
_START_SECONDS = 300.0
_FORK_SECONDS = 30.0
_TICK_SECONDS = 0.1


class TemplateFault(Exception):
    """The template is gone, silent, or says what nobody asked."""


class _Impatient(Exception):
    """Whoever wanted a runner would rather not wait."""


class Adopted:
    """A child of this process that another has forked for it, with what is needed of a `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        return self._look(os.WNOHANG)

    def wait(self) -> int | None:
        return self._look(0)

    def _look(self, options: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status


@dataclass(frozen=True, slots=True)
class Ends:
    """A runner's ends: what it reads its job from, writes its output to, and reports on."""

    stdin: int
    output: int
    report: int


class WarmRunners:
    """One template at a time, started when a first runner is wanted. ``command`` starts it; see `prunectl.worker.template`."""

    def __init__(self, command: Sequence[str], *, max_jobs: int = MAX_JOBS) -> None:
        self._command = list(command)
        self._max_jobs = max_jobs
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._environment: dict[str, str] = {}
        self._ready = False
        self._forked = 0
        self._unfit = False

    @property
    def template_pid(self) -> int | None:
        """Of the template that is there now."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def fork(
        self, ends: Ends, environment: Mapping[str, str], directory: str, patient: Callable[[], bool]
    ) -> Adopted | None:
        """A new runner in ``directory``, in a session of its own; None: there is none to be had, so start one.

        ``patient`` is asked again and again while the template isn't ready.
        """
        if self._unfit:
            return None
        try:
            self._have_template(environment)
            self._be_ready(patient)
            return self._ask(ends, environment, directory)
        except _Impatient:
            return None
        except (OSError, ValueError, TemplateFault) as error:
            logger.warning("no warm runner, so a fresh one is started: %s", error)
            self.close()
            return None
        except (
            BaseException
        ):  # whatever interrupts us: an answer that is under way must not be taken for the next job's
            self.close()
            raise

    def close(self) -> None:
        """End the template; the next runner gets another. Runners that it has forked go on."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None
        self._ready, self._forked = False, 0

    def _have_template(self, environment: Mapping[str, str]) -> None:
        wanted = {name: value for name, value in environment.items() if name not in OF_A_JOB}
        if self._process is not None:
            if self._process.poll() is None and wanted == self._environment and self._forked < self._max_jobs:
                return
            self.close()
        adopt_orphans()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                self._process = subprocess.Popen(
                    [*self._command, str(its.fileno()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    pass_fds=(its.fileno(),),
                    start_new_session=True,
                    cwd="/",
                    # One thread and no GPU: only a process like this can be forked. A runner gets its own share.
                    env={
                        **wanted,
                        "OMP_NUM_THREADS": "1",
                        "MKL_NUM_THREADS": "1",
                        "OPENBLAS_NUM_THREADS": "1",
                        "CUDA_VISIBLE_DEVICES": "",
                    },
                )
            except BaseException:
                ours.close()
                raise
        self._socket, self._environment = ours, wanted

    def _be_ready(self, patient: Callable[[], bool]) -> None:
        if self._ready:
            return
        answer = self._answer(_START_SECONDS, patient)
        if "unfit" in answer:
            self._unfit = True
            raise TemplateFault(f"this machine's processes can't be forked safely: {answer['unfit']}")
        self._ready = True

    def _ask(self, ends: Ends, environment: Mapping[str, str], directory: str) -> Adopted:
        assert self._socket is not None
        message = json.dumps({"environment": dict(environment), "directory": directory}).encode()
        if len(message) > MAX_MESSAGE_BYTES:
            raise TemplateFault(f"the environment takes {len(message)} bytes")
        waits, go = os.pipe()
        try:
            try:
                socket.send_fds(self._socket, [message], [ends.stdin, ends.output, ends.report, waits])
            finally:
                os.close(waits)
            answer = self._answer(_FORK_SECONDS, lambda: True)
            if "pid" not in answer:
                raise TemplateFault(str(answer.get("unfit", "it did not fork")))
            self._forked += 1
            runner = Adopted(int(answer["pid"]))
            try:
                os.write(go, b"g")  # a runner whose pid we never learned reads the end of the pipe instead, and ends
            except BrokenPipeError:  # it has ended already, and its status will say how
                pass
            return runner
        finally:
            os.close(go)

    def _answer(self, seconds: float, patient: Callable[[], bool]) -> dict[str, Any]:
        assert self._socket is not None
        give_up = time.monotonic() + seconds
        while not select.select([self._socket], [], [], _TICK_SECONDS)[0]:
            if not patient():
                raise _Impatient
            if time.monotonic() > give_up:
                raise TemplateFault(f"no answer in {seconds:g} s")
        data = self._socket.recv(MAX_MESSAGE_BYTES)
        if not data:
            raise TemplateFault("the template has ended")
        answer: dict[str, Any] = json.loads(data)
        return answer
