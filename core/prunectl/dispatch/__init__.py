"""The Celery side: a message that says only "there is work"."""

from prunectl.dispatch.celery_app import QUEUES, make_app
from prunectl.dispatch.doorbell import CeleryDoorbell

__all__ = ["QUEUES", "CeleryDoorbell", "make_app"]
