"""The composition root of the service side: settings in, services out. The one place that knows every implementation."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from prunectl.db import migrate
from prunectl.db.idempotency_store import SqlIdempotencyStore
from prunectl.db.job_store import SqlJobStore
from prunectl.db.session import make_engine
from prunectl.db.token_store import SqlTokenStore
from prunectl.db.worker_store import SqlWorkerStore
from prunectl.dispatch import CeleryDoorbell, make_app
from prunectl.jobs.doctor import Doctor
from prunectl.jobs.ports import Doorbell, JobStore, Storage, TokenStore, WorkerStore
from prunectl.jobs.secrets import SecretFiles
from prunectl.jobs.service import JobService
from prunectl.settings import Settings
from prunectl.storage import open_storage


@dataclass(frozen=True)
class Services:
    """What an API process works with."""

    jobs: JobService
    store: JobStore
    workers: WorkerStore
    tokens: TokenStore
    doorbell: Doorbell
    storage: Storage
    secrets: SecretFiles
    engine: Engine


def secret_files(settings: Settings) -> SecretFiles:
    return SecretFiles(settings.home / "secrets")


def build(settings: Settings) -> Services:
    """Connects to nothing yet: engines, storage and broker connect on first use."""
    engine = make_engine(settings.database)
    store, workers = SqlJobStore(engine), SqlWorkerStore(engine)
    storage = open_storage(settings.storage)
    doorbell = CeleryDoorbell(make_app(settings))
    secrets = secret_files(settings)
    doctor = Doctor(
        store=store,
        workers=workers,
        storage=storage,
        revision=lambda: (migrate.current(settings.database), migrate.head()),
        ping_broker=doorbell.ping,
        settings=settings,
    )
    jobs = JobService(
        store=store,
        workers=workers,
        idempotency=SqlIdempotencyStore(engine),
        doorbell=doorbell,
        storage=storage,
        secrets=secrets,
        doctor=doctor,
        settings=settings,
    )
    return Services(jobs, store, workers, SqlTokenStore(engine), doorbell, storage, secrets, engine)
