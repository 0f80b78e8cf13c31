from __future__ import annotations

import pytest

from prunectl.jobs.ringing import MAX_RINGS, ring_count


@pytest.mark.parametrize(
    ("claimable", "idle", "busy", "rings"),
    [
        (0, 4, 0, 0),
        (1, 4, 0, 1),
        (10, 4, 0, 4),
        (1, 1, 3, 4),
        (5, 0, 2, 2),
        (3, 0, 0, 1),
        (10_000, 500, 500, MAX_RINGS),
    ],
)
def test_one_for_each_that_can_start_and_one_for_each_that_may_hoard(
    claimable: int, idle: int, busy: int, rings: int
) -> None:
    assert ring_count(claimable, idle, busy) == rings
