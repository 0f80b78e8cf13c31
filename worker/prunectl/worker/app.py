"""The worker's Celery application: the shared one, with its single task."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from prunectl.dispatch import make_app
from prunectl.settings import Settings
from prunectl.worker.tasks import register


def make_worker_app(settings: Settings, serve_one: Callable[[], object]) -> Celery:
    """``serve_one`` is what a ring does; it is called in a pool process."""
    app = make_app(settings, consumes=True)
    register(app, serve_one)
    return app
