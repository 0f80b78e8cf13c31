"""Jobs as Celery task events, for whoever watches Celery (Flower, ``celery events``). A courtesy: nothing depends on it.

A ring is Celery's task, a job is not: so rings send no events, and each claim and each end of an attempt sends those
that a task would send, with the job's id as its uuid.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError, OperationalError

from prunectl.jobs.model import Job, JobState

logger = logging.getLogger(__name__)

TASK_NAME = "prunectl.job"
Sent = tuple[str, dict[str, Any]]


class CeleryJobEvents:
    """`prunectl.jobs.ports.JobEvents`. ``sender`` is the worker's name, which Celery knows as ``prunectl@NAME``."""

    def __init__(self, app: Celery, sender: str) -> None:
        self._app = app
        # Not enabled: it would hold a channel of its own. Producers come from the application's pool.
        self._dispatcher = app.events.Dispatcher(
            hostname=node_name(sender), enabled=False, buffer_while_offline=False, app=app
        )

    def claimed(self, job: Job) -> None:
        self._send(job, claim_events(job))

    def ended(self, job: Job) -> None:
        self._send(job, end_events(job))

    def _send(self, job: Job, events: Iterator[Sent]) -> None:
        policy = self._app.conf.task_publish_retry_policy
        try:
            with self._app.producer_or_acquire() as producer:
                for kind, fields in events:
                    self._dispatcher.publish(
                        kind, {"uuid": job.id, **fields}, producer, retry=True, retry_policy=policy
                    )
        except (OperationalError, ChannelError, OSError) as error:
            logger.warning("job %s: its Celery event is not sent: %s", job.id, error)


def node_name(worker: str) -> str:
    """What Celery calls the worker."""
    return f"prunectl@{worker}"


def claim_events(job: Job) -> Iterator[Sent]:
    """``task-received`` and ``task-started`` of a job that was claimed just now."""
    if job.attempt > 1:
        # Watchers take a task that had ended for done, unless it says that it is tried again.
        yield "task-retried", {"exception": f"attempt {job.attempt}", "traceback": None}
    what = {"model": job.model_name, "recipe": job.spec.get("recipe", {}), "queue": job.queue, "owner": job.owner}
    yield (
        "task-received",
        {
            "name": TASK_NAME,
            "args": "()",
            "kwargs": repr(what),
            "retries": job.attempt - 1,
            "eta": None,
            "expires": None,
            "root_id": job.sweep_id or job.id,
            "parent_id": job.sweep_id,
        },
    )
    yield "task-started", {}


def end_events(job: Job) -> Iterator[Sent]:
    """How an attempt ended, from the job as it is afterwards."""
    failure = "handed back" if job.failure is None else f"{job.failure.code}: {job.failure.message}"
    match job.state:
        case JobState.SUCCEEDED:
            seconds = (job.finished_at or 0.0) - (job.started_at or 0.0)
            artifacts = (job.result or {}).get("artifacts", {})
            yield "task-succeeded", {"result": repr(artifacts), "runtime": round(max(0.0, seconds), 3)}
        case JobState.FAILED:
            yield "task-failed", {"exception": failure, "traceback": None}
        case JobState.CANCELLED:
            yield "task-revoked", {"terminated": True, "signum": None, "expired": False}
        case JobState.QUEUED:
            yield "task-retried", {"exception": failure, "traceback": None}
        case JobState.RUNNING:
            return  # another worker has it by now, and says so
