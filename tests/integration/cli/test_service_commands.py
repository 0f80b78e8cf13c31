"""``migrate``, ``tokens`` and ``api`` on a service's own machine, and the command line as its remote client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRUNECTL_")}
    return {
        **kept,
        "PRUNECTL_HOME": str(tmp_path / "home"),
        "PRUNECTL_DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite",
        "PRUNECTL_STORAGE_URL": str(tmp_path / "storage"),
    }


@pytest.fixture
def run(variables: dict[str, str]) -> Run:
    def run_command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "prunectl.cli.main", *arguments]
        return subprocess.run(command, env={**variables, **more}, capture_output=True, text=True, timeout=60)

    return run_command


def test_a_service_from_nothing_to_a_remote_client(run: Run, variables: dict[str, str]) -> None:
    refused = run("tokens", "create", "ci", "--scope", "submit")
    assert refused.returncode == 3
    assert "prunectl migrate" in refused.stderr

    migrated = run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    secret = run("tokens", "create", "ci", "--scope", "submit").stdout.strip()
    assert len(secret) > 40
    assert len(secret.split()) == 1
    limited = run("tokens", "create", "batch", "--scope", "submit", "--owner", "ci", "--max-running", "3")
    assert limited.returncode == 0, limited.stderr
    misspelt = run("tokens", "create", "ci", "--scope", "submitt")
    assert misspelt.returncode == 2
    assert "did you mean submit?" in misspelt.stderr
    made = json.loads(run("tokens", "create", "ro", "--scope", "read", "--json").stdout)
    assert (made["name"], made["scopes"], len(made["token"])) == ("ro", ["read"], len(secret))
    listed = run("tokens", "list", "-o", "json").stdout
    assert '"name": "ci"' in listed
    assert secret not in listed

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    api = subprocess.Popen([sys.executable, "-m", "prunectl.cli.main", "api", "--port", str(port)], env=variables)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(url)
        remote = {"PRUNECTL_API_URL": url, "PRUNECTL_API_TOKEN": secret}
        listed = run("list", "-o", "json", **remote)
        assert listed.returncode == 0, listed.stderr
        assert run("list", **{**remote, "PRUNECTL_API_TOKEN": "wrong"}).returncode == 4
        assert run("quotas", "-o", "csv", **remote).stdout.splitlines()[1:] == ["ci,0,0,3,owner"]
        assert run("tokens", "limit", "ci", "none").returncode == 0
        assert run("quotas", "-o", "csv", **remote).stdout.splitlines()[1:] == ["ci,0,0,,"]
        assert run("tokens", "limit", "ci", "many").returncode == 2
        # On a service, a directory is only a model inside a zoo root.
        outside = run("submit", "--model", "/etc", "--heads", "0.3", **remote)
        assert (outside.returncode, outside.stdout) == (2, "")
        held = run("tokens", "limit", "ci", "0", "--json").stdout
        assert json.loads(held) == {"schema_version": 1, "id": "ci", "max_running": 0}
        revoked = run("tokens", "revoke", "ci", "--json")
        assert json.loads(revoked.stdout)["name"] == "ci", revoked.stderr
        assert run("list", **remote).returncode == 4
    finally:
        api.terminate()
        assert api.wait(timeout=30) in (0, -15)


def wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx2.get(f"{url}/healthz", trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            assert time.monotonic() < deadline, "the service does not answer"
        time.sleep(0.1)


def test_migrate_goes_back_and_forth(run: Run) -> None:
    head = run("migrate").stdout.strip()
    assert head
    assert run("migrate", "--down", "base").stdout.strip() == "base"
    assert json.loads(run("migrate", "--json").stdout) == {"schema_version": 1, "id": head}
    assert run("migrate", "--revision", "nonsense").returncode == 2
