"""Tokens, scopes and owners."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from prunectl.wiring import Services

JOB = {"recipe": {"heads": 0.3}}


@pytest.mark.parametrize("path", ["/v1/jobs", "/openapi.json", "/metrics", "/version", "/nothing", "/v1/jobs/abcd"])
def test_nothing_but_the_probes_answers_without_a_token(anonymous: TestClient, path: str) -> None:
    response = anonymous.get(path)
    assert response.status_code == 401
    assert response.json()["code"] == "unauthenticated"
    assert response.headers["www-authenticate"] == "Bearer"


def test_a_malformed_body_without_a_token_is_401_not_422(anonymous: TestClient) -> None:
    assert anonymous.post("/v1/jobs", content=b"{").status_code == 401


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic YTpi", "ada-secret", "Bearer \xe9", ""])
def test_wrong_credentials(anonymous: TestClient, header: str) -> None:
    assert anonymous.get("/v1/jobs", headers={"Authorization": header.encode("latin-1")}).status_code == 401


def test_a_revoked_token_stops_at_once(ada: TestClient, services: Services) -> None:
    assert ada.get("/v1/jobs").status_code == 200
    assert services.tokens.revoke_token("t-ada")
    assert ada.get("/v1/jobs").status_code == 401


def test_a_read_token_reads_and_does_no_more(client_of: Callable[[str], TestClient], model: str) -> None:
    reader = client_of("reader")
    assert reader.get("/v1/jobs").status_code == 200
    for response in (
        reader.post("/v1/jobs", json={**JOB, "model": model}),
        reader.post("/v1/jobs/abcd/cancel"),
        reader.post("/v1/jobs/abcd/retry"),
        reader.delete("/v1/jobs/abcd"),
        reader.put("/v1/uploads/" + "a" * 64, content=b"x"),
    ):
        assert response.status_code == 403, response.text
        assert response.json()["code"] == "forbidden"
        assert "--scope submit" in response.json()["hint"]


def test_another_owners_job_is_as_if_it_were_not_there(client_of: Callable[[str], TestClient], model: str) -> None:
    ada, ben, root = client_of("ada"), client_of("ben"), client_of("root")
    job = ada.post("/v1/jobs", json={**JOB, "model": model}).json()
    assert job["owner"] == "ada"
    for response in (
        ben.get(f"/v1/jobs/{job['id']}"),
        ben.get(f"/v1/jobs/{job['id'][-6:]}"),
        ben.get(f"/v1/jobs/{job['id']}/logs"),
        ben.get(f"/v1/jobs/{job['id']}/events"),
        ben.get(f"/v1/jobs/{job['id']}/spec"),
        ben.get(f"/v1/jobs/{job['id']}/artifacts"),
        ben.post(f"/v1/jobs/{job['id']}/cancel"),
        ben.delete(f"/v1/jobs/{job['id']}"),
    ):
        assert response.status_code == 404, response.text
    assert ben.get("/v1/jobs").json()["items"] == []
    assert [item["id"] for item in root.get("/v1/jobs").json()["items"]] == [job["id"]]
    assert root.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
