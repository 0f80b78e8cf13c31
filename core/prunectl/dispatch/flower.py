"""``celery --app prunectl.dispatch.flower flower``: the application of this service's broker, for tools that want one."""

from __future__ import annotations

from prunectl.dispatch.celery_app import make_app
from prunectl.settings import Settings

app = make_app(Settings())
