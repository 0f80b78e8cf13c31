"""Which jobs are a search's candidates, as conditions on rows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, exists, or_, select

from prunectl.db.tables import jobs, sweep_links, sweeps
from prunectl.jobs.model import JobState

ENDED_BADLY = (JobState.FAILED, JobState.CANCELLED)
_ACTIVE = (JobState.QUEUED, JobState.RUNNING)
_LIVE = (*_ACTIVE, JobState.SUCCEEDED)


def queued_by(search_ids: Sequence[str]) -> ColumnElement[bool]:
    """What these searches have queued themselves; what they share was somebody else's before."""
    return jobs.c.sweep_id.in_(select(sweeps.c.id).where(sweeps.c.search_id.in_(search_ids)))


def tried_by(search_id: str) -> ColumnElement[bool]:
    """All candidates of a search, shared ones too."""
    shared = (
        select(sweep_links.c.job_id)
        .join(sweeps, sweeps.c.id == sweep_links.c.sweep_id)
        .where(sweeps.c.search_id == search_id)
    )
    return or_(queued_by([search_id]), jobs.c.id.in_(shared))


def without_twin(search_id: str) -> ColumnElement[bool]:
    """Candidates of a search in whose place no identical job is queued, running or done, or newer."""
    twin = jobs.alias("twin")
    sweep_id = select(sweeps.c.id).where(sweeps.c.search_id == search_id).scalar_subquery()
    stands_in = exists().where(
        twin.c.digest == jobs.c.digest,
        twin.c.owner == jobs.c.owner,
        # Its own of two that ended badly: the other was another search's, and was cancelled there.
        or_(twin.c.state.in_(_LIVE), and_(twin.c.sweep_id == sweep_id, twin.c.id > jobs.c.id)),
    )
    return and_(tried_by(search_id), ~stands_in)


def all_ended() -> ColumnElement[bool]:
    """Of a job that waits for a sweep: whether nothing in that sweep is queued or running."""
    own, shared = jobs.alias("own"), jobs.alias("shared")
    queued = exists().where(own.c.sweep_id == jobs.c.waits_for, own.c.state.in_(_ACTIVE))
    linked = exists().where(
        sweep_links.c.sweep_id == jobs.c.waits_for,
        shared.c.id == sweep_links.c.job_id,
        shared.c.state.in_(_ACTIVE),
    )
    return and_(~queued, ~linked)
