"""How often to ring."""

from __future__ import annotations

MAX_RINGS = 64


def ring_count(claimable: int, idle_slots: int, busy_slots: int) -> int:
    """Rings for ``claimable`` jobs: one for each slot that can start one, and one for each busy slot besides.

    A busy worker may hold one message a slot that it won't look at before its job ends; the extra rings reach the idle.
    """
    if claimable < 1:
        return 0
    return min(MAX_RINGS, max(1, min(claimable, idle_slots) + busy_slots))
