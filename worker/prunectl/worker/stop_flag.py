"""How a worker's parent process tells its pool children to stop. Shared memory, so it crosses a fork and needs no lock."""

from __future__ import annotations

import mmap
import os

RUNNING, STOPPING, HURRYING = 0, 1, 2


class StopFlag:
    """Made in the parent before it forks. A child whose parent is gone counts as told to stop."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)  # anonymous and shared
        self._parent_pid = os.getpid()

    def raise_level(self) -> None:
        """First call: hand jobs back. Second: without giving the runners time."""
        self._memory[0] = min(HURRYING, self._memory[0] + 1)

    @property
    def level(self) -> int:
        told = self._memory[0]
        orphaned = self._parent_pid not in (os.getpid(), os.getppid())
        return max(told, STOPPING) if orphaned else told

    def __bool__(self) -> bool:
        return self.level > RUNNING
