"""The Celery application. Celery wakes, routes and supervises workers; the database decides which job runs.

So a message may be lost, doubled or late, on every broker, and each setting below is chosen for a doorbell, not for
a job.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES

from prunectl.errors import Unavailable
from prunectl.settings import Settings

QUEUES = ("cpu", "gpu")
RING = "prunectl.ring"
RING_SECONDS = 1.0
"""How long a ring may wait for a broker that takes connections and says nothing; the sweeper makes up for it."""

# Our file transport differs from Kombu's in that a message appears whole; see `prunectl.dispatch.folder_transport`.
_FOLDER_SCHEME = "prunectl-folder"
TRANSPORT_ALIASES[_FOLDER_SCHEME] = "prunectl.dispatch.folder_transport:Transport"


def make_app(settings: Settings, *, consumes: bool = False) -> Celery:
    """The application for ``settings.broker``, not connected yet. Raises Unavailable if its folders can't be made.

    One that only rings, unlike a worker's that ``consumes``, waits for nobody: whoever submits waits for it.
    """
    app = Celery("prunectl", set_as_current=False)
    url, transport_options, redis = _broker(settings, consumes)
    app.conf.update(
        broker_url=url,
        broker_transport_options=transport_options,
        # The default gives up after 100 tries; a worker must outlive any outage of its broker.
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Early ack: recovery is the lease in the database. A late ack would re-run long jobs at the visibility timeout.
        task_acks_late=False,
        # A message whose process died is not put back: a job that kills its process would come round for ever.
        task_reject_on_worker_lost=False,
        # Results are in the database; a result backend would only grow.
        task_ignore_result=True,
        result_backend=None,
        # Nothing that a broker could hold is ever unpickled.
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        accept_content=["json"],
        # Submitting must not hang on a broker that is down: one retry, about 0.2 s.
        task_publish_retry=True,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2},
        # A busy worker should not sit on rings that an idle one could answer. The second is known to Redis alone.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=redis,
        # Not solo: that can't answer its signals during a job. Fork is safe because a worker imports no torch.
        worker_pool="prefork",
        # A broker's blip must never kill a job of hours.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        # No task time limit (unset): Celery's SIGKILL would orphan the runner; the supervisor keeps the job's limit.
        # No worker_max_tasks_per_child (unset): a job's memory goes with its runner process.
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # A misspelt queue must fail, not become one that nobody reads. No dots: the file transport splits at them.
        task_create_missing_queues=False,
        task_queues=[Queue(name) for name in QUEUES],
        task_default_queue=QUEUES[0],
    )
    return app


def _broker(settings: Settings, consumes: bool) -> tuple[str, dict[str, Any], bool]:
    url = settings.broker
    if url.startswith("filesystem://"):
        messages = settings.broker_directory / "messages"
        control = settings.broker_directory / "control"
        try:
            for folder in (messages, control):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"can't make {settings.broker_directory}: {error.strerror}") from error
        options: dict[str, Any] = {
            "data_folder_in": str(messages),
            "data_folder_out": str(messages),
            "control_folder": str(control),
        }
        return f"{_FOLDER_SCHEME}://localhost", options, False
    if url.startswith(("redis://", "rediss://")):
        if consumes:
            from prunectl.dispatch import redis_rings

            redis_rings.install()
        options = {
            # Without effect on early-acked messages, and stated so that nobody has to wonder.
            "visibility_timeout": 3600,
            # A half-open connection is noticed within two of these intervals, and no command waits for ever. A
            # consumer's timeout has to be longer than the second that a blocking pop waits.
            "health_check_interval": 10,
            "socket_keepalive": True,
            "socket_timeout": 10 if consumes else RING_SECONDS,
            "socket_connect_timeout": 5 if consumes else RING_SECONDS,
            # Each of the client's own retries would wait the whole timeout again; a consumer reconnects by itself.
            "retry_on_timeout": False,
            "global_keyprefix": "prunectl:",
        }
        return url, options, True
    return url, {}, False
