"""The doorbell over Celery: one tiny message a ring."""

from __future__ import annotations

import logging

from celery import Celery
from kombu.exceptions import ChannelError, OperationalError

from prunectl.dispatch.celery_app import RING
from prunectl.errors import Unavailable

logger = logging.getLogger(__name__)


class CeleryDoorbell:
    """`prunectl.jobs.ports.Doorbell`. Producers come from the application's pool: no new connection a ring."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def ping(self) -> None:
        """Connect once. Raises Unavailable where the broker doesn't answer."""
        try:
            with self._app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0.1, timeout=5)
        except (OperationalError, ChannelError, OSError) as error:
            raise Unavailable(f"the broker does not answer: {error}", hint="check PRUNECTL_BROKER_URL") from error

    def ring(self, queue: str, times: int = 1) -> None:
        if times < 1:
            return
        try:
            with self._app.producer_or_acquire() as producer:
                for _ in range(times):
                    self._app.send_task(RING, queue=queue, producer=producer, ignore_result=True)
        except (OperationalError, ChannelError, OSError) as error:
            # The sweeper rings again: the job is safe in the database, and whoever submits must not wait.
            logger.warning("doorbell of queue %s not rung: %s", queue, error)
