"""The HTTP API's application factory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from prunectl.api import problems
from prunectl.api.auth import Authentication
from prunectl.api.limits import RequestLimits
from prunectl.api.metrics import QueueCollector, RequestMetrics
from prunectl.api.routes import attention, comparisons, fleet, jobs, probes, reports, streams, sweeps, ui, uploads
from prunectl.jobs.leftovers import chores
from prunectl.jobs.sweeper import Sweeper
from prunectl.settings import Settings
from prunectl.version import version
from prunectl.wiring import Services, build


def create_app(settings: Settings, *, services: Services | None = None, instance: str | None = None) -> FastAPI:
    """The API over ``services`` (built from ``settings`` where none are given).

    ``instance`` is echoed by ``/healthz``: it lets the command line recognise the embedded stack that it started.
    """
    services = services or build(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # In every process, with no leader: jobs of a dead worker come back even where no other worker is left.
        sweeper = Sweeper(
            services.store,
            services.workers,
            services.doorbell,
            settings,
            chores=chores(services.store, services.storage, settings),
            events=services.events,
            searches=services.searches,
        )
        sweeper.start()
        try:
            yield
        finally:
            sweeper.stop()
            services.engine.dispose()

    app = FastAPI(
        title="prunectl",
        version=version(),
        summary="A distributed queue that prunes transformer models",
        lifespan=lifespan,
        # Both pages would load scripts from a CDN; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
    )
    app.state.settings = settings
    app.state.services = services
    app.state.instance = instance
    app.state.registry = CollectorRegistry()
    app.state.registry.register(QueueCollector(services.jobs))

    problems.install(app)
    app.include_router(probes.router)
    for module in (jobs, attention, sweeps, comparisons, reports, streams, uploads, fleet, ui):
        app.include_router(module.router)

    # The last one added runs first: requests are counted, then authenticated, then bounded.
    app.add_middleware(RequestLimits, max_body_bytes=settings.max_body_bytes, max_upload_bytes=settings.upload_limit)
    app.add_middleware(Authentication, tokens=services.tokens)
    app.add_middleware(RequestMetrics, registry=app.state.registry)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
