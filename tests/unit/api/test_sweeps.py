"""The routes of sweeps: submit, plan, list, show, steer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from prunectl.settings import Settings
from prunectl.wiring import Services
from support import service as support


@pytest.fixture
def body(model: str) -> dict[str, Any]:
    return {"name": "grid", "base": {"model": model}, "grid": {"heads": [0.1, 0.2, 0.3], "seed": [0, 1]}}


def test_a_sweep_is_queued_whole_with_its_address(ada: TestClient, services: Services, body: dict[str, Any]) -> None:
    response = ada.post("/v1/sweeps", json=body)
    assert response.status_code == 202, response.text
    sweep = response.json()
    assert response.headers["location"] == f"/v1/sweeps/{sweep['id']}"
    assert (sweep["schema_version"], sweep["state"], sweep["name"], sweep["owner"]) == (1, "queued", "grid", "ada")
    assert (sweep["jobs"], sweep["shared"], sweep["counts"]["queued"], sweep["progress"]) == (6, 0, 6, 0.0)
    assert (sweep["base"], sweep["grid"]) == (body["base"], body["grid"])
    assert ada.get(response.headers["location"]).json() == sweep
    jobs = ada.get("/v1/jobs", params={"sweep": sweep["id"][-8:], "sort": "created_at"}).json()["items"]
    points = [(job["recipe"]["heads"], job["recipe"]["seed"]) for job in jobs]
    assert sorted(points) == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1), (0.3, 0), (0.3, 1)]
    by_id = sorted(jobs, key=lambda job: job["id"])
    assert [(job["recipe"]["heads"], job["recipe"]["seed"]) for job in by_id] == sorted(points)
    assert {job["sweep_id"] for job in jobs} == {sweep["id"]}
    assert len(services.doorbell.rings) >= 1  # type: ignore[attr-defined]


def test_identical_jobs_are_shared(ada: TestClient, services: Services, body: dict[str, Any], model: str) -> None:
    single = ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.2}}).json()
    support.succeed(services)
    plan = ada.post("/v1/sweeps:plan", json=body).json()
    assert (plan["jobs"], plan["identical"], plan["queues"]) == (6, 1, {"cpu": 6})
    assert ada.get("/v1/sweeps").json()["items"] == []  # a plan queues nothing
    sweep = ada.post("/v1/sweeps", json=body).json()
    assert (sweep["jobs"], sweep["shared"], sweep["state"]) == (6, 1, "running")
    assert sweep["counts"]["succeeded"] == 1
    listed = ada.get("/v1/jobs", params={"sweep": sweep["id"], "state": "succeeded"}).json()["items"]
    assert [job["id"] for job in listed] == [single["id"]]
    again = ada.post("/v1/sweeps", json=body).json()
    assert (again["shared"], again["id"] != sweep["id"]) == (6, True)


def test_one_idempotency_key_makes_one_sweep(ada: TestClient, body: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "k"}
    first = ada.post("/v1/sweeps", json={**body, "force": True}, headers=headers)
    second = ada.post("/v1/sweeps", json={**body, "force": True}, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["prunectl-existing"] == "true"
    assert len(ada.get("/v1/jobs", params={"limit": 100}).json()["items"]) == 6
    assert ada.post("/v1/sweeps", json=body, headers=headers).status_code == 422
    # Nor does a key of a sweep answer for a job.
    job = {"model": body["base"]["model"], "recipe": {"heads": 0.5}}
    assert ada.post("/v1/jobs", json=job, headers=headers).status_code == 422


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"grid": {"heads": [0.1, 2.0]}}, "heads"),
        ({"grid": {"hads": [0.1]}}, "hads"),
        ({"grid": {"heads": []}}, "grid"),
        ({"grid": {"heads": [0.1], "model": ["nowhere"]}}, "model"),
        ({"grid": {}}, "recipe"),
        ({"grid": {"seed": list(range(102)), "heads": [0.01 * n for n in range(1, 100)]}}, "grid"),
        ({"bsae": {}}, "bsae"),
        ({"base": {"model": "tiny", "recipe": 3}}, "recipe"),
    ],
)
def test_one_wrong_job_refuses_all(ada: TestClient, body: dict[str, Any], changed: Any, field: str) -> None:
    response = ada.post("/v1/sweeps", json={**body, **changed})
    assert response.status_code == 422, response.text
    assert field in str(response.json()), response.text
    assert ada.get("/v1/jobs").json()["items"] == ada.get("/v1/sweeps").json()["items"] == []


@pytest.mark.parametrize("cursor", ["zzz", "", "0" * 26 + "!", "*" * 26])
def test_what_is_no_cursor(ada: TestClient, cursor: str) -> None:
    refused = ada.get("/v1/sweeps", params={"cursor": cursor})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "cursor")


def test_the_size_has_a_limit(services: Services, settings: Settings, body: dict[str, Any]) -> None:
    small = support.memory_services(settings.model_copy(update={"max_sweep_jobs": 5}))
    with TestClient(support.memory_app(settings, small), headers={"Authorization": "Bearer ada-secret"}) as ada:
        response = ada.post("/v1/sweeps", json=body)
        assert response.status_code == 422
        assert "at most 5 jobs, this one has 6" in response.json()["detail"]


def test_progress_cancel_and_retry(ada: TestClient, services: Services, body: dict[str, Any]) -> None:
    sweep = ada.post("/v1/sweeps", json=body).json()
    address = f"/v1/sweeps/{sweep['id'][-6:]}"
    support.succeed(services, gate=False)
    support.fail(services)
    now = ada.get(address).json()
    assert (now["state"], now["progress"], now["gates_failed"]) == ("running", round(2 / 6, 4), 1)
    assert now["started_at"] and now["finished_at"] is None
    cancelled = ada.post(f"{address}/cancel").json()
    assert (cancelled["changed"], cancelled["state"], cancelled["counts"]["cancelled"]) == (4, "failed", 4)
    assert cancelled["finished_at"]
    assert ada.post(f"{address}/cancel").json()["changed"] == 0
    retried = ada.post(f"{address}/retry", params={"failed": True}).json()
    assert (retried["changed"], retried["counts"]["queued"], retried["state"]) == (1, 1, "running")
    assert ada.post(f"{address}/retry", params={"failed": True}).json()["changed"] == 0
    assert ada.post(f"{address}/retry").json()["changed"] == 4


def test_another_owners_sweep_is_as_if_it_were_not_there(
    client_of: Callable[[str], TestClient], body: dict[str, Any]
) -> None:
    sweep = client_of("ada").post("/v1/sweeps", json=body).json()
    ben, root, reader = client_of("ben"), client_of("root"), client_of("reader")
    address = f"/v1/sweeps/{sweep['id']}"
    assert ben.get(address).status_code == ben.post(f"{address}/cancel").status_code == 404
    assert ben.post(f"{address}/retry").status_code == 404
    assert ben.get("/v1/jobs", params={"sweep": sweep["id"]}).status_code == 404
    assert ben.get("/v1/sweeps").json()["items"] == []
    assert root.get(address).json()["id"] == sweep["id"]
    assert reader.post("/v1/sweeps", json=body).status_code == 403
    assert root.post(f"{address}/cancel").json()["changed"] == 6


def test_sweeps_are_paged(ada: TestClient, model: str) -> None:
    made = [
        ada.post("/v1/sweeps", json={"base": {"model": model}, "grid": {"heads": [share]}}).json()["id"]
        for share in (0.1, 0.2, 0.3)
    ]
    first = ada.get("/v1/sweeps", params={"limit": 2}).json()
    rest = ada.get("/v1/sweeps", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == sorted(made, reverse=True)
    assert rest["next_cursor"] is None
