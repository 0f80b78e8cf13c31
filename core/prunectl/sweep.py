"""A sweep: a named set of jobs submitted together, as a grid over the fields of a job. Wire types and pure functions.

A sweep has no state of its own: it is derived from its jobs' (`state_of`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, Field

from prunectl.errors import InvalidInput, nearest
from prunectl.schemas import (
    SCHEMA_VERSION,
    SPEC_FIELDS,
    TERMINAL_STATES,
    Environment,
    JobCreate,
    State,
    Wire,
)
from prunectl.validation import parse_job

NOT_SWEPT = ("name", "tags", "gate")
"""Fields that are the sweep's own, or the same for all of its jobs."""
LISTS = ("layers", "bench_batch")
"""Fields whose one value may be a list: there ``,`` belongs to the value, and ``;`` stands between values."""
SOURCES = ("data", "calibration", "vocab", "recover_data")
"""Fields whose value may be a file's name, which may hold a comma."""
FIELDS = tuple(name for names in SPEC_FIELDS.values() for name in names if name not in NOT_SWEPT)
MAX_VALUES = 10_000

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_RANGE = re.compile(rf"^\s*({_NUMBER}):({_NUMBER}):({_NUMBER})\s*$", re.ASCII)
_PARTS = {field: part for part in ("recipe", "evaluation") for field in SPEC_FIELDS[part]}
_ALIASES = {"timeout": "timeout_seconds"}


class SweepCreate(Wire):
    """The body of ``POST /v1/sweeps``: ``base`` with each combination of ``grid``'s values, the last field fastest.

    ``base`` is the body of ``POST /v1/jobs`` without what the grid gives. ``grid`` names fields as a recipe file does
    (``heads``, ``model``, ``seed``) and lists the values of each.
    """

    name: Annotated[str, Field(max_length=200)] | None = None
    base: dict[str, Any] = {}
    grid: dict[str, Annotated[list[Any], Field(min_length=1, max_length=MAX_VALUES)]] = {}
    force: bool = False
    """Queue new jobs even where identical ones are queued, running or succeeded."""
    environment: Environment | None = None


class SweepCounts(BaseModel):
    """How many of the sweep's jobs are in each state."""

    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def total(self) -> int:
        return self.queued + self.running + self.succeeded + self.failed + self.cancelled

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed + self.cancelled


class SweepView(BaseModel):
    """A sweep as JSON. ``progress`` is a share of 1; ``shared`` counts jobs that were there before the sweep."""

    schema_version: int = SCHEMA_VERSION
    id: str
    state: State
    name: str | None = None
    owner: str
    jobs: int
    shared: int
    counts: SweepCounts
    gates_failed: int
    progress: float
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    base: dict[str, Any]
    grid: dict[str, list[Any]]
    search_id: str | None = None
    """The greedy search whose candidates these are."""


class SweepChange(SweepView):
    """A sweep after a cancellation or a retry; ``changed`` counts the jobs that it concerned. None is no error."""

    changed: int


class SweepPage(BaseModel):
    schema_version: int = SCHEMA_VERSION
    items: list[SweepView]
    next_cursor: str | None = None


class SweepPlan(BaseModel):
    """What ``POST /v1/sweeps`` would queue; ``identical`` jobs exist already and would be shared."""

    schema_version: int = SCHEMA_VERSION
    jobs: int
    identical: int
    queues: dict[str, int]
    base: dict[str, Any]
    grid: dict[str, list[Any]]
    notes: list[str] = []


def state_of(counts: SweepCounts) -> State:
    """The state of a sweep whose jobs are in these states.

    queued until the first job starts, running until the last has ended; then failed if any failed, else cancelled if
    any was, else succeeded (as a sweep is whose jobs were all removed).
    """
    if counts.queued + counts.running:
        return "running" if counts.running + counts.ended else "queued"
    if counts.failed:
        return "failed"
    return "cancelled" if counts.cancelled else "succeeded"


def size_of(grid: Mapping[str, Sequence[Any]]) -> int:
    """How many jobs the grid makes."""
    return math.prod(len(values) for values in grid.values())


def points(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Each combination of the grid's values, by field; the last field changes fastest. An empty grid has one."""
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def bodies(create: SweepCreate) -> list[JobCreate]:
    """The sweep's jobs in the grid's order; raises InvalidInput naming the field of the first that is not valid."""
    for field in create.grid:
        check_field(field)
    return [parse_job(_at(create, point)) for point in points(create.grid)]


def _at(create: SweepCreate, point: Mapping[str, Any]) -> dict[str, Any]:
    body = {**create.base, "force": create.force, "environment": create.environment}
    for part in ("recipe", "evaluation"):
        given = create.base.get(part, {})
        changed = {field: value for field, value in point.items() if _PARTS.get(field) == part}
        body[part] = {**given, **changed} if isinstance(given, Mapping) else given
    body |= {field: value for field, value in point.items() if field not in _PARTS}
    return body


def check_field(field: str) -> None:
    """Raises InvalidInput, with the nearest field, where ``field`` is none that a grid can vary."""
    if field in FIELDS:
        return
    if field in NOT_SWEPT:
        raise InvalidInput(f"{field}: a sweep has one, it can't vary from job to job", field=field)
    near = nearest(field, FIELDS)
    raise InvalidInput(
        f"{field!r} is not a field that a sweep can vary: {', '.join(FIELDS)}",
        field=field,
        hint=f"did you mean {near}?" if near else None,
    )


def split(flat: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """A flat recipe file or flags whose values may be lists, as (the fields with one value, those with several).

    ``0.1,0.2`` is two values, and so is ``0.1;0.2``; ``0.1:0.5:0.1`` is five, its end included. For `LISTS` and
    `SOURCES`, and for heads of several kinds (``encoder=0.3,cross=0.5``), only ``;`` stands between values.
    """
    base: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    for raw, value in flat.items():
        name = raw.replace("-", "_")
        field = _ALIASES.get(name, name)
        values = values_of(field, value) if field in FIELDS else [value]
        if len(values) == 1:
            base[name] = values[0]
        else:
            grid[field] = values
    return base, grid


def values_of(field: str, value: Any) -> list[Any]:
    """The values that ``value`` lists for ``field``; raises InvalidInput for an empty one or a range without end."""
    if isinstance(value, list):
        several = field not in LISTS or any(isinstance(item, (list, str)) for item in value)
        if not several or not value:
            return [value]
        return [found for item in value for found in (values_of(field, item) if isinstance(item, str) else [item])]
    if not isinstance(value, str):
        return [deepcopy(value)]
    if ";" in value:
        return [found for part in value.split(";") for found in values_of(field, _filled(field, part, value))]
    if match := _RANGE.match(value):
        return _range(field, value, *(Decimal(number) for number in match.groups()))
    if "," not in value or field in LISTS or field in SOURCES or "=" in value:
        return [value.strip()]
    return [found for part in value.split(",") for found in values_of(field, _filled(field, part, value))]


def _filled(field: str, part: str, whole: str) -> str:
    if not part.strip():
        raise InvalidInput(f"{field}: {whole!r} has an empty value", field=field, value=whole)
    return part.strip()


def _range(field: str, text: str, start: Decimal, stop: Decimal, step: Decimal) -> list[str]:
    if not step or (stop - start) / step < 0:
        raise InvalidInput(
            f"{field}: {text!r} never ends: a range is start:stop:step, its end included",
            field=field,
            value=text,
            hint="write 0.1:0.5:0.1 for 0.1, 0.2, 0.3, 0.4 and 0.5",
        )
    number = int((stop - start) / step) + 1
    if number > MAX_VALUES:
        raise InvalidInput(f"{field}: {text!r} has {number} values, of at most {MAX_VALUES}", field=field, value=text)
    # Decimals: 0.1 + 2 x 0.1 is 0.3 here, and as a job's field the same as when it is typed.
    return [f"{(start + index * step).normalize():f}" for index in range(number)]


def ended(view: Mapping[str, Any]) -> bool:
    return view["state"] in TERMINAL_STATES
