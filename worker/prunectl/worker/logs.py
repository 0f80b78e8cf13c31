"""Structured log lines on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure(level: str, form: str, **bound: Any) -> None:
    """Log to standard error, one line an event, each with ``bound``. ``form`` is ``console`` or ``json``."""

    def bind(_logger: Any, _method: str, event: Any) -> Any:
        return {**event, **bound}

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        bind,
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if form == "json"
        # A plain traceback: the rich one prints local variables, and with them whatever secret they hold.
        else [
            structlog.dev.ConsoleRenderer(
                colors=False, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        # Celery tells of each ring three times; what matters of it is in our own lines.
        for name in ("celery.app.trace", "celery.worker.strategy", "alembic.runtime.migration"):
            logging.getLogger(name).setLevel(logging.WARNING)
