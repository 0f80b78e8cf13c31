"""No process of ours outlives the one that started it, or stays behind as a zombie. Linux only, as the workers are."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
ORPHANED_EXIT = 75


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends. Call it first of all.

    ``parent_pid`` closes the gap before the call: whose parent is gone already, ends here. Raises OSError where the
    kernel refuses.
    """
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(ORPHANED_EXIT)


def adopt_orphans() -> None:
    """Make this process the parent of those below it whose own parent ends. Raises OSError where the kernel refuses."""
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """What ``ps`` and ``/proc/PID/comm`` call this process: at most 15 bytes. Raises OSError where the kernel refuses."""
    _prctl("PR_SET_NAME", _PR_SET_NAME, ctypes.c_char_p(name.encode()))


def thread_count() -> int:
    """How many threads this process has, those of native libraries included."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - a number is all that is wanted


def reap_group(leader_pid: int) -> None:
    """Wait for all of a killed group that are children of this process, or become so as their own parents end."""
    while True:
        try:
            os.waitpid(-leader_pid, 0)
        except ChildProcessError:
            return


def _prctl(name: str, option: int, value: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({name}): {os.strerror(number)}")


def signal_group(leader_pid: int, number: signal.Signals) -> None:
    """Signal a whole process group; nothing happens where it is gone."""
    try:
        os.killpg(leader_pid, number)
    except ProcessLookupError:
        pass
