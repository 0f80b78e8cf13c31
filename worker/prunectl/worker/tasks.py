"""The one Celery task. It carries nothing: a ring says that there is work, and the claim decides which."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from prunectl.dispatch.celery_app import RING


def register(app: Celery, serve_one: Callable[[], object]) -> None:
    """Make ``prunectl.ring`` call ``serve_one``.

    The task lasts as long as the job, so that Celery's concurrency is the number of slots.
    """

    # No Celery events of its own: who watches wants to see jobs, which `prunectl.dispatch.job_events` reports.
    @app.task(name=RING, ignore_result=True, send_events=False)
    def ring() -> None:
        serve_one()
