"""An API over the in-memory twins, and a client for each of the test owners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from prunectl.settings import Settings
from prunectl.wiring import Services
from support.service import SECRETS, config_only, memory_app, memory_services


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home", model_path=str(tmp_path / "zoo"), max_body_bytes=20_000, max_upload_bytes=1000
    )


@pytest.fixture
def services(settings: Settings) -> Services:
    return memory_services(settings)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return config_only(tmp_path / "zoo" / "tiny").name


@pytest.fixture
def client_of(settings: Settings, services: Services) -> Iterator[Callable[[str], TestClient]]:
    app = memory_app(settings, services)
    with TestClient(app, raise_server_exceptions=False) as first:

        def as_owner(name: str) -> TestClient:
            return TestClient(
                first.app, headers={"Authorization": f"Bearer {SECRETS[name]}"}, raise_server_exceptions=False
            )

        yield as_owner


@pytest.fixture
def ada(client_of: Callable[[str], TestClient]) -> TestClient:
    return client_of("ada")


@pytest.fixture
def anonymous(ada: TestClient) -> TestClient:
    return TestClient(ada.app, raise_server_exceptions=False)
