"""Pictures of attention: asked for over HTTP, drawn by whoever claims the job, seen as the pictured job's artifact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from prunectl.attention import PAGE, AttentionJob, read_spec
from prunectl.wiring import Services
from support import service as support


@pytest.fixture
def pruned(ada: TestClient, services: Services, model: str) -> str:
    ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.3}})
    return support.succeed(services, files={"config.json": b"{}"})


def draw(client: TestClient, ref: str, **body: Any) -> Any:
    return client.post(f"/v1/jobs/{ref}/attention", json={"text": "a list of items", **body})


def finish(services: Services) -> str:
    """Claim the picture and publish its page, as a worker would."""
    lease = support.claim(services)
    name = f"runs/{lease.job_id}/1-y"
    services.storage.write(f"{name}/{PAGE}", b"<!doctype html>")
    found = support.result({"attention": services.storage.uri(f"{name}/{PAGE}")})
    assert services.store.succeed(lease, {**found, "metrics": {}, "structure": {"layers": []}})
    return lease.job_id


def test_a_picture_is_a_job_that_names_what_it_draws(ada: TestClient, services: Services, pruned: str) -> None:
    response = draw(ada, pruned[-6:], layers=[1, 0, 1])
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["attention"] == {"of": pruned, "text": "a list of items", "layers": [0, 1]}
    assert job["tags"] == {"attention-of": pruned}
    row = services.store.get(job["id"])
    assert row is not None
    spec = read_spec(row.spec)
    assert isinstance(spec, AttentionJob)
    assert spec.attention.checkpoint == f"runs/{pruned}/1-x/checkpoint"
    assert row.queue == "cpu" and row.priority > 0


def test_the_identical_picture_is_drawn_once(ada: TestClient, pruned: str) -> None:
    first, again, other = draw(ada, pruned), draw(ada, pruned), draw(ada, pruned, text="another")
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["prunectl-existing"] == "true" and "prunectl-existing" not in first.headers
    assert other.json()["id"] != first.json()["id"]


def test_one_idempotency_key_asks_for_one_picture(ada: TestClient, services: Services, pruned: str) -> None:
    def ask(text: str) -> Any:
        headers = {"Idempotency-Key": "k1"}
        return ada.post(f"/v1/jobs/{pruned}/attention", json={"text": text}, headers=headers)

    first = ask("a list").json()["id"]
    support.fail(services)  # without the key, what failed would be drawn again
    assert ask("a list").json()["id"] == first
    assert draw(ada, pruned, text="a list").json()["id"] != first
    refused = ask("another")
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"] == "Idempotency-Key"


def test_the_newest_page_is_an_artifact_of_the_pictured_job(ada: TestClient, services: Services, pruned: str) -> None:
    assert "attention" not in ada.get(f"/v1/jobs/{pruned}").json()["artifacts"]
    drawn = draw(ada, pruned).json()["id"]
    assert finish(services) == drawn
    uri = ada.get(f"/v1/jobs/{pruned}").json()["artifacts"]["attention"]
    assert uri == services.storage.uri(f"runs/{drawn}/1-y/{PAGE}")
    assert ada.get(f"/v1/jobs/{drawn}/artifacts/{PAGE}").text == "<!doctype html>"
    assert [file["path"] for file in ada.get(f"/v1/jobs/{drawn}/artifacts").json()["items"]] == [PAGE]
    listed = ada.get("/v1/jobs", params={"tag": f"attention-of={pruned}"}).json()["items"]
    assert [job["id"] for job in listed] == [drawn]


def test_another_owner_can_neither_draw_nor_learn_of_the_job(
    client_of: Callable[[str], TestClient], pruned: str
) -> None:
    assert draw(client_of("ben"), pruned).status_code == 404
    assert draw(client_of("reader"), pruned).status_code == 403


def test_only_a_job_with_a_checkpoint_has_something_to_show(ada: TestClient, services: Services, model: str) -> None:
    queued = ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.4}}).json()["id"]
    refused = draw(ada, queued)
    assert refused.status_code == 409 and "queued" in refused.json()["detail"]
    support.fail(services)
    assert draw(ada, queued).status_code == 409


def test_a_picture_has_no_picture(ada: TestClient, services: Services, pruned: str) -> None:
    drawn = draw(ada, pruned).json()["id"]
    finish(services)
    refused = draw(ada, drawn)
    assert refused.status_code == 409 and pruned in refused.json()["hint"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "   "}, "text"),
        ({"text": "x" * 2001}, "text"),
        ({"layers": []}, "layers"),
        ({"layers": [7]}, "layers"),
        ({"layers": [-1]}, "layers"),
        ({"checkpoint": "runs/somebody/else"}, "checkpoint"),
    ],
)
def test_a_wrong_value_is_named(ada: TestClient, pruned: str, body: dict[str, Any], field: str) -> None:
    refused = draw(ada, pruned, **body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"].startswith(field)


def test_no_submission_can_name_a_checkpoint(ada: TestClient, pruned: str, model: str) -> None:
    attention = {"job": pruned, "checkpoint": "runs/x/y", "model_digest": "sha256:0", "text": "a"}
    refused = ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.3}, "attention": attention})
    assert refused.status_code == 422
