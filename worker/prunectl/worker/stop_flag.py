"""How a worker's parent process tells its pool processes to stop."""

from __future__ import annotations

import mmap

RUNNING, STOPPING, HURRYING = 0, 1, 2


class StopFlag:
    """Made in the parent before it forks: shared memory, so it crosses the fork, and a signal handler may set it.

    A pool process whose parent is killed needs no telling: Celery has the kernel kill it, and its lease expires.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)  # anonymous and shared

    def raise_level(self) -> None:
        """First call: hand jobs back. Second: without giving the runners time."""
        self._memory[0] = min(HURRYING, self._memory[0] + 1)

    @property
    def level(self) -> int:
        return self._memory[0]

    def __bool__(self) -> bool:
        return self.level > RUNNING
