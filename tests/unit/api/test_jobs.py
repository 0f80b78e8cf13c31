"""The routes of jobs: submit, list, show, steer, logs, events, artifacts, uploads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from prunectl.settings import Settings
from prunectl.wiring import Services
from support import service as support


@pytest.fixture
def body(model: str) -> dict[str, Any]:
    return {"model": model, "recipe": {"heads": 0.3}}


def test_submit_answers_202_with_the_address_of_the_job(ada: TestClient, body: dict[str, Any]) -> None:
    response = ada.post("/v1/jobs", json={**body, "tags": {"team": "search"}, "timeout_seconds": "2h"})
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert "prunectl-existing" not in response.headers
    assert (job["schema_version"], job["state"], job["attempt"]) == (1, "queued", 0)
    assert ada.get(response.headers["location"]).json() == job


def test_an_identical_job_is_returned_and_said_to_be_there(ada: TestClient, body: dict[str, Any]) -> None:
    first = ada.post("/v1/jobs", json=body)
    second = ada.post("/v1/jobs", json=body)
    assert (second.status_code, second.headers["prunectl-existing"]) == (202, "true")
    assert second.json()["id"] == first.json()["id"]
    assert ada.post("/v1/jobs", json={**body, "force": True}).json()["id"] != first.json()["id"]


def test_one_idempotency_key_queues_one_job(ada: TestClient, body: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "k1"}
    forced = {**body, "force": True}
    first, second = (ada.post("/v1/jobs", json=forced, headers=headers).json()["id"] for _ in range(2))
    assert first == second
    other = ada.post("/v1/jobs", json={**forced, "recipe": {"heads": 0.5}}, headers=headers)
    assert other.status_code == 422
    assert len(ada.get("/v1/jobs").json()["items"]) == 1


def test_list_filters_sorts_and_pages(ada: TestClient, services: Services, body: dict[str, Any]) -> None:
    ids = [ada.post("/v1/jobs", json={**body, "recipe": {"heads": share}}).json()["id"] for share in (0.1, 0.2, 0.3)]
    done = support.succeed(services)
    page = ada.get("/v1/jobs", params={"limit": 2, "sort": "created_at"}).json()
    rest = ada.get("/v1/jobs", params={"limit": 2, "sort": "created_at", "cursor": page["next_cursor"]}).json()
    assert [item["id"] for item in page["items"] + rest["items"]] == ids
    assert rest["next_cursor"] is None
    assert "structure" not in page["items"][0]
    assert set(ada.get(f"/v1/jobs/{page['items'][0]['id']}").json()) == {*page["items"][0], "structure"}

    def listed(**parameters: Any) -> list[str]:
        return [item["id"] for item in ada.get("/v1/jobs", params=parameters).json()["items"]]

    assert listed(state="succeeded") == [done]
    assert len(listed(state="queued,running")) == 2
    assert listed(where="eval_accuracy>0.7 and speedup>=1.2") == [done]
    assert listed(where="eval_accuracy>0.9") == []
    assert listed(tag="team=none") == []


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("state", "faild"), ("where", "eval_accuracy"), ("where", "a > b"), ("since", "yesterday"), ("tag", "x"),
     ("sort", "beauty"), ("cursor", "zzz"), ("limit", "0"), ("limit", "100000")],
)  # fmt: skip
def test_filters_that_make_no_sense_name_themselves(ada: TestClient, parameter: str, value: str) -> None:
    response = ada.get("/v1/jobs", params={parameter: value})
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"] == parameter


@pytest.mark.parametrize(("limit", "nearest"), [("0", "1"), ("100000", "500")])
def test_a_limit_out_of_bounds_names_the_nearest(ada: TestClient, limit: str, nearest: str) -> None:
    [entry] = ada.get("/v1/jobs", params={"limit": limit}).json()["errors"]
    assert (entry["field"], entry["value"], entry["nearest"]) == ("limit", limit, nearest)
    assert nearest in entry["allowed"] and "input should" not in entry["message"]


def test_cancel_retry_and_delete(ada: TestClient, body: dict[str, Any]) -> None:
    job = ada.post("/v1/jobs", json=body).json()
    address = f"/v1/jobs/{job['id'][-6:]}"
    assert ada.delete(address).status_code == 409
    assert ada.post(f"{address}/cancel").json()["state"] == "cancelled"
    again = ada.post(f"{address}/cancel")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    assert ada.post(f"{address}/retry").json()["state"] == "queued"
    ada.post(f"{address}/cancel")
    assert ada.delete(address).json()["id"] == job["id"]
    assert ada.get(address).status_code == 404


def test_what_has_succeeded_is_not_cancelled(ada: TestClient, services: Services, body: dict[str, Any]) -> None:
    ada.post("/v1/jobs", json=body)
    done = support.succeed(services)
    assert ada.post(f"/v1/jobs/{done}/cancel").status_code == 409


def test_the_spec_submits_the_same_job_again(ada: TestClient, body: dict[str, Any]) -> None:
    job = ada.post("/v1/jobs", json=body).json()
    spec = ada.get(f"/v1/jobs/{job['id']}/spec").json()
    assert spec["model"] == body["model"]
    assert spec["heads"] == 0.3


def test_a_log_is_read_piece_by_piece_until_it_has_ended(
    ada: TestClient, services: Services, body: dict[str, Any]
) -> None:
    job = ada.post("/v1/jobs", json=body).json()
    lease = support.claim(services)
    services.storage.append(f"logs/{job['id']}/a1.log", b"one\ntwo\n")
    first = ada.get(f"/v1/jobs/{job['id']}/logs")
    assert (first.content, first.headers["prunectl-next-offset"], first.headers["prunectl-log-ended"]) == (
        b"one\ntwo\n",
        "8",
        "false",
    )
    services.storage.append(f"logs/{job['id']}/a1.log", b"three\n")
    assert services.store.succeed(lease, support.result({}))
    assert ada.get(f"/v1/jobs/{job['id']}/logs", params={"offset": 8}).content == b"three\n"
    last = ada.get(f"/v1/jobs/{job['id']}/logs", params={"offset": 14})
    assert (last.content, last.headers["prunectl-log-ended"]) == (b"", "true")


def test_events_go_on_after_the_last_one_seen_and_end_with_the_job(
    ada: TestClient, services: Services, body: dict[str, Any]
) -> None:
    job = ada.post("/v1/jobs", json=body).json()
    support.succeed(services)
    events = parse(ada.get(f"/v1/jobs/{job['id']}/events").text)
    states = [event["data"]["state"] for event in events if event["event"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    assert events[-1]["event"] == "end"
    assert events[-1]["data"]["id"] == job["id"]
    again = parse(ada.get(f"/v1/jobs/{job['id']}/events", headers={"Last-Event-ID": events[0]["id"]}).text)
    assert [event.get("id") for event in again] == [event.get("id") for event in events[1:]]


def parse(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append({**lines, "data": json.loads(lines["data"])})
    return found


def test_artifacts_are_listed_and_streamed_with_their_length(
    ada: TestClient, services: Services, body: dict[str, Any]
) -> None:
    ada.post("/v1/jobs", json=body)
    job_id = support.succeed(services, files={"config.json": b"{}", "onnx/model.onnx": b"x" * 3_000_000})
    listed = ada.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
    assert listed == [{"path": "config.json", "size": 2}, {"path": "onnx/model.onnx", "size": 3_000_000}]
    response = ada.get(f"/v1/jobs/{job_id}/artifacts/onnx/model.onnx")
    assert response.content == b"x" * 3_000_000
    assert response.headers["content-length"] == "3000000"


@pytest.mark.parametrize(
    "path", ["..%2f..%2fsecrets", "%2e%2e/config.json", "/etc/passwd", "%2fetc%2fpasswd", "onnx", "", "a%00b"]
)
def test_no_path_leaves_the_jobs_own_directory(
    ada: TestClient, services: Services, body: dict[str, Any], path: str
) -> None:
    ada.post("/v1/jobs", json=body)
    job_id = support.succeed(services, files={"config.json": b"{}"})
    assert ada.get(f"/v1/jobs/{job_id}/artifacts/{path}").status_code in (404, 422)


def test_artifacts_are_found_after_the_storage_has_moved(
    ada: TestClient, services: Services, body: dict[str, Any]
) -> None:
    ada.post("/v1/jobs", json=body)
    job_id = support.succeed(services, files={"config.json": b"{}"})
    here = ada.get(f"/v1/jobs/{job_id}").json()["artifacts"]["checkpoint"]
    job = services.store.get(job_id)
    assert job is not None and job.result is not None
    job.result["artifacts"]["checkpoint"] = "file:///an%20old%20home/storage/" + here[here.index("runs/") :]
    assert ada.get(f"/v1/jobs/{job_id}").json()["artifacts"]["checkpoint"] == here
    assert ada.get("/v1/jobs").json()["items"][0]["artifacts"]["checkpoint"] == here
    assert ada.get(f"/v1/jobs/{job_id}/artifacts/config.json").content == b"{}"


def test_uploads_are_kept_by_their_own_digest(ada: TestClient) -> None:
    data = b"a line\n"
    digest = hashlib.sha256(data).hexdigest()
    assert ada.head(f"/v1/uploads/{digest}").status_code == 404
    assert ada.put(f"/v1/uploads/{digest}", content=data).status_code == 201
    assert ada.head(f"/v1/uploads/{digest}").status_code == 200
    wrong = hashlib.sha256(b"other").hexdigest()
    assert ada.put(f"/v1/uploads/{wrong}", content=data).status_code == 422
    assert ada.head(f"/v1/uploads/{wrong}").status_code == 404
    assert ada.put(f"/v1/uploads/{digest.upper()}", content=data).status_code == 422


def test_an_upload_over_the_limit_is_refused_however_it_is_sent(ada: TestClient) -> None:
    data = b"x" * 1001
    digest = hashlib.sha256(data).hexdigest()
    assert ada.put(f"/v1/uploads/{digest}", content=data).status_code == 413
    assert ada.put(f"/v1/uploads/{digest}", content=iter([data[:600], data[600:]])).status_code == 413
    assert ada.head(f"/v1/uploads/{digest}").status_code == 404


def test_the_limit_is_a_services_and_not_the_embedded_stacks() -> None:
    assert Settings().upload_limit == 256 * 2**20
    assert (
        Settings(max_upload_bytes=1000).upload_limit
        == Settings(max_upload_bytes=1000, embedded=True).upload_limit
        == 1000
    )
    assert Settings(embedded=True).upload_limit is None


def test_an_upload_without_a_limit(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", embedded=True, max_body_bytes=1000)
    data = b"x" * 5000
    address = f"/v1/uploads/{hashlib.sha256(data).hexdigest()}"
    headers = {"Authorization": f"Bearer {support.SECRETS['ada']}"}
    with TestClient(support.memory_app(settings, support.memory_services(settings)), headers=headers) as client:
        assert client.put(address, content=data).status_code == 201
        assert client.head(address).status_code == 200


def test_plan_queues_nothing(ada: TestClient, body: dict[str, Any]) -> None:
    plan = ada.post("/v1/jobs:plan", json=body).json()
    assert (plan["heads_total"], plan["heads_removed"]) == (8, 2)
    assert plan["parameters"]["after"] < plan["parameters"]["before"]
    assert ada.get("/v1/jobs").json()["items"] == []
