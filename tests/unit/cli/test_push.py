"""``push`` and ``card``: a checkpoint on the Hub as it is in storage, and its card on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from support import service as support
from support.hub_server import HubServer
from support.service import sums

pytestmark = pytest.mark.usefixtures("service")

CARD = b"---\nbase_model: acme/base\n---\n# Pruned\n"
FILES = sums({"config.json": b"{}", "model.safetensors": b"weights" * 1000, "README.md": CARD})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer().running() as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


@pytest.fixture
def succeed(run: Any, services: Any, model: str) -> Any:
    def publish(files: dict[str, bytes] | None = None) -> str:
        run("submit", "-m", model, "--heads", "0.3", "--force")
        return support.succeed(services, files=files)

    return publish


def test_a_push_makes_the_repository_and_a_second_one_adds_a_commit(run: Any, succeed: Any, hub: HubServer) -> None:
    job_id = succeed(FILES)
    ran = run("push", job_id, "acme/small", "--private", "-m", "Small one")
    assert ran.code == 0, ran.err
    pushed = hub.repositories["acme/small"]
    assert pushed.files == FILES
    assert pushed.private
    assert hub.messages == ["Small one"]
    assert ran.lines == [f"{hub.endpoint}/acme/small/commit/{pushed.commit}"]
    other = succeed(sums({"config.json": b"[1]"}))
    assert run("push", other, "acme/small").code == 0
    assert hub.repositories["acme/small"].files["config.json"] == b"[1]"
    assert other in hub.messages[1]


def test_a_dry_run_asks_the_hub_nothing(run: Any, succeed: Any, hub: HubServer) -> None:
    job_id = succeed(FILES)
    assert run("push", job_id, "acme/small", "--dry-run", "-q").lines == sorted(FILES)
    table = run("push", job_id, "acme/small", "--dry-run").lines
    assert any("model.safetensors" in line and "7kB" in line for line in table)
    assert hub.requests == []


def test_a_push_in_other_formats(run: Any, succeed: Any, hub: HubServer) -> None:
    job_id = succeed(FILES)
    shown = json.loads(run("push", job_id, "acme/small", "--json").out)
    address = f"{hub.endpoint}/acme/small/commit/{hub.repositories['acme/small'].commit}"
    assert shown == {"schema_version": 1, "id": job_id, "repo": "acme/small", "url": address}
    assert run("push", job_id, "acme/other", "-q").lines == [job_id]
    assert run("push", job_id, "acme/third", "-o", "jsn").code == 2
    assert "acme/third" not in hub.repositories


def test_a_dry_run_refuses_the_name_that_a_push_would(run: Any, succeed: Any) -> None:
    ran = run("push", succeed(FILES), "small", "--dry-run")
    assert (ran.code, ran.out) == (2, "")
    assert "org/name" in ran.err


@pytest.mark.parametrize(
    ("token", "repo", "code", "said"),
    [("hf_wrong", "acme/small", 4, "HF_TOKEN"), ("hf_right", "small", 2, "org/name"), ("hf_right", "a/b/c", 2, "repo")],
)
def test_what_the_hub_refuses(
    run: Any, succeed: Any, hub: HubServer, monkeypatch: pytest.MonkeyPatch, token: str, repo: str, code: int, said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    ran = run("push", succeed(FILES), repo)
    assert (ran.code, said in ran.err) == (code, True), ran.err
    assert hub.repositories == {}


@pytest.mark.parametrize(("status", "code"), [(400, 1), (404, 1), (429, 3), (500, 3)])
def test_what_the_hub_answers_instead(
    run: Any, succeed: Any, hub: HubServer, monkeypatch: pytest.MonkeyPatch, status: int, code: int
) -> None:
    def answer(*_: Any, **__: Any) -> None:
        request = httpx2.Request("POST", f"{hub.endpoint}/api/repos/create")
        raise HfHubHTTPError("base_model is not valid", response=httpx2.Response(status, request=request))

    monkeypatch.setattr(HfApi, "create_repo", answer)
    ran = run("push", succeed(FILES), "acme/small")
    assert ran.code == code
    assert str(status) in ran.err
    assert ("base_model is not valid" in ran.err) is (code == 1)


def test_no_hub(run: Any, succeed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "t")
    ran = run("push", succeed(FILES), "acme/small")
    assert ran.code == 3
    assert "can't be reached" in ran.err


def test_the_card_is_printed_and_a_job_without_one_has_none(run: Any, succeed: Any) -> None:
    job_id = succeed(FILES)
    assert run("card", job_id).out.encode() == CARD
    shown = json.loads(run("card", job_id, "-o", "json").out)
    assert shown == {"schema_version": 1, "id": job_id, "card": CARD.decode()}
    assert run("card", succeed()).code == 5
