"""Callers who mean no good: broken bodies, tokens that are wrong or not enough, and paths that lead elsewhere.

Routes are read from the API's own description, so that a new one is tried as well.
"""

from __future__ import annotations

import copy
import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from prunectl.jobs.records import JobQuery, Token
from prunectl.settings import Settings
from prunectl.wiring import Services
from support.service import SECRETS, config_only, memory_app, memory_services, succeed

OPEN = {"/healthz", "/readyz"}
READS = {"/v1/jobs:plan", "/v1/models:inspect"}
"""POSTs that change nothing."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config_only(tmp_path / "zoo" / "tiny")
    (tmp_path / "secret").write_text("root:x:0:0")
    (tmp_path / "home" / "storage").mkdir(parents=True)
    (tmp_path / "home" / "storage" / "token").write_text("root:x:0:0")
    return Settings(home=tmp_path / "home", model_path=str(tmp_path / "zoo"))


@pytest.fixture
def services(settings: Settings) -> Services:
    return memory_services(settings)


@pytest.fixture
def app(settings: Settings, services: Services) -> Iterator[TestClient]:
    with TestClient(memory_app(settings, services), raise_server_exceptions=False) as client:
        yield client


def headers(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def operations(app: TestClient) -> list[tuple[str, str]]:
    document = app.get("/openapi.json", headers=headers(SECRETS["root"])).json()
    methods = {"get", "head", "post", "put", "patch", "delete"}
    found = [(method.upper(), path) for path, item in document["paths"].items() for method in item if method in methods]
    assert len(found) > 20
    return found


def job_count(services: Services) -> int:
    return len(services.store.page(JobQuery(limit=500)).items)


def ask(app: TestClient, method: str, path: str, who: str | None, **more: Any) -> Any:
    return app.request(method, path, headers=headers(SECRETS[who]) if who else {}, **more)


def test_no_route_answers_a_token_that_is_missing_wrong_expired_or_revoked(app: TestClient, services: Services) -> None:
    late = Token(id="t-late", name="late", owner="ada", scopes=("admin",), expires_at=1.0)
    services.tokens.add_token(late, hashlib.sha256(b"late-secret").hexdigest())
    gone = Token(id="t-gone", name="gone", owner="ada", scopes=("admin",))
    services.tokens.add_token(gone, hashlib.sha256(b"gone-secret").hexdigest())
    assert app.get("/version", headers=headers("gone-secret")).status_code == 200
    services.tokens.revoke_token("t-gone")
    for method, path in operations(app):
        if path in OPEN:
            continue
        concrete = re.sub(r"{[^}]+}", "abcd", path)
        for given in ({}, headers("wrong"), headers("late-secret"), headers("gone-secret"), headers("")):
            response = app.request(method, concrete, headers=given, content=b"{")
            assert response.status_code == 401, (method, path, given)
            assert method == "HEAD" or response.json()["code"] == "unauthenticated"


def test_a_read_token_changes_nothing_on_any_route(app: TestClient, services: Services) -> None:
    job = ask(app, "POST", "/v1/jobs", "ada", json={"model": "tiny", "recipe": {"heads": 0.3}}).json()
    mine = Token(id="t-mine", name="mine", owner="ada", scopes=("read",))
    services.tokens.add_token(mine, hashlib.sha256(b"mine-secret").hexdigest())
    before = services.store.get(job["id"])
    for method, path in operations(app):
        if method in ("GET", "HEAD") or path in READS:
            continue
        concrete = re.sub(r"{[^}]+}", job["id"], path).replace(f"uploads/{job['id']}", "uploads/" + "a" * 64)
        body = {"text": "a"} if path.endswith("/attention") else {"model": "tiny", "recipe": {"heads": 0.2}}
        response = app.request(method, concrete, headers=headers("mine-secret"), json=body)
        # A route whose body this is not may say so first.
        assert response.status_code in (403, 422), (method, path, response.text)
        if "sweep" not in path:
            assert response.status_code == 403, (method, path, response.text)
    assert services.store.get(job["id"]) == before
    assert job_count(services) == 1


def test_another_owners_job_is_not_there_on_any_route_but_for_admins(app: TestClient, services: Services) -> None:
    ask(app, "POST", "/v1/jobs", "ada", json={"model": "tiny", "recipe": {"heads": 0.3}})
    job_id = succeed(services, files={"config.json": b"{}"})
    routes = [(method, path) for method, path in operations(app) if "/jobs/{" in path]
    assert len(routes) >= 9
    for method, path in routes:
        concrete = re.sub(r"{path[^}]*}", "config.json", path)
        concrete = re.sub(r"{[^}]+}", job_id, concrete)
        response = ask(app, method, concrete, "ben", **({"json": {"text": "a"}} if path.endswith("/attention") else {}))
        assert response.status_code == 404, (method, path, response.text)
        assert job_id not in response.text.replace(concrete, "").replace(f"'{job_id}'", ""), response.text
        if method == "GET":
            assert ask(app, method, concrete, "root").status_code == 200, (method, path)
            assert ask(app, method, concrete, "ada").status_code == 200, (method, path)
    assert services.store.get(job_id) is not None


OUTSIDE = [
    "../secret",
    "../../secret",
    "..%2f..%2fsecret",
    "..%2F..%2F..%2F..%2F..%2F..%2Fetc%2Fpasswd",
    "%2e%2e/%2e%2e/token",
    "%2e%2e%2f%2e%2e%2ftoken",
    "....//....//secret",
    "..%5c..%5csecret",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "file:%2f%2f%2fetc%2fpasswd",
    "~root",
    "a/../../../token",
    "config.json%2f..%2f..%2f..%2f..%2ftoken",
    ".tmp-x",
    "..",
    "%2e%2e",
    ".",
    "%00",
    "a%00b",
    "%0a",
    "%ff%fe",
    "%c0%ae%c0%ae/secret",
    "x" * 5000,
    "%25%32%65%25%32%65%2fsecret",
    "'; DROP TABLE jobs; --",
    "%25",
    "*",
    "?",
]


@pytest.mark.parametrize("who", ["ada", pytest.param("root", marks=pytest.mark.slow)])
def test_no_path_parameter_leads_anywhere_else(app: TestClient, services: Services, who: str) -> None:
    ask(app, "POST", "/v1/jobs", "ada", json={"model": "tiny", "recipe": {"heads": 0.3}})
    job_id = succeed(services, files={"config.json": b"{}"})
    tried = 0
    for method, path in operations(app):
        parameters = re.findall(r"{[^}]+}", path)
        for parameter in parameters:
            for text in OUTSIDE:
                concrete = path.replace(parameter, text)
                if "{path" in concrete:
                    concrete = re.sub(r"{path[^}]*}", "config.json", concrete)
                concrete = re.sub(r"{[^}]+}", job_id, concrete)
                response = ask(app, method, concrete, who)
                tried += 1
                assert response.status_code < 500, (method, concrete, response.text)
                assert "root:x:0:0" not in response.text, (method, concrete)
                if response.status_code < 400:
                    # What a client's own normalisation makes of it may be another route; never a file.
                    assert response.headers["content-type"].startswith("application/json"), (method, concrete)
    assert tried > 300
    assert services.store.get(job_id) is not None


@pytest.mark.parametrize("bodies", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_malformed_bodies(app: TestClient, services: Services, bodies: int) -> None:
    chance = random.Random(7)
    valid = {
        "model": "tiny",
        "recipe": {"heads": 0.3, "ffn": 0.25, "scorer": "taylor", "seed": 1},
        "evaluation": {"max_samples": 16, "bench_batch": [1], "bench_seq": 16},
        "priority": 1,
        "tags": {"team": "a"},
        "name": "x",
        "retries": 2,
    }
    created, statuses = 0, set()
    for number in range(bodies):
        body = malformed(valid, chance)
        target = "/v1/jobs" if number % 4 else "/v1/jobs:plan"
        kind = chance.choice(
            ["application/json", "application/json", "text/plain", "", "multipart/form-data; boundary=x"]
        )
        given = {**headers(SECRETS["ada"]), "Content-Type": kind}
        response = app.post(target, content=body, headers=given)
        statuses.add(response.status_code)
        assert response.status_code < 500, (body, response.text)
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json", body
            document = response.json()
            assert document["code"] and document["status"] == response.status_code, body
        elif response.status_code == 202 and "prunectl-existing" not in response.headers:
            created += 1
    assert job_count(services) == created
    assert {422} <= statuses
    assert created < bodies / 4, "most of them are malformed"


ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    10**400,
    0.1 + 0.2,
    "",
    " ",
    "\u202e",
    "a" * 10_000,
    "\ud800",
    "null",
    [],
    [[]],
    {},
    {"": 1},
    {"$ref": "#"},
    "__import__('os').system('true')",
    ["tiny"] * 500,
]


def malformed(valid: dict[str, Any], chance: random.Random) -> bytes:
    """``valid`` with something wrong: another type, a surplus or missing field, or bytes that are no JSON."""
    document: dict[str, Any] = copy.deepcopy(valid)
    how = chance.randrange(8)
    if how <= 3:
        place = chance.choice([document, document["recipe"], document["evaluation"], document["tags"]])
        place[chance.choice([*place, "extra", "__proto__", "environment"])] = chance.choice(ODD)
        return json.dumps(document).encode()
    if how == 4:
        document.pop(chance.choice(["model", "recipe"]))
        return json.dumps(document).encode()
    text = bytearray(json.dumps(document).encode())
    if how == 5:
        return bytes(text[: chance.randrange(len(text))])
    if how == 6:
        for _ in range(chance.randrange(1, 6)):
            text[chance.randrange(len(text))] = chance.randrange(256)
        return bytes(text)
    return chance.choice(
        [
            b"",
            b"[]",
            b"null",
            b"\xff\xfe{",
            json.dumps(document).encode("utf-16"),
            b'{"model": ' * 40,
            b"[" * 4000,
            b'{"model": "tiny", "model": 3, "recipe": {"heads": 0.3}}',
            b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--",
            chance.randbytes(200),
            b'{"model": "tiny", "recipe": ' + b"9" * 5000 + b"}",
        ]
    )
