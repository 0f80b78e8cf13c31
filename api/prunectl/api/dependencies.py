"""What routes ask for: the services and the settings of the app that they run in."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from prunectl.jobs.attention import AttentionService
from prunectl.jobs.comparisons import ComparisonService
from prunectl.jobs.service import JobService
from prunectl.jobs.standings import StandingService
from prunectl.jobs.sweeps import SweepService
from prunectl.settings import Settings


def _jobs(connection: HTTPConnection) -> JobService:
    jobs: JobService = connection.app.state.services.jobs
    return jobs


def _sweeps(connection: HTTPConnection) -> SweepService:
    sweeps: SweepService = connection.app.state.services.sweeps
    return sweeps


def _attention(connection: HTTPConnection) -> AttentionService:
    attention: AttentionService = connection.app.state.services.attention
    return attention


def _standings(connection: HTTPConnection) -> StandingService:
    standings: StandingService = connection.app.state.services.standings
    return standings


def _comparisons(connection: HTTPConnection) -> ComparisonService:
    comparisons: ComparisonService = connection.app.state.services.comparisons
    return comparisons


def _settings(connection: HTTPConnection) -> Settings:
    settings: Settings = connection.app.state.settings
    return settings


Jobs = Annotated[JobService, Depends(_jobs)]
Sweeps = Annotated[SweepService, Depends(_sweeps)]
Attention = Annotated[AttentionService, Depends(_attention)]
Standings = Annotated[StandingService, Depends(_standings)]
Comparisons = Annotated[ComparisonService, Depends(_comparisons)]
ServiceSettings = Annotated[Settings, Depends(_settings)]
