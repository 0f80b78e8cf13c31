"""``POST /v1/models:inspect``."""

from __future__ import annotations

from fastapi.testclient import TestClient


def test_a_model_is_inspected_from_its_configuration(ada: TestClient, model: str) -> None:
    answer = ada.post("/v1/models:inspect", json={"model": model})
    assert answer.status_code == 200
    found = answer.json()
    assert found["model"]["name"] == model and found["parameters"] == sum(found["parts"].values())
    [stack] = found["stacks"]
    assert stack["stack"] == "encoder" and stack["layers"] >= 1


def test_a_name_that_stands_for_nothing_is_refused(ada: TestClient, model: str) -> None:
    wrong = ada.post("/v1/models:inspect", json={"model": "/no/such/model"})
    assert wrong.status_code == 422 and wrong.json()["code"] == "model_not_found"
    assert ada.post("/v1/models:inspect", json={}).status_code == 422


def test_a_token_is_needed(anonymous: TestClient, model: str) -> None:
    assert anonymous.post("/v1/models:inspect", json={"model": model}).status_code == 401
