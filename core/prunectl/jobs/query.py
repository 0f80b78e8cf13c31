"""What a list of jobs can be sorted and filtered by, and the cursor that continues it. Pure; both stores use it."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from prunectl.conditions import COMPARE, METRICS, is_metric
from prunectl.errors import InvalidInput, nearest
from prunectl.jobs.records import JobQuery
from prunectl.recipe import digest_of

MAX_PAGE = 500
MAX_FILTERS = 16

# The names of a job's columns that a list may be sorted by, and whether the column can be empty.
SORT_COLUMNS: dict[str, bool] = {
    "id": False,
    "created_at": False,
    "started_at": True,
    "finished_at": True,
    "state": False,
    "stage": True,
    "progress": False,
    "priority": False,
    "attempt": False,
    "failures": False,
    "model_name": False,
    "name": True,
    "owner": False,
    "queue": False,
    "worker": True,
}
SORT_ALIASES = {"model": "model_name", "age": "created_at"}
NUMBER_COLUMNS = ("progress", "priority", "attempt", "failures", "created_at", "started_at", "finished_at")


@dataclass(frozen=True, slots=True)
class Sort:
    """``key`` is a column of `SORT_COLUMNS` or a metric; empty values come last in both directions; ties go by id."""

    key: str
    descending: bool
    metric: bool

    @property
    def can_be_empty(self) -> bool:
        return self.metric or SORT_COLUMNS[self.key]


def parse_sort(text: str) -> Sort:
    """``-speedup`` -> speedup, descending. Raises InvalidInput for what is neither a column nor a metric."""
    name = text.removeprefix("-")
    name = SORT_ALIASES.get(name, name)
    if name in SORT_COLUMNS:
        return Sort(name, text.startswith("-"), metric=False)
    if is_metric(name):
        return Sort(name, text.startswith("-"), metric=True)
    raise InvalidInput(
        f"can't sort by {name!r}: a column ({', '.join(SORT_COLUMNS)}) or a metric ({', '.join(METRICS)})",
        hint=_did_you_mean(name, (*SORT_COLUMNS, *SORT_ALIASES, *METRICS)),
        field="sort",
        value=text,
    )


def check_filters(query: JobQuery) -> None:
    """Raises InvalidInput for an unknown name or operator in ``where``, and for too many of them."""
    if len(query.where) > MAX_FILTERS:
        raise InvalidInput(f"at most {MAX_FILTERS} conditions", field="where", value=len(query.where))
    for condition in query.where:
        if condition.name not in NUMBER_COLUMNS and not is_metric(condition.name):
            raise InvalidInput(
                f"unknown name {condition.name!r} in a condition: "
                f"a metric ({', '.join(METRICS)}) or {', '.join(NUMBER_COLUMNS)}",
                hint=_did_you_mean(condition.name, (*METRICS, *NUMBER_COLUMNS)),
                field="where",
                value=condition.name,
            )
        if _operator(condition.op) not in COMPARE:
            raise InvalidInput(
                f"unknown operator {condition.op!r}: one of {' '.join(COMPARE)}", field="where", value=condition.op
            )


def _operator(op: str) -> str:
    return "=" if op == "==" else op


def compare(left: Any, op: str, right: float) -> Any:
    """``left op right`` for numbers and for SQL expressions alike."""
    return COMPARE[_operator(op)](left, right)


def page_size(query: JobQuery) -> int:
    """Rows of one page: at least 1, at most `MAX_PAGE` (a reader who wants more follows the cursor)."""
    return max(1, min(query.limit, MAX_PAGE))


@dataclass(frozen=True, slots=True)
class Position:
    """The last row of a page: its sort value (None where it was empty) and its id."""

    value: float | int | str | None
    job_id: str


def encode_cursor(query: JobQuery, position: Position) -> str:
    """An opaque text that continues exactly this query."""
    raw = json.dumps([_fingerprint(query), position.value, position.job_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def decode_cursor(query: JobQuery) -> Position | None:
    """Where to go on. Raises InvalidInput for a text that is no cursor, or one of another sort or filter."""
    if query.cursor is None:
        return None
    try:
        padded = query.cursor + "=" * (-len(query.cursor) % 4)
        fingerprint, value, job_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError) as error:
        raise _bad_cursor(query, "is not a cursor of this service") from error
    if not isinstance(job_id, str) or not job_id.isalnum() or not _is_value_of(parse_sort(query.sort), value):
        raise _bad_cursor(query, "is not a cursor of this service")
    if fingerprint != _fingerprint(query):
        raise _bad_cursor(query, "belongs to a list with another sort or other filters")
    return Position(value, job_id)


def _is_value_of(sort: Sort, value: Any) -> bool:
    """Whether a database can compare ``value`` with what the list is sorted by."""
    if value is None:
        return sort.can_be_empty
    if sort.metric or sort.key in NUMBER_COLUMNS:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, str) and "\0" not in value


def _bad_cursor(query: JobQuery, what: str) -> InvalidInput:
    return InvalidInput(f"the cursor {what}", hint="start again without a cursor", field="cursor", value=query.cursor)


def _fingerprint(query: JobQuery) -> str:
    plain = {name: value for name, value in asdict(query).items() if name not in ("cursor", "limit")}
    return digest_of(plain)[7:19]


_LIKE_SPECIAL = re.compile(r"([%_\\])")


def glob_to_like(glob: str) -> str:
    r"""A LIKE pattern with ``\`` as its escape. ``*`` is any text, ``?`` one character, everything else itself."""
    return _LIKE_SPECIAL.sub(r"\\\1", glob).replace("*", "%").replace("?", "_")


def glob_to_regex(glob: str) -> re.Pattern[str]:
    """The same as `glob_to_like`, for Python."""
    return re.compile("".join({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in glob), re.DOTALL)


def _did_you_mean(name: str, choices: tuple[str, ...]) -> str | None:
    close = nearest(name, choices)
    return f"did you mean {close}?" if close else None
