"""From exceptions and exit statuses to a `Failure` with a class that the retry policy knows."""

from __future__ import annotations

import errno
import signal
import sys
from pathlib import Path
from typing import Any

from prunectl.errors import DiskFull, FailureClass, OutOfGpuMemory, OutOfMemory, PrunectlError, Unavailable
from prunectl.jobs.model import Failure

_OOM_HINT = "try fewer --max-samples, a shorter --max-length, a smaller --bench-batch, or a machine with more memory"


def failure_of(error: BaseException) -> Failure:
    """The failure that an exception stands for; what nobody foresaw is the code ``internal_error``."""
    if isinstance(error, PrunectlError):
        return Failure(error.failure_class, error.code, error.message, error.hint)
    if _is_gpu_oom(error):
        return Failure(FailureClass.OOM_GPU, OutOfGpuMemory.code, _first_line(error), _OOM_HINT)
    if isinstance(error, MemoryError) or _is_host_oom(error):
        return Failure(FailureClass.OOM_HOST, OutOfMemory.code, "the job ran out of memory", _OOM_HINT)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure(FailureClass.DISK_FULL, DiskFull.code, _first_line(error), "free some space, then retry the job")
    if isinstance(error, (ConnectionError, TimeoutError)):
        return Failure(FailureClass.TRANSIENT_IO, Unavailable.code, _first_line(error))
    return Failure(
        FailureClass.USER_ERROR,
        "internal_error",
        f"{type(error).__name__}: {_first_line(error)}",
        "prunectl logs shows the traceback",
    )


def _is_gpu_oom(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # never imported here: a supervisor has no torch
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _is_host_oom(error: BaseException) -> bool:
    """What torch raises where the host's memory is over: a plain RuntimeError of its allocator."""
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:500] if text else type(error).__name__


def failure_from_wire(raw: dict[str, Any]) -> Failure:
    """What a runner reported; a class that this version doesn't know counts as the job's own error."""
    known = {item.value for item in FailureClass}
    name = str(raw.get("failure_class"))
    return Failure(
        FailureClass(name) if name in known else FailureClass.USER_ERROR,
        str(raw.get("code") or "internal_error")[:64],
        str(raw.get("message") or "the runner gave no reason")[:4000],
        None if raw.get("hint") is None else str(raw["hint"])[:1000],
    )


def failure_of_exit(status: int, *, oom_kills: int) -> Failure:
    """For a runner that ended without a word.

    ``status`` as `subprocess` gives it (negative: a signal); ``oom_kills``: how often the kernel killed for memory in
    this control group meanwhile.
    """
    killed = status in (-signal.SIGKILL, 128 + signal.SIGKILL)
    if killed and oom_kills > 0:
        return Failure(
            FailureClass.OOM_HOST,
            OutOfMemory.code,
            "the kernel killed the job: the machine is out of memory",
            _OOM_HINT,
        )
    if status < 0:
        try:
            how = f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            how = f"was killed by signal {-status}"
    else:
        how = f"ended with status {status} and no result"
    hint = "often a lack of memory: watch the machine's" if killed else "prunectl logs shows its last words"
    return Failure(FailureClass.KILLED, "runner_died", f"the job's process {how}", hint)


def oom_kill_count() -> int:
    """How often the kernel has killed for memory in this control group (v2 or v1); 0 where it doesn't say."""
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control")):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
