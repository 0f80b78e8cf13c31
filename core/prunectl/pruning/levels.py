"""Levels: the solver for costs that were measured at some numbers of units, as latencies are. No torch.

Kwon et al. 2022 (section 4.1) fit two straight lines to such a table; here each measured level is met as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from prunectl.pruning.solver import Values, require

BUCKETS = 4000
"""Parts that a budget is divided into; each cost is rounded up to whole ones."""


@dataclass(frozen=True, slots=True)
class LevelCosts:
    """What each axis costs at some numbers of units, as measured: seconds."""

    fixed: float
    levels: Sequence[Sequence[int]]
    """Numbers of units, ascending, ``[axes][levels]``."""
    seconds: Sequence[Sequence[float]]
    """``[axes][levels]``"""

    def total(self, kept: Sequence[int]) -> float:
        """``kept`` must be levels."""
        found = (
            seconds[list(levels).index(count)]
            for levels, seconds, count in zip(self.levels, self.seconds, kept, strict=True)
        )
        return self.fixed + sum(found)

    def solve(self, values: Values, least: Sequence[int], budget: float) -> list[int]:
        """Dynamic programming over the axes, costs rounded up to `BUCKETS` parts of the room: the best but for that.

        An axis that is faster without its units gives them up where they are worth least (a whole block goes).
        """
        allowed = [
            [level for level, number in enumerate(levels) if number >= low]
            for levels, low in zip(self.levels, least, strict=True)
        ]
        cheapest = [min(self.seconds[axis][level] for level in levels) for axis, levels in enumerate(allowed)]
        floor = self.fixed + sum(cheapest)
        require(floor, budget)
        part = (budget - floor) / BUCKETS
        best: NDArray[np.float64] = np.zeros(BUCKETS + 1)
        taken: list[NDArray[np.int64]] = []
        for axis, levels in enumerate(allowed):
            sums = [0.0, *accumulate(sorted(values[axis], reverse=True))]
            found = np.full(BUCKETS + 1, -math.inf)
            choice = np.zeros(BUCKETS + 1, dtype=np.int64)
            for level in levels:
                more = self.seconds[axis][level] - cheapest[axis]
                parts = math.ceil(more / part) if part > 0 else (0 if more <= 0 else BUCKETS + 1)
                if parts > BUCKETS:
                    continue
                value = np.full(BUCKETS + 1, -math.inf)
                value[parts:] = best[: BUCKETS + 1 - parts] + sums[self.levels[axis][level]]
                better = value > found
                found[better], choice[better] = value[better], level
            best = found
            taken.append(choice)
        kept, left = [0] * len(allowed), BUCKETS
        for axis in reversed(range(len(allowed))):
            level = int(taken[axis][left])
            kept[axis] = self.levels[axis][level]
            more = self.seconds[axis][level] - cheapest[axis]
            left -= math.ceil(more / part) if part > 0 else 0
        return kept
