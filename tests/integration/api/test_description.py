"""Random requests made from the API's own description: none is answered with a fault, and errors look as described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from prunectl.settings import Settings
from support.hub_server import HubServer
from support.service import SECRETS, config_only, memory_app, memory_services

EXAMPLES = 30
HEADERS = {"Authorization": f"Bearer {SECRETS['ada']}"}


def described(top: Path) -> Any:
    config_only(top / "zoo" / "tiny")
    own = Settings(home=top / "home", model_path=str(top / "zoo"))
    return schemathesis.openapi.from_asgi("/openapi.json", memory_app(own, memory_services(own)), headers=HEADERS)


def test_no_request_meets_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer().running() as hub:
        # Read once, when the library is imported: too late for variables where another test has done so.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        operations = [result.ok() for result in described(tmp_path).get_all_operations()]
        assert len(operations) > 20
        for operation in operations:
            try_out(operation)


def try_out(operation: Any) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    def requests(case: Any) -> None:
        response = case.call(headers=HEADERS)
        if case.path == "/readyz":
            assert response.status_code in (200, 503)
            return
        assert response.status_code < 500, f"{case.method} {case.path}: {response.text}"
        if response.status_code >= 400 and case.method != "HEAD":
            assert response.headers["content-type"][0] == "application/problem+json", response.text
            assert response.json()["code"]

    requests()
