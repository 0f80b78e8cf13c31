"""Exit codes, misspellings, configuration, and services that are not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from prunectl.cli import client as client_module
from prunectl.cli import connection
from prunectl.cli.client import Client
from prunectl.cli.connection import load_settings, surroundings
from prunectl.cli.exits import OF_KIND, ExitCode, combined, outcome
from prunectl.errors import Conflict, InvalidInput, Kind, NotFound, PrunectlError, Unauthenticated, Unavailable


def test_every_kind_has_an_exit_code() -> None:
    assert set(OF_KIND) == set(Kind)


def test_outcomes() -> None:
    failed, cancelled, pending = {"state": "failed"}, {"state": "cancelled"}, {"state": "running"}
    gated, done = {"state": "succeeded", "gate": {"passed": False}}, {"state": "succeeded", "gate": None}
    assert [outcome(job) for job in (done, failed, cancelled, gated, pending)] == [0, 1, 7, 6, 8]
    assert combined([done, pending, gated]) == ExitCode.GATE_FAILED
    assert combined([pending, cancelled, failed]) == ExitCode.FAILED
    assert combined([]) == ExitCode.DONE


def test_a_misspelt_command_names_the_nearest(run: Any) -> None:
    ran = run("sumbit")
    assert ran.code == 2
    assert "'submit'" in ran.err


def test_a_missing_argument(run: Any) -> None:
    ran = run("show")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: missing argument")


def test_no_command_shows_the_help(run: Any) -> None:
    ran = run()
    assert "Usage: prunectl" in ran.out + ran.err


@pytest.mark.parametrize("url", ["localhost:8000", "/x", "http://host:port", "ftp://host"])
def test_an_api_url_that_is_none(run: Any, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("PRUNECTL_API_URL", url)
    ran = run("list")
    assert ran.code == 2, ran.err
    assert f"PRUNECTL_API_URL: {url!r}" in ran.err


@pytest.mark.parametrize("token", ["tök", "two\nlines"])
def test_a_token_that_can_be_none(run: Any, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("PRUNECTL_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("PRUNECTL_API_TOKEN", token)
    ran = run("list")
    assert ran.code == 4
    assert "PRUNECTL_API_TOKEN" in ran.err and token not in ran.err


def test_a_tokens_line_break_is_no_part_of_it() -> None:
    client = Client("http://testserver", " secret\n")
    assert client._http.headers["authorization"] == "Bearer secret"
    client.close()


def test_a_variable_that_is_empty_counts_as_unset(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNECTL_API_URL", "")
    monkeypatch.setenv("PRUNECTL_MODEL_PATH", "/zoo")
    origins = {item["variable"]: item["origin"] for item in json.loads(run("config", "--json").out)["items"]}
    assert (origins["PRUNECTL_API_URL"], origins["PRUNECTL_MODEL_PATH"]) == ("default", "environment")


def test_a_url_without_a_token_is_not_authorised(
    run: Any, service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def client(_settings: Any) -> Client:
        return Client("http://testserver", None, transport=service._transport)

    monkeypatch.setattr(connection, "_client", client)
    ran = run("list")
    assert ran.code == 4
    assert "PRUNECTL_API_TOKEN" in ran.err


@pytest.mark.parametrize("token", ["t", None])
def test_an_unreachable_service(run: Any, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    monkeypatch.setenv("PRUNECTL_API_URL", "http://127.0.0.1:9")
    monkeypatch.delenv("PRUNECTL_API_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("PRUNECTL_API_TOKEN", token)
    ran = run("list")
    assert (ran.code, ran.out) == (3, "")
    assert "hint: " in ran.err


def test_an_address_that_is_none(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNECTL_API_URL", "prunectl.example.org")
    monkeypatch.setenv("PRUNECTL_API_TOKEN", "t")
    ran = run("list")
    assert ran.code == 2
    assert "PRUNECTL_API_URL" in ran.err


def test_a_setting_that_can_not_be_read_names_its_variable(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNECTL_LEASE_SECONDS", "long")
    ran = run("config")
    assert ran.code == 2
    assert "PRUNECTL_LEASE_SECONDS='long'" in ran.err


def test_config_shows_where_each_value_came_from(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRUNECTL_HOME", str(tmp_path))
    monkeypatch.setenv("PRUNECTL_API_TOKEN", "very-secret")
    monkeypatch.setenv("PRUNECTL_DATABASE_URL", "postgresql://u:very-secret@h/d")
    out = run("config", "-o", "csv").out
    assert f"PRUNECTL_HOME,{tmp_path},environment" in out
    assert "PRUNECTL_MODEL_PATH,,default" in out
    assert "very-secret" not in out


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNECTL_HOME", "")
    assert load_settings().home.name == "prunectl"


def test_surroundings_are_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    found = surroundings(
        {"PRUNECTL_MODEL_PATH": "zoo:/models", "HF_HOME": "cache", "HF_HUB_OFFLINE": "1", "HF_TOKEN": "s"}
    )
    assert found == {
        "cwd": str(tmp_path),
        "model_path": [str(tmp_path / "zoo"), "/models"],
        "hf_home": str(tmp_path / "cache"),
        "hf_endpoint": None,
        "hf_hub_offline": True,
    }


def answering(*responses: httpx2.Response | Exception) -> tuple[Client, list[httpx2.Request]]:
    seen: list[httpx2.Request] = []
    queue = list(responses)

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        answer = queue.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Client("http://service", "t", transport=httpx2.MockTransport(handler)), seen


def problem(status: int, **more: Any) -> httpx2.Response:
    document = {"title": "T", "status": status, "detail": "what is wrong", "hint": "what helps", "code": "c", **more}
    return httpx2.Response(status, json=document, headers={"content-type": "application/problem+json"})


@pytest.fixture(autouse=True)
def no_pauses() -> Any:
    import stamina

    with stamina.set_testing(True, attempts=4, cap=True):
        yield


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthenticated),
        (404, NotFound),
        (409, Conflict),
        (422, InvalidInput),
        (503, Unavailable),
        (500, PrunectlError),
    ],
)
def test_problem_documents_become_domain_errors(status: int, kind: type[PrunectlError]) -> None:
    client, _ = answering(*(problem(status) for _ in range(4)))
    with pytest.raises(kind) as caught:
        client.job("abcd")
    assert (caught.value.message, caught.value.hint) == ("what is wrong", "what helps")


def test_a_lost_answer_is_asked_for_again_with_the_same_key() -> None:
    job = httpx2.Response(202, json={"id": "x", "state": "queued"})
    client, seen = answering(httpx2.ReadError("broke off"), problem(503), job)
    assert client.submit({"model": "m"})[0]["id"] == "x"
    keys = {request.headers["Idempotency-Key"] for request in seen}
    assert (len(seen), len(keys)) == (3, 1)


def test_what_is_not_safe_to_repeat_is_sent_once() -> None:
    client, seen = answering(httpx2.ReadError("broke off"))
    with pytest.raises(Unavailable):
        client.retry("abcd")
    assert len(seen) == 1


@pytest.mark.parametrize(
    "response", [httpx2.Response(200, text="<html>"), httpx2.Response(404, text="nginx"), httpx2.Response(200, json=[])]
)
def test_a_stranger_at_the_address(response: httpx2.Response) -> None:
    client, _ = answering(*[response] * 4)
    with pytest.raises(Unavailable, match="prunectl"):
        client.job("abcd")


def test_the_hub_token_goes_to_the_embedded_stack_alone() -> None:
    client, seen = answering(httpx2.Response(202, json={"id": "x"}), httpx2.Response(202, json={"id": "x"}))
    client._hub_token = "hf_secret"
    client.submit({"model": "m"})
    client.environment = {"cwd": "/"}
    client.submit({"model": "m"})
    assert [request.headers.get("X-Hub-Token") for request in seen] == [None, "hf_secret"]
    assert client_module.ATTEMPTS > 1
