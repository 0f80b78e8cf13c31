"""What machines ask: health, readiness, metrics, the API's description."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from prunectl.wiring import Services


def test_health_names_the_instance(anonymous: TestClient) -> None:
    response = anonymous.get("/healthz")
    assert response.status_code == 200
    assert response.json()["instance"] == "test-instance"


def test_readiness_says_which_part_fails_and_not_why(
    anonymous: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert anonymous.get("/readyz").json() == {
        "status": "ok",
        "parts": {"database": "ok", "migrations": "ok", "storage": "ok", "broker": "ok"},
    }
    monkeypatch.setattr(services.jobs, "health", lambda: {"database": "ok", "broker": "redis://:secret@host refused"})
    response = anonymous.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "failing", "parts": {"database": "ok", "broker": "failing"}}


def test_metrics_count_by_route_template_and_never_by_id(ada: TestClient, model: str) -> None:
    job = ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.3}}).json()
    ada.get(f"/v1/jobs/{job['id']}")
    text = ada.get("/metrics").text
    assert 'prunectl_jobs{queue="cpu",state="queued"} 1.0' in text
    assert 'route="/v1/jobs/{ref}"' in text
    assert job["id"] not in text
    assert model not in text


def test_the_description_is_openapi_31_and_says_how_errors_look(ada: TestClient) -> None:
    document = ada.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    submit = document["paths"]["/v1/jobs"]["post"]
    assert set(submit["responses"]) >= {"202", "401", "403", "413", "422"}
    assert "application/problem+json" in submit["responses"]["422"]["content"]
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
