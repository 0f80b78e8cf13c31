"""The template of runners: a process that has imported what a job needs, holds nothing of any job, and forks on demand.

Run as ``python -m prunectl.worker.template SOCKET PARENT_PID`` by `prunectl.worker.warm_runners`. It has one thread, no
model and no GPU: a fork of it is as good as a process that was started anew and has imported the same.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from prunectl.worker import preloading, runner
from prunectl.worker.assignment import Envelope
from prunectl.worker.lifeline import ORPHANED_EXIT, die_with_parent, name_process, thread_count
from prunectl.worker.warm_runners import MAX_MESSAGE_BYTES

PROCESS_NAME = "prunectl-warm"
IDLE_SECONDS = 900.0
"""How long a template that nobody asks keeps its memory."""
_DESCRIPTORS = 4


def main(
    arguments: Sequence[str],
    *,
    preload: Callable[[], None] = preloading.preload,
    pipeline: runner.Pipeline | None = None,
) -> int:
    """Fork a runner for each request until the socket closes or nobody asks for long; the exit status."""
    parent_pid = int(arguments[1])
    die_with_parent(parent_pid)
    name_process(PROCESS_NAME)
    with socket.socket(fileno=int(arguments[0])) as connection:
        preload()
        gc.collect()
        gc.freeze()  # a collection in a runner would write to, and so copy, pages that it shares with us
        fault = _fault()
        connection.send(json.dumps({"unfit": fault} if fault else {"ready": True}).encode())
        connection.settimeout(IDLE_SECONDS)
        while not fault:
            try:
                message, descriptors, _flags, _address = socket.recv_fds(connection, MAX_MESSAGE_BYTES, _DESCRIPTORS)
            except TimeoutError:
                return 0
            if not message:
                return 0
            fault = _threads_fault()
            answer = (
                {"unfit": fault} if fault else {"pid": _fork(connection, message, descriptors, parent_pid, pipeline)}
            )
            for descriptor in descriptors:
                os.close(descriptor)
            connection.send(json.dumps(answer).encode())
    return 0


def _fork(
    connection: socket.socket, message: bytes, descriptors: list[int], parent_pid: int, pipeline: runner.Pipeline | None
) -> int:
    """Pid of a runner that our parent has adopted: between us and it stands a process that ends at once."""
    reading, writing = os.pipe()

    def become_runner() -> int:
        connection.close()
        os.close(reading)
        os.setsid()  # before anyone knows of us: whoever does may signal our group
        os.write(writing, str(os.getpid()).encode())
        os.close(writing)
        return _run(json.loads(message), descriptors, parent_pid, pipeline)

    def stand_between() -> int:
        if os.fork() == 0:
            _end_with(become_runner)
        return 0

    sys.stdout.flush()
    sys.stderr.flush()
    between = os.fork()
    if between == 0:
        _end_with(stand_between)
    os.close(writing)
    answer = os.read(reading, 32)
    os.close(reading)
    os.waitpid(between, 0)  # from here on the runner has its new parent
    return int(answer)


def _run(request: dict[str, Any], descriptors: list[int], parent_pid: int, pipeline: runner.Pipeline | None) -> int:
    """In the runner: take its own descriptors, environment and directory, and do the job."""
    stdin, output, report, go = descriptors
    os.dup2(stdin, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(stdin)
    os.close(output)
    with os.fdopen(go, "rb") as pipe:
        if not pipe.read(1):  # our parent has given up on us, and started another
            return ORPHANED_EXIT
    while os.getppid() != parent_pid:  # the process between us ends about now
        if os.getppid() == 1:
            return ORPHANED_EXIT
        time.sleep(0.001)
    die_with_parent(parent_pid)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    tempfile.tempdir = None  # found anew, by the environment
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # as in any new process; torch's generator starts from a constant
    with open(0, "rb", closefd=False) as job:
        envelope = Envelope.from_json(job.read())
    return runner.work(replace(envelope, report_fd=report), pipeline)


def _end_with(function: Callable[[], int]) -> NoReturn:
    """The whole life of a forked process: it never returns into our stack, and runs nothing that we meant for our end."""
    status = 1
    try:
        status = function()
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001 - it ends the process, with its traceback in the log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _fault() -> str | None:
    """Why this process must not be forked, or None."""
    return _threads_fault() or _gpu_fault()


def _threads_fault() -> str | None:
    count = thread_count()
    return None if count == 1 else f"the template has {count} threads"


def _gpu_fault() -> str | None:
    """A CUDA library that an import has woken can't be used in a fork; only a fork can tell."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    asked = os.fork()
    if asked == 0:
        _end_with(lambda: int(torch.cuda._is_in_bad_fork()))
    _, status = os.waitpid(asked, 0)
    return None if os.waitstatus_to_exitcode(status) == 0 else "an import has woken CUDA"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
