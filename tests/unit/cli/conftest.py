"""The command line in this process, against the API over the in-memory twins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from prunectl.cli import connection
from prunectl.cli.client import Client
from prunectl.cli.main import main
from prunectl.settings import Settings
from prunectl.wiring import Services
from support.service import SECRETS, config_only, memory_app, memory_services


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Ran]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", model_path=str(tmp_path / "zoo"))


@pytest.fixture
def services(settings: Settings) -> Services:
    return memory_services(settings)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return config_only(tmp_path / "zoo" / "tiny").name


@pytest.fixture
def service(settings: Settings, services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The API; every command of the test talks to it, as its owner ``ada``."""
    with TestClient(memory_app(settings, services)) as http:
        # The test client's transport answers in this process: the whole wire, without a socket.
        transport = http._transport

        def client(_settings: Any) -> Client:
            return Client("http://testserver", SECRETS["ada"], transport=transport)

        monkeypatch.setattr(connection, "_client", client)
        yield http


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command; its exit code and what it wrote."""
    monkeypatch.setenv("NO_COLOR", "1")

    def run_command(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main(list(arguments))
        out, err = capfd.readouterr()
        return Ran(int(code), out, err)

    return run_command


@pytest.fixture
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if a command so much as looks for a service."""

    def refuse(_settings: Any) -> Client:
        raise AssertionError("the command talked to a service")

    monkeypatch.setattr(connection, "_client", refuse)
