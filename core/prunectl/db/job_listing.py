"""One page of jobs: filters, order and keyset as SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    Subquery,
    and_,
    exists,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from prunectl.db.tables import db_now, jobs, metrics, sweep_links
from prunectl.db.transitions import in_state
from prunectl.jobs.model import JobState
from prunectl.jobs.query import (
    NUMBER_COLUMNS,
    Position,
    Sort,
    check_filters,
    compare,
    glob_to_like,
)
from prunectl.jobs.records import JobQuery, MetricFilter

SORT_VALUE = "sort_value"


def listing(query: JobQuery, sort: Sort, after: Position | None, rows: int) -> Select[Any]:
    """Whole rows and their `SORT_VALUE`, at most ``rows`` of them, from just after ``after``."""
    check_filters(query)
    sorted_by = metrics.alias("sorted_by")
    value: ColumnElement[Any] = sorted_by.c.after if sort.metric else jobs.c[sort.key]
    if _best_by_state(query, sort):
        picked = _by_state(query, sort, after, rows)
        statement = select(jobs, value.label(SORT_VALUE)).select_from(jobs.join(picked, picked.c.id == jobs.c.id))
    else:
        statement = select(jobs, value.label(SORT_VALUE)).where(*_filters(query))
        if query.states:
            statement = statement.where(jobs.c.state.in_(query.states))
        if query.active_or_since_seconds is not None:
            statement = statement.where(or_(*(_shown(state, query) for state in JobState)))
        if after is not None:
            statement = statement.where(_beyond(sort, value, after))
    if sort.metric:
        this_metric = and_(
            sorted_by.c.job_id == jobs.c.id, sorted_by.c.attempt == jobs.c.attempt, sorted_by.c.name == sort.key
        )
        statement = statement.select_from(jobs.outerjoin(sorted_by, this_metric))
    return statement.order_by(*_order(sort, value)).limit(rows)


def _best_by_state(query: JobQuery, sort: Sort) -> bool:
    some = query.owner is not None or query.states or query.active_or_since_seconds is not None
    return bool(sort.key == "created_at" and some and query.sweep_id is None)


def _by_state(query: JobQuery, sort: Sort, after: Position | None, rows: int) -> Subquery:
    """Ids of the page's jobs, and a few more: the first ``rows`` of each state.

    An index has one state of one owner in order of age, but not several together: asked for all at once, the database
    sorts every job of the owner, or walks past everybody else's.
    """
    beyond = [_beyond(sort, jobs.c.created_at, after)] if after is not None else []
    # As a number, not a parameter: a prepared statement that doesn't know its limit is planned for every row.
    first: ColumnElement[int] = literal_column(str(int(rows)))
    parts = [
        select(jobs.c.id)
        .where(*_filters(query), *beyond, _shown(state, query))
        .order_by(*_order(sort, jobs.c.created_at))
        .limit(first)
        .subquery()
        for state in query.states or JobState
    ]
    return union_all(*(select(part.c.id) for part in parts)).subquery("picked")


def _shown(state: JobState, query: JobQuery) -> ColumnElement[bool]:
    """In ``state``, and new enough where ended jobs are to be."""
    if query.active_or_since_seconds is None or not state.terminal:
        return in_state(state)
    return and_(in_state(state), jobs.c.created_at >= db_now() - query.active_or_since_seconds)


def _order(sort: Sort, value: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    by_value = value.desc() if sort.descending else value.asc()
    by_id = jobs.c.id.desc() if sort.descending else jobs.c.id.asc()
    # Empty values last in both directions, spelled so that a column that is never empty keeps its plain index order.
    return [value.is_(None), by_value, by_id] if sort.can_be_empty else [by_value, by_id]


def _beyond(sort: Sort, value: ColumnElement[Any], after: Position) -> ColumnElement[bool]:
    beyond_id = jobs.c.id < after.job_id if sort.descending else jobs.c.id > after.job_id
    if after.value is None:
        return and_(value.is_(None), beyond_id)
    if not sort.can_be_empty:
        pair, last = tuple_(value, jobs.c.id), tuple_(after.value, after.job_id)
        return pair < last if sort.descending else pair > last
    beyond_value = value < after.value if sort.descending else value > after.value
    return or_(beyond_value, and_(value == after.value, beyond_id), value.is_(None))


def _filters(query: JobQuery) -> list[ColumnElement[bool]]:
    """All but the states'."""
    found: list[ColumnElement[bool]] = []
    if query.owner is not None:
        found.append(jobs.c.owner == query.owner)
    if query.model_glob is not None:
        found.append(_matches(query.model_glob))
    if query.sweep_id is not None:
        found.append(jobs.c.id.in_(ids_of_sweep(query.sweep_id)))
    found.extend(jobs.c.tags[key].as_string() == value for key, value in query.tags.items())
    if query.since_seconds is not None:
        found.append(jobs.c.created_at >= db_now() - query.since_seconds)
    found.extend(_holds(condition) for condition in query.where)
    return found


def ids_of_sweep(sweep_id: str) -> CompoundSelect[Any]:
    """Ids of the jobs that the sweep created and of those that it shares."""
    return union_all(
        select(jobs.c.id).where(jobs.c.sweep_id == sweep_id),
        select(sweep_links.c.job_id).where(sweep_links.c.sweep_id == sweep_id),
    )


def _matches(glob: str) -> ColumnElement[bool]:
    if "*" not in glob and "?" not in glob:
        return jobs.c.model_name == glob
    return jobs.c.model_name.like(glob_to_like(glob), escape="\\")


def _holds(condition: MetricFilter) -> ColumnElement[bool]:
    if condition.name in NUMBER_COLUMNS:
        result: ColumnElement[bool] = compare(jobs.c[condition.name], condition.op, condition.value)
        return result
    return exists().where(
        metrics.c.job_id == jobs.c.id,
        metrics.c.attempt == jobs.c.attempt,
        metrics.c.name == condition.name,
        compare(metrics.c.after, condition.op, condition.value),
    )
