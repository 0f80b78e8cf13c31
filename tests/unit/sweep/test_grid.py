"""From flags to a grid, from a grid to jobs, from jobs' states to the sweep's."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from prunectl.errors import InvalidInput
from prunectl.sweep import SweepCounts, SweepCreate, bodies, points, size_of, split, state_of, values_of


@pytest.mark.parametrize(
    ("field", "text", "values"),
    [
        ("heads", "0.1:0.5:0.1", ["0.1", "0.2", "0.3", "0.4", "0.5"]),
        ("heads", "0:0.5:0.2", ["0", "0.2", "0.4"]),
        ("ffn", "0.5:0.1:-0.2", ["0.5", "0.3", "0.1"]),
        ("seed", "0:3:1", ["0", "1", "2", "3"]),
        ("ffn", "0,0.25", ["0", "0.25"]),
        ("ffn", "0, 0.2:0.4:0.1", ["0", "0.2", "0.3", "0.4"]),
        ("model", "a,b", ["a", "b"]),
        ("heads", "encoder=0.3,cross=0.5", ["encoder=0.3,cross=0.5"]),
        ("heads", "encoder=0.3,cross=0.5;0.4", ["encoder=0.3,cross=0.5", "0.4"]),
        ("layers", "0,3", ["0,3"]),
        ("layers", "1;2;0,3", ["1", "2", "0,3"]),
        ("layers", "1:4:1", ["1", "2", "3", "4"]),
        ("bench_batch", "1,16", ["1,16"]),
        ("data", "a,b.txt", ["a,b.txt"]),
        ("weight_pattern", "2:4,4:8", ["2:4", "4:8"]),
        ("heads", [0.1, "0.2:0.3:0.1"], [0.1, "0.2", "0.3"]),
        ("layers", [0, 3], [[0, 3]]),
        ("layers", ["1", "0,3"], ["1", "0,3"]),
        ("layers", [[0, 3], 2], [[0, 3], 2]),
        ("even", True, [True]),
    ],
)
def test_values(field: str, text: Any, values: list[Any]) -> None:
    assert values_of(field, text) == values


@pytest.mark.parametrize("text", ["0.1:0.5:0", "0.5:0.1:0.1", "0.1,,0.2", "0.1;", "0:1:0.00001"])
def test_lists_that_have_no_end_or_a_hole_name_their_field(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        values_of("heads", text)
    assert caught.value.field == "heads"


def test_fields_with_several_values_make_the_grid() -> None:
    base, grid = split({"model": "m", "heads": "0.1,0.2", "timeout": "1h,2h", "tags": {"a": "b,c"}, "metric": "f1"})
    assert base == {"model": "m", "tags": {"a": "b,c"}, "metric": "f1"}
    assert grid == {"heads": ["0.1", "0.2"], "timeout_seconds": ["1h", "2h"]}


def test_the_last_field_changes_fastest() -> None:
    grid = {"model": ["a", "b"], "heads": [0.1, 0.2]}
    assert size_of(grid) == 4
    assert [tuple(point.values()) for point in points(grid)] == [("a", 0.1), ("a", 0.2), ("b", 0.1), ("b", 0.2)]
    assert list(points({})) == [{}]


def test_each_point_is_a_whole_job() -> None:
    create = SweepCreate(
        base={"recipe": {"even": True}, "evaluation": {"max_samples": 8}, "priority": 3, "tags": {"t": "1"}},
        grid={"model": ["a", "b"], "heads": [0.1, 0.2], "max_length": [32], "seed": [7]},
    )
    found = bodies(create)
    assert [(job.model, job.recipe.heads) for job in found] == [("a", 0.1), ("a", 0.2), ("b", 0.1), ("b", 0.2)]
    for job in found:
        assert (job.recipe.even, job.recipe.seed, job.priority, job.tags) == (True, 7, 3, {"t": "1"})
        assert (job.evaluation.max_samples, job.evaluation.max_length) == (8, 32)


@pytest.mark.parametrize(
    ("grid", "field"),
    [
        ({"heads": [0.1, 1.5]}, "heads"),
        ({"haeds": [0.1]}, "haeds"),
        ({"name": ["a", "b"]}, "name"),
        ({"heads": [0.1], "priority": [1, "high"]}, "priority"),
    ],
)
def test_what_makes_no_job_names_its_field(grid: dict[str, list[Any]], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        bodies(SweepCreate(base={"model": "m"}, grid=grid))
    assert caught.value.field == field


def _state(queued: int, running: int, succeeded: int, failed: int, cancelled: int) -> str:
    """What `state_of` says, in other words: by which states there are."""
    if running or (queued and (succeeded or failed or cancelled)):
        return "running"
    if queued:
        return "queued"
    if failed:
        return "failed"
    return "cancelled" if cancelled else "succeeded"


@pytest.mark.parametrize("numbers", list(product((0, 2), repeat=5)))
def test_the_state_of_a_sweep_is_derived(numbers: tuple[int, ...]) -> None:
    names = ("queued", "running", "succeeded", "failed", "cancelled")
    assert state_of(SweepCounts(**dict(zip(names, numbers, strict=True)))) == _state(*numbers)
