"""The Celery side: a message that says only "there is work"."""

from prunectl.dispatch.celery_app import QUEUES, make_app
from prunectl.dispatch.doorbell import CeleryDoorbell
from prunectl.dispatch.job_events import CeleryJobEvents, node_name
from prunectl.jobs.ports import JobEvents, NoJobEvents
from prunectl.settings import Settings

__all__ = ["QUEUES", "CeleryDoorbell", "CeleryJobEvents", "job_events", "make_app", "node_name"]


def job_events(settings: Settings, sender: str) -> JobEvents:
    """Celery events where ``settings`` ask for them."""
    return CeleryJobEvents(make_app(settings), sender) if settings.celery_events else NoJobEvents()
