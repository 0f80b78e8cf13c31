"""A sweep as a row, as a page, and as what it would be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prunectl.cli.output import Column, Format, Item, field, print_documents, print_facts, print_list
from prunectl.quantities import DASH, age, elapsed

STATES = ("queued", "running", "succeeded", "failed", "cancelled")


def _count(state: str) -> Column:
    def number(item: Item) -> int:
        found: int = item["counts"][state]
        return found

    return Column(state, state.upper(), lambda item: str(number(item)), number)


COLUMNS = [
    field("id"),
    field("name"),
    field("state"),
    field("jobs"),
    *(_count(state) for state in STATES),
    Column("progress", "PROGRESS", lambda item: f"{item['progress']:.0%}", lambda item: item["progress"]),
    Column("age", "AGE", lambda item: age(item["created_at"]), lambda item: elapsed(item["created_at"])),
]
WIDE = [
    field("shared"),
    field("gates_failed"),
    Column("grid", "GRID", lambda item: grid_text(item["grid"]), lambda item: item["grid"]),
    field("owner"),
]


def grid_text(grid: Mapping[str, Sequence[Any]]) -> str:
    """``heads=0.1,0.2 seed=0,1,2,… (50)``."""
    return " ".join(f"{name}={_values(values)}" for name, values in grid.items()) or DASH


def _values(values: Sequence[Any]) -> str:
    shown = [value if isinstance(value, str) else json.dumps(value) for value in values[:6]]
    return ",".join(shown) + (f",… ({len(values)})" if len(values) > len(shown) else "")


def counts_text(item: Item) -> str:
    """``7/10 done: 1 running, 2 queued, 6 succeeded, 1 failed``; states without a job are left out."""
    counts = item["counts"]
    done = sum(counts[state] for state in ("succeeded", "failed", "cancelled"))
    order = ("running", "queued", "succeeded", "failed", "cancelled")
    parts = [f"{counts[state]} {state}" for state in order if counts[state]]
    return f"{done}/{item['jobs']} done" + (f": {', '.join(parts)}" if parts else "")


def print_sweeps(items: Sequence[Item], format: Format) -> None:
    """One sweep as a page or as itself, several as a list."""
    print_documents(items, format, print_page, [*COLUMNS, *WIDE])


def print_sweep_list(items: Sequence[Item], format: Format, *, next_cursor: str | None = None) -> None:
    print_list(items, format, COLUMNS, wide=WIDE, next_cursor=next_cursor)


def print_page(item: Item) -> None:
    facts = [
        ("sweep", item["id"]),
        ("name", item.get("name")),
        ("base", base_text(item["base"])),
        ("grid", grid_text(item["grid"])),
        ("state", f"{item['state']} ({item['progress']:.0%})"),
        ("jobs", counts_text(item)),
        ("shared", f"{item['shared']} were there before the sweep" if item["shared"] else None),
        ("gates", f"{item['gates_failed']} not met" if item["gates_failed"] else None),
        ("created", f"{item['created_at']} ({age(item['created_at'])} ago)"),
        ("started", item.get("started_at")),
        ("finished", item.get("finished_at")),
    ]
    print_facts([(name, str(value)) for name, value in facts if value])


def base_text(base: Mapping[str, Any]) -> str:
    """``model=bert ffn=0.25``: what all of the sweep's jobs have in common."""
    flat = {name: value for name, value in base.items() if name not in ("recipe", "evaluation")}
    flat |= {**base.get("recipe", {}), **base.get("evaluation", {})}
    return " ".join(f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in flat.items())


def print_plan(plan: Item, format: Format) -> None:
    """``sweep --dry-run``."""
    columns = [field("jobs"), field("identical"), field("queues"), field("grid")]
    # Nothing has an id yet: what there is to count is the jobs.
    print_documents([{**plan, "id": plan["jobs"]}] if format is Format.ID else [plan], format, _plan_page, columns)


def _plan_page(plan: Item) -> None:
    rows = [
        ("base", base_text(plan["base"])),
        ("grid", grid_text(plan["grid"])),
        ("jobs", str(plan["jobs"])),
        ("identical", f"{plan['identical']} exist already and would be shared"),
        ("queues", ", ".join(f"{name}: {number}" for name, number in plan["queues"].items())),
        *(("note", note) for note in plan["notes"]),
    ]
    print_facts(rows)
