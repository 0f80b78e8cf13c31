"""Redis, where a connection ends while rings are held: what can't be put back is let go."""

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis

logger = logging.getLogger(__name__)


class RingQoS(redis.QoS):
    """Kombu puts held messages back when their channel closes, over a connection that may be what has just failed.

    An error there ends Celery's consumer for good (with Kombu 5.7 an AttributeError, from a pool whose making was cut
    short). A lost ring is made up for by the sweeper, a worker without its consumer by nobody.
    """

    def restore_unacked(self, client: Any = None) -> None:
        try:
            super().restore_unacked(client)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the consumer
            logger.warning("%d rings were not put back: %s: %s", len(self._delivered), type(error).__name__, error)
            self._delivered.clear()


def install() -> None:
    """Have every Redis channel of this process hold its rings so."""
    redis.Channel.QoS = RingQoS
