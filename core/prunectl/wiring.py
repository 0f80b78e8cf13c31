"""The composition root of the service side: settings in, services out. The one place that knows every implementation."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from sqlalchemy import Engine

from prunectl.db import migrate
from prunectl.db.idempotency_store import SqlIdempotencyStore
from prunectl.db.job_store import SqlJobStore
from prunectl.db.limit_store import SqlLimitStore
from prunectl.db.search_store import SqlSearchStore
from prunectl.db.session import make_engine
from prunectl.db.standing_store import SqlStandingStore
from prunectl.db.sweep_store import SqlSweepStore
from prunectl.db.token_store import SqlTokenStore
from prunectl.db.worker_store import SqlWorkerStore
from prunectl.dispatch import CeleryDoorbell, job_events, make_app
from prunectl.jobs.attention import AttentionService
from prunectl.jobs.comparisons import ComparisonService
from prunectl.jobs.doctor import Doctor
from prunectl.jobs.intake import Intake
from prunectl.jobs.ports import (
    Doorbell,
    IdempotencyStore,
    JobEvents,
    JobStore,
    LimitStore,
    SearchStore,
    StandingStore,
    Storage,
    SweepStore,
    TokenStore,
    WorkerStore,
)
from prunectl.jobs.ringing import Ringer
from prunectl.jobs.secrets import SecretFiles
from prunectl.jobs.service import JobService
from prunectl.jobs.standings import StandingService
from prunectl.jobs.sweeper import alive_within_seconds
from prunectl.jobs.sweeps import SweepService
from prunectl.settings import Settings
from prunectl.storage import open_storage


@dataclass(frozen=True)
class Services:
    """What an API process works with."""

    jobs: JobService
    sweeps: SweepService
    attention: AttentionService
    standings: StandingService
    comparisons: ComparisonService
    limits: LimitStore
    store: JobStore
    workers: WorkerStore
    tokens: TokenStore
    doorbell: Doorbell
    events: JobEvents
    storage: Storage
    secrets: SecretFiles
    engine: Engine
    searches: SearchStore | None = None


def secret_files(settings: Settings) -> SecretFiles:
    return SecretFiles(settings.home / "secrets")


def build(settings: Settings) -> Services:
    """Connects to nothing yet: engines, storage and broker connect on first use."""
    engine = make_engine(settings.database)
    store, workers = SqlJobStore(engine), SqlWorkerStore(engine)
    storage = open_storage(settings.storage)
    doorbell = CeleryDoorbell(make_app(settings))
    doctor = Doctor(
        store=store,
        workers=workers,
        storage=storage,
        revision=lambda: (migrate.current(settings.database), migrate.head()),
        ping_broker=doorbell.ping,
        settings=settings,
    )
    return assemble(
        settings,
        store=store,
        sweeps=SqlSweepStore(engine),
        standings=SqlStandingStore(engine),
        limits=SqlLimitStore(engine),
        workers=workers,
        tokens=SqlTokenStore(engine),
        idempotency=SqlIdempotencyStore(engine),
        doorbell=doorbell,
        events=job_events(settings, f"api-{socket.gethostname()}"),
        storage=storage,
        doctor=doctor,
        engine=engine,
        searches=SqlSearchStore(engine),
    )


def assemble(
    settings: Settings,
    *,
    store: JobStore,
    sweeps: SweepStore,
    standings: StandingStore,
    limits: LimitStore,
    workers: WorkerStore,
    tokens: TokenStore,
    idempotency: IdempotencyStore,
    doorbell: Doorbell,
    events: JobEvents,
    storage: Storage,
    doctor: Doctor,
    engine: Engine,
    searches: SearchStore | None = None,
) -> Services:
    """The services over these ports."""
    secrets = secret_files(settings)
    jobs = JobService(
        store=store,
        workers=workers,
        idempotency=idempotency,
        doorbell=doorbell,
        storage=storage,
        secrets=secrets,
        doctor=doctor,
        settings=settings,
    )
    ringer = Ringer(store, workers, doorbell, alive_within_seconds(settings))
    sweep_service = SweepService(
        sweeps=sweeps,
        jobs=jobs,
        intake=Intake(settings, storage, workers),
        idempotency=idempotency,
        ringer=ringer,
        secrets=secrets,
        settings=settings,
    )
    return Services(
        jobs=jobs,
        sweeps=sweep_service,
        attention=AttentionService(
            jobs=jobs,
            storage=storage,
            settings=settings,
        ),
        comparisons=ComparisonService(jobs, sweep_service),
        standings=StandingService(
            jobs=jobs, standings=standings, limits=limits, workers=workers, sweeps=sweeps, settings=settings
        ),
        limits=limits,
        store=store,
        workers=workers,
        tokens=tokens,
        doorbell=doorbell,
        events=events,
        storage=storage,
        secrets=secrets,
        engine=engine,
        searches=searches,
    )
