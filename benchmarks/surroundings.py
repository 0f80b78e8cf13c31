"""Databases, brokers, jobs and processes for the queue's benchmarks. Servers are the benchmark's own unless given by URL."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvicorn
from ulid import ULID

from prunectl.api.app import create_app
from prunectl.db import migrate
from prunectl.jobs.records import NewJob, Token
from prunectl.schemas import JobCreate, job_digest, spec_of
from prunectl.settings import Settings
from prunectl.wiring import build
from support.queue_stub import python_path
from support.servers import PostgresServer, RedisServer, free_port, fresh_database

ROOT = Path(__file__).resolve().parents[1]
MODEL = "xlm-roberta-base"


def end_well() -> None:
    """Have SIGTERM unwind as an exception does, so that the servers and workers that were started are ended."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))


@contextlib.contextmanager
def postgres(url: str | None) -> Iterator[str]:
    """URL of an empty, migrated database; commits reach the disk."""
    server = None if url else PostgresServer(durable=True)
    try:
        with fresh_database(url or server.url("postgres")) as database:  # type: ignore[union-attr]
            migrate.upgrade(database)
            yield database
    finally:
        if server is not None:
            server.close()


@contextlib.contextmanager
def redis(url: str | None) -> Iterator[str]:
    """URL of a Redis without persistence."""
    if url is not None:
        yield url
        return
    server = RedisServer()
    try:
        yield server.url
    finally:
        server.kill()


def bodies(number: int, *, salt: str) -> list[JobCreate]:
    """The jobs of a sweep over heads and FFN neurons, each with a seed of its own, so that no two are identical."""
    return [
        JobCreate(
            model=MODEL,
            recipe={"heads": (index % 10) / 20, "ffn": (index // 10 % 10) / 20, "seed": index},
            tags={"salt": salt},
        )
        for index in range(number)
    ]


def new_jobs(created: Sequence[JobCreate], *, owners: int = 1, priorities: int = 1) -> list[NewJob]:
    """What the service makes of request bodies: ids, digests, and the bodies as JSON."""
    made = []
    for index, body in enumerate(created):
        owner = f"owner-{index % owners}"
        made.append(
            NewJob(
                id=str(ULID()).lower(),
                owner=owner,
                queue="cpu",
                priority=index % priorities,
                spec=spec_of(body),
                digest=job_digest(owner, f"{body.tags}", body),
                recipe_digest=body.recipe.digest,
                model_name=body.model,
                model_identity="hub:benchmark",
                max_failures=body.retries,
                tags=dict(body.tags),
            )
        )
    return made


def result() -> dict[str, Any]:
    """The result of a job on a model of 12 layers, as large as a real one."""
    names = ("parameters", "nonzero_parameters", "macs", "model_bytes", "latency_p50_seconds", "latency_p95_seconds")
    quality = ("eval_loss", "eval_accuracy", "eval_f1", "eval_agreement")
    return {
        "model_digest": "sha256:" + "0" * 64,
        "metrics": {name: {"before": 278e6, "after": 255e6} for name in names}
        | {name: {"before": 0.747, "after": 0.741, "stderr": 0.0098, "n": 512} for name in quality}
        | {"speedup": {"after": 1.26}},
        "stages": [
            {"name": name, "seconds": 1.5, "reused": False}
            for name in ("fetch", "baseline", "score", "prune", "save", "reload", "evaluate", "benchmark")
        ],
        "structure": {
            "layers": [
                {"index": n, "heads_kept": list(range(8)), "heads_total": 12, "ffn_kept": 2150, "ffn_total": 3072}
                for n in range(12)
            ]
        },
        "artifacts": {"checkpoint": "file:///storage/runs/0/checkpoint"},
    }


@contextlib.contextmanager
def processes(number: int, *arguments: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """``number`` processes ``python -m ARGUMENTS``; ended at the end, with their children."""
    path = os.pathsep.join([python_path(), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(number)
    ]
    try:
        yield started
    finally:
        ours = [child for process in started for child in _tree(process.pid)]
        for process in started:
            process.terminate()
        _, left = psutil.wait_procs(ours, timeout=10)
        for process in left:
            process.kill()
        for process in started:
            process.wait()


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


@dataclass(frozen=True)
class Api:
    """A running service and the header that lets a caller in."""

    url: str
    headers: dict[str, str]


@contextlib.contextmanager
def api(settings: Settings, *, owner: str = "owner-0", scope: str = "admin") -> Iterator[Api]:
    """The real service over HTTP, in a thread of this process."""
    services, secret = build(settings), secrets.token_hex(16)
    token = Token(id=str(ULID()).lower(), name=owner, owner=owner, scopes=(scope,))
    services.tokens.add_token(token, hashlib.sha256(secret.encode()).hexdigest())
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings, services=services), port=port, log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the service")
    try:
        yield Api(f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {secret}"})
    finally:
        server.should_exit = True
        thread.join(10)


def wait_until(holds: Any, what: str, seconds: float = 60.0) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(0.02)
