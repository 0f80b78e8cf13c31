"""What a worker's pool processes are doing, for their parent to see."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SLOT = struct.Struct("=qd")  # process id while at work, else 0; monotonic time of the last ring


class SlotBoard:
    """Made in the parent before it forks: shared memory, one entry a slot. Only a slot's own process writes its entry."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._memory = mmap.mmap(-1, slots * _SLOT.size)  # anonymous and shared
        self._started_at = time.monotonic()

    @contextmanager
    def woken(self, slot: int) -> Iterator[None]:
        """Around what a ring makes a slot do. ``slot`` counts from 0."""
        where = slot % self._slots * _SLOT.size
        _SLOT.pack_into(self._memory, where, os.getpid(), time.monotonic())
        try:
            yield
        finally:
            _SLOT.pack_into(self._memory, where, 0, time.monotonic())

    @property
    def busy(self) -> int:
        """How many slots are at work; one whose process was killed is not."""
        return sum(1 for pid, _ in self._entries() if pid and _exists(pid))

    @property
    def woken_at(self) -> float:
        """When a slot last began or ended its work, on the monotonic clock; the board's own start before the first."""
        return max(self._started_at, *(at for _, at in self._entries()))

    def _entries(self) -> list[tuple[int, float]]:
        return [_SLOT.unpack_from(self._memory, slot * _SLOT.size) for slot in range(self._slots)]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
