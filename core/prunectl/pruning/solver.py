"""Solver: which heads and neurons stay so that their scores' sum is largest and their cost keeps to a budget.

Pure functions of scores and costs. After the mask search of Kwon et al. 2022, "A Fast Post-Training Pruning Framework
for Transformers" (section 4.1, algorithm 1), but that no answer ever exceeds its budget, and keeping no head at all may
be the best answer too. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from prunectl.errors import InvalidInput

Values = Sequence[Sequence[float]]
"""Score of each unit, ``[axes][units]``. An axis is one block's heads (or groups of heads that go together) or its
neurons (or sorted groups of `multiple_of`).
"""


class Costs(Protocol):
    """What keeping units costs, in multiply-adds or seconds."""

    def total(self, kept: Sequence[int]) -> float:
        """With ``kept`` units on each axis."""
        ...

    def solve(self, values: Values, least: Sequence[int], budget: float) -> list[int]:
        """How many units each axis keeps, the best of each: the largest sum of values that costs ``budget`` at most.

        At least ``least`` stay on each axis. Raises InvalidInput where even those cost more.
        """
        ...


@dataclass(frozen=True, slots=True)
class UnitCosts:
    """Each unit of an axis costs the same, as multiply-adds do. Costs are whole numbers."""

    fixed: int
    """Of the model without any unit."""
    units: Sequence[int]
    """Of one unit, ``[axes]``."""

    def total(self, kept: Sequence[int]) -> int:
        return self.fixed + sum(cost * count for cost, count in zip(self.units, kept, strict=True))

    def solve(self, values: Values, least: Sequence[int], budget: float) -> list[int]:
        """Exact where axes have two costs at most, as heads and neurons of equal layers have; where there are more, units
        are taken by value per cost.
        """
        require(self.total(least), budget)
        free = [
            (value, cost, axis)
            for axis, cost in enumerate(self.units)
            for value in sorted(values[axis], reverse=True)[least[axis] :]
        ]
        room = math.floor(budget) - self.total(least)
        costs = sorted({cost for _, cost, _ in free}, reverse=True)
        if len(costs) > 2:
            chosen = _greedy(free, room)
        else:
            dear = [item for item in free if item[1] == costs[0]]
            chosen = _scan(dear, [item for item in free if item[1] != costs[0]], room)
        kept = list(least)
        for _, _, axis in chosen:
            kept[axis] += 1
        return kept


_Item = tuple[float, int, int]
"""(value, cost, axis)"""


def _scan(dear: list[_Item], cheap: list[_Item], room: int) -> list[_Item]:
    """All numbers of dear units are tried, with as many cheap ones as then fit; the best of each kind come first."""
    dear, cheap = (sorted(items, key=lambda item: (-item[0], item[2])) for items in (dear, cheap))
    dear_sums, cheap_sums = (list(accumulate((item[0] for item in items), initial=0.0)) for items in (dear, cheap))
    best, answer = -math.inf, (0, 0)
    for number in range(len(dear) + 1):
        rest = room - number * (dear[0][1] if dear else 0)
        if rest < 0:
            break
        others = min(len(cheap), rest // cheap[0][1] if cheap and cheap[0][1] else len(cheap))
        value = dear_sums[number] + cheap_sums[others]
        if value > best:
            best, answer = value, (number, others)
    return dear[: answer[0]] + cheap[: answer[1]]


def _greedy(items: list[_Item], room: int) -> list[_Item]:
    """Each unit that still fits, by value per cost; an axis's better units before its worse ones."""
    chosen = []
    for item in sorted(items, key=lambda item: (-item[0] / item[1] if item[1] else -math.inf, -item[0])):
        if item[1] <= room:
            chosen.append(item)
            room -= item[1]
    return chosen


def require(least: float, budget: float) -> None:
    """Raises InvalidInput where ``least``, which can't be removed, costs more than ``budget``."""
    if least > budget:
        raise InvalidInput(
            f"the budget is {budget:.4g}, and what can't be removed costs {least:.4g} already",
            hint="raise the budget, or lower min_heads and min_ffn",
        )
