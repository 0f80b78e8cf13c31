"""No process of ours outlives the one that started it. Linux only, as the workers are."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
ORPHANED_EXIT = 75


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends. Call it first of all.

    ``parent_pid`` closes the gap before the call: whose parent is gone already, ends here. Raises OSError where the
    kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_PDEATHSIG): {os.strerror(number)}")
    if os.getppid() != parent_pid:
        os._exit(ORPHANED_EXIT)


def signal_group(leader_pid: int, number: signal.Signals) -> None:
    """Signal a whole process group; nothing happens where it is gone."""
    try:
        os.killpg(leader_pid, number)
    except ProcessLookupError:
        pass
