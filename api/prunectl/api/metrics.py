"""Prometheus metrics. Labels are bounded: queues, states, methods, route templates and statuses; no ids."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prunectl.jobs.service import Caller, JobService
from prunectl.version import version

_SCRAPER = Caller(owner="metrics", scopes=frozenset({"read", "submit", "admin"}))


class QueueCollector(Collector):
    """Asks the database at each scrape, so that every API process tells the same."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("prunectl_jobs", "Jobs that wait or run", labels=("queue", "state"))
        workers = GaugeMetricFamily("prunectl_workers", "Live workers", labels=("queue",))
        slots = GaugeMetricFamily("prunectl_slots", "Jobs that the live workers can run at once", labels=("queue",))
        for queue in self._jobs.queues(_SCRAPER):
            jobs.add_metric((queue.name, "queued"), queue.queued)
            jobs.add_metric((queue.name, "running"), queue.running)
            workers.add_metric((queue.name,), queue.workers)
            slots.add_metric((queue.name,), queue.slots)
        build = GaugeMetricFamily("prunectl_build_info", "The version that answers", labels=("version",))
        build.add_metric((version(),), 1)
        yield from (jobs, workers, slots, build)


class RequestMetrics:
    """Counts and times requests by route template."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        labels = ("method", "route", "status")
        self._requests = Counter("prunectl_http_requests_total", "Requests answered", labels, registry=registry)
        self._seconds = Histogram(
            "prunectl_http_request_duration_seconds", "Until the response began", ("method", "route"), registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else "other"
                route = getattr(scope.get("route"), "path", "none")
                self._requests.labels(method, route, str(message["status"])).inc()
                self._seconds.labels(method, route).observe(time.perf_counter() - started)
            await send(message)

        await self.app(scope, receive, observed)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
