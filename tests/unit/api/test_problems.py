"""Every error is a problem document with a code, a hint and the fields at fault."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from prunectl.api.problems import STATUS
from prunectl.errors import Kind
from prunectl.wiring import Services


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["code"] == code
    assert {"type", "title", "detail", "hint", "errors"} <= set(document)
    return document


def test_every_kind_has_a_status() -> None:
    assert set(STATUS) == set(Kind)


def test_wrong_values_name_the_flag_what_is_allowed_and_the_nearest_choice(ada: TestClient) -> None:
    body = {
        "model": "m",
        "recipe": {"heads": 1.5, "scorer": "tailor"},
        "evaluation": {"bench_seq": 1},
        "timeout_seconds": "soon",
    }
    document = problem(ada.post("/v1/jobs", json=body), 422, "invalid_input")
    by_field = {entry["field"]: entry for entry in document["errors"]}
    assert set(by_field) == {"heads", "scorer", "bench_seq", "timeout"}
    assert by_field["heads"]["value"] == 1.5
    assert by_field["heads"]["allowed"] == "a number >= 0 and < 1"
    assert by_field["scorer"]["nearest"] == "taylor"
    assert "90s" in by_field["timeout"]["message"]


def test_an_unknown_field_is_refused_with_the_nearest_name(ada: TestClient) -> None:
    document = problem(ada.post("/v1/jobs", json={"model": "m", "recipe": {"haeds": 0.3}}), 422, "invalid_input")
    entry = next(entry for entry in document["errors"] if entry["field"] == "haeds")
    assert entry["nearest"] == "heads"
    assert "heads" in document["hint"]


def test_an_unknown_filter_is_refused_with_the_nearest_filter(ada: TestClient) -> None:
    document = problem(ada.get("/v1/jobs", params={"stat": "failed"}), 422, "invalid_input")
    assert document["errors"][0]["nearest"] == "state"


def test_per_cent_where_a_fraction_is_meant(ada: TestClient) -> None:
    document = problem(ada.post("/v1/jobs", json={"model": "m", "recipe": {"heads": 30}}), 422, "invalid_input")
    assert document["errors"][0]["nearest"] == "0.3"


@pytest.mark.parametrize("text", ["{", "[1,", "nonsense", '{"model": }', ""])
def test_what_is_not_json(ada: TestClient, text: str) -> None:
    response = ada.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have(ada: TestClient, number: str) -> None:
    text = '{"model": "m", "recipe": {"heads": ' + number + "}}"
    response = ada.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert problem(response, 422, "invalid_input")["errors"][0]["field"] == "heads"


@pytest.mark.parametrize("digits", [30, 400, 4000, 10_000])
def test_numbers_that_nothing_can_hold(ada: TestClient, digits: int) -> None:
    text = '{"model": "m", "recipe": {"heads": ' + "9" * digits + "}}"
    response = ada.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422), response.text  # Python's own parser refuses the longest
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", ['"\\ud800"', '"\\u0000"', '"a\\u0000b"'])
def test_characters_that_no_database_takes(ada: TestClient, name: str) -> None:
    text = '{"model": "m", "recipe": {"heads": 0.1}, "name": ' + name + "}"
    response = ada.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    problem(response, 422, "invalid_input")


def test_an_escaped_backslash_before_u0000_is_plain_text(ada: TestClient, model: str) -> None:
    text = '{"model": "' + model + '", "recipe": {"heads": 0.1}, "name": "\\\\u0000"}'
    response = ada.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert response.status_code == 202, response.text
    assert response.json()["name"] == "\\u0000"


def test_deep_nesting_is_refused_before_it_is_parsed(ada: TestClient) -> None:
    text = '{"model": ' + "[" * 5000 + "]" * 5000 + "}"
    response = ada.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert "nested" in problem(response, 422, "invalid_input")["detail"]


def test_brackets_inside_text_are_not_nesting(ada: TestClient, model: str) -> None:
    body = {"model": model, "recipe": {"heads": 0.1}, "name": "[{" * 90}
    assert ada.post("/v1/jobs", json=body).status_code == 202


def test_a_large_body_is_refused_by_its_declared_and_by_its_real_size(ada: TestClient) -> None:
    problem(ada.post("/v1/jobs", content=b"x" * 20_001), 413, "too_large")
    chunks = iter([b"x" * 15_000, b"x" * 15_000])
    problem(ada.post("/v1/jobs", content=chunks), 413, "too_large")


def test_unknown_routes_and_methods(ada: TestClient) -> None:
    problem(ada.get("/v1/nothing"), 404, "route_not_found")
    problem(ada.patch("/v1/jobs"), 405, "method_not_allowed")


def test_a_fault_says_nothing_about_itself(
    ada: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("postgresql://user:password@host")

    monkeypatch.setattr(services.jobs, "workers", broken)
    document = problem(ada.get("/v1/workers"), 500, "internal_error")
    assert "password" not in str(document)
