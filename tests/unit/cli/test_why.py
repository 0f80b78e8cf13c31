"""``why``, ``quotas`` and their routes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from prunectl.jobs.records import Worker
from prunectl.wiring import Services
from support import service as support


@pytest.fixture
def job_id(service: TestClient, run: Any, model: str) -> str:
    return str(run("submit", "-m", model, "--heads", "0.1").lines[0])


def test_a_line_a_reason_and_hints_beside_them(run: Any, services: Services, job_id: str) -> None:
    ran = run("why", job_id)
    assert ran.lines == ["queued: no live worker serves the queue cpu"]
    assert ran.err.strip() == "hint: start one: prunectl worker --queues cpu"
    services.workers.announce(Worker("t", "w", "h", 1, ("cpu",), 1, "cpu", "0.0.1"))
    services.limits.set_limit("ada", 0)
    lines = run("why", job_id[-6:]).lines
    assert [line.split(":")[1].strip() for line in lines] == ["quota", "version skew"]
    services.limits.set_limit("ada", None)
    support.succeed(services, gate=False)
    assert "succeeded: its gate is not met" in run("why", job_id).out


def test_machine_formats(run: Any, job_id: str) -> None:
    document = json.loads(run("why", job_id, "-o", "json").out)
    assert (document["schema_version"], document["id"], document["state"]) == (1, job_id, "queued")
    assert document["reasons"][0]["code"] == "no_worker"
    assert document["reasons"][0]["data"]["queue"] == "cpu"
    both = json.loads(run("why", job_id, job_id, "--json").out)["items"]
    assert [item["id"] for item in both] == [job_id, job_id]
    assert run("why", job_id, "-o", "csv").lines == ["id,state,reasons", f"{job_id},queued,no_worker"]
    assert run("why", "nothing1").code == 5


def test_another_owners_job_is_not_explained(service: TestClient, job_id: str) -> None:
    ben = {"Authorization": "Bearer ben-secret"}
    assert service.get(f"/v1/jobs/{job_id}/why", headers=ben).status_code == 404


def test_quotas_are_ones_own_and_all_for_an_admin(
    service: TestClient, services: Services, run: Any, job_id: str
) -> None:
    services.limits.set_limit("ada", 3)
    services.limits.set_limit("cy", 1)
    header, row = run("quotas").lines
    assert header.split() == ["OWNER", "RUNNING", "QUEUED", "MAX", "RUNNING", "ORIGIN"]
    assert row.split() == ["ada", "0", "1", "3", "owner"]
    every = service.get("/v1/quotas", headers={"Authorization": "Bearer root-secret"}).json()["items"]
    assert [(item["owner"], item["max_running"], item["origin"]) for item in every] == [
        ("ada", 3, "owner"), ("cy", 1, "owner"), ("root", None, None),
    ]  # fmt: skip
    [ben] = service.get("/v1/quotas", headers={"Authorization": "Bearer ben-secret"}).json()["items"]
    assert (ben["owner"], ben["running"], ben["max_running"]) == ("ben", 0, None)
