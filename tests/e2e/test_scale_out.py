"""Redis, PostgreSQL, shared storage: three variables are the whole difference."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import models
from support.command import Prunectl
from support.servers import RedisServer, postgres_database, postgres_url, redis_server

__all__ = ["postgres_database", "postgres_url", "redis_server"]


@pytest.fixture
def service(tmp_path: Path, postgres_database: str, redis_server: RedisServer) -> Iterator[Prunectl]:
    """An API and two workers of one slot each, and a client that knows the address and a token alone."""
    models.build(tmp_path / "zoo" / "tiny", "xlm-roberta", "fill-mask", layers=3)
    host = Prunectl(
        tmp_path,
        env={
            "PRUNECTL_DATABASE_URL": postgres_database,
            "PRUNECTL_BROKER_URL": redis_server.url,
            "PRUNECTL_STORAGE_URL": str(tmp_path / "storage"),
            "PRUNECTL_MODEL_PATH": str(tmp_path / "zoo"),
        },
    )
    host.ok("migrate")
    token = host.ok("tokens", "create", "me", "--scope", "admin")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (tmp_path / "service.log").open("w")
    processes = [
        host.popen("api", "--port", str(port), stdout=log, stderr=log),
        host.popen("worker", "--queues", "cpu", "--name", "one", stdout=log, stderr=log),
        host.popen("worker", "--queues", "cpu", "--name", "two", stdout=log, stderr=log),
    ]
    assert host.run("worker", "--check").returncode == 1  # none has announced itself yet
    client = Prunectl(tmp_path, env={"PRUNECTL_API_URL": f"http://127.0.0.1:{port}", "PRUNECTL_API_TOKEN": token})
    try:
        deadline = time.monotonic() + 60
        while client.run("workers").returncode or len(client.json("workers")["items"]) < 2:
            assert time.monotonic() < deadline, (tmp_path / "service.log").read_text()
            time.sleep(0.5)
        host.ok("worker", "--check")
        yield client
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def test_two_workers_do_one_job_each_at_the_same_time(service: Prunectl) -> None:
    ids = [
        service.ok("submit", "--model", "tiny", "--heads", fraction, "--max-samples", "64")
        for fraction in ("0.25", "0.5")
    ]
    assert service.run("wait", *ids, timeout=180).returncode == 0
    jobs = service.json("show", *ids)["items"]
    assert {job["worker"] for job in jobs} == {"one", "two"}
    first, second = sorted(jobs, key=lambda job: job["started_at"])
    assert second["started_at"] < first["finished_at"]
    checks = service.json("doctor")
    assert all(check["ok"] for check in checks["items"]), checks
    outside = service.run("submit", "--model", str(service.home), "--heads", "0.3")
    assert outside.returncode == 2
