"""One page of jobs: filters, order and keyset as SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, and_, exists, or_, select, tuple_, union_all

from prunectl.db.tables import db_now, jobs, metrics, sweep_links
from prunectl.jobs.model import JobState
from prunectl.jobs.ports import JobQuery, MetricFilter
from prunectl.jobs.query import (
    NUMBER_COLUMNS,
    Position,
    Sort,
    check_filters,
    compare,
    glob_to_like,
)

SORT_VALUE = "sort_value"


def listing(query: JobQuery, sort: Sort, after: Position | None, rows: int) -> Select[Any]:
    """Whole rows and their `SORT_VALUE`, at most ``rows`` of them, from just after ``after``."""
    check_filters(query)
    sorted_by = metrics.alias("sorted_by")
    value: ColumnElement[Any] = sorted_by.c.after if sort.metric else jobs.c[sort.key]
    statement = select(jobs, value.label(SORT_VALUE)).where(*_filters(query))
    if sort.metric:
        this_metric = and_(
            sorted_by.c.job_id == jobs.c.id, sorted_by.c.attempt == jobs.c.attempt, sorted_by.c.name == sort.key
        )
        statement = statement.select_from(jobs.outerjoin(sorted_by, this_metric))
    if after is not None:
        statement = statement.where(_beyond(sort, value, after))
    by_value = value.desc() if sort.descending else value.asc()
    by_id = jobs.c.id.desc() if sort.descending else jobs.c.id.asc()
    # Empty values last in both directions, spelled so that a column that is never empty keeps its plain index order.
    order = [value.is_(None), by_value, by_id] if sort.can_be_empty else [by_value, by_id]
    return statement.order_by(*order).limit(rows)


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
    found: list[ColumnElement[bool]] = []
    if query.owner is not None:
        found.append(jobs.c.owner == query.owner)
    if query.states:
        found.append(jobs.c.state.in_(query.states))
    if query.model_glob is not None:
        found.append(_matches(query.model_glob))
    if query.sweep_id is not None:
        found.append(jobs.c.id.in_(ids_of_sweep(query.sweep_id)))
    found.extend(jobs.c.tags[key].as_string() == value for key, value in query.tags.items())
    if query.since_seconds is not None:
        found.append(jobs.c.created_at >= db_now() - query.since_seconds)
    if query.active_or_since_seconds is not None:
        found.append(
            or_(
                jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING)),
                jobs.c.created_at >= db_now() - query.active_or_since_seconds,
            )
        )
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
