"""The real job service and API over the in-memory twins: no server, no database file, no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from prunectl.api.app import create_app
from prunectl.db.session import make_engine
from prunectl.errors import FailureClass
from prunectl.jobs.doctor import Doctor
from prunectl.jobs.memory import (
    MemoryDoorbell,
    MemoryIdempotencyStore,
    MemoryJobStore,
    MemoryTokenStore,
    MemoryWorkerStore,
)
from prunectl.jobs.memory_searches import MemorySearchStore
from prunectl.jobs.memory_standing import MemoryLimitStore, MemoryStandingStore
from prunectl.jobs.memory_sweeps import MemorySweepStore
from prunectl.jobs.model import Failure, Lease
from prunectl.jobs.ports import NoJobEvents
from prunectl.jobs.records import Token
from prunectl.settings import Settings
from prunectl.storage import open_storage
from prunectl.wiring import Services, assemble

SECRETS = {"ada": "ada-secret", "ben": "ben-secret", "reader": "reader-secret", "root": "root-secret"}
SCOPES = {"ada": "submit", "ben": "submit", "reader": "read", "root": "admin"}


def memory_services(settings: Settings) -> Services:
    """Services over memory and a local storage under ``settings.home``, with a token for each of `SECRETS`."""
    store, workers, tokens, doorbell = MemoryJobStore(), MemoryWorkerStore(), MemoryTokenStore(), MemoryDoorbell()
    storage = open_storage(settings.storage)
    doctor = Doctor(
        store=store,
        workers=workers,
        storage=storage,
        revision=lambda: ("1", "1"),
        ping_broker=lambda: None,
        settings=settings,
    )
    for name, secret in SECRETS.items():
        token = Token(id=f"t-{name}", name=name, owner=name, scopes=(SCOPES[name],))
        tokens.add_token(token, hashlib.sha256(secret.encode()).hexdigest())
    sweeps = MemorySweepStore(store)
    return assemble(
        settings,
        store=store,
        sweeps=sweeps,
        standings=MemoryStandingStore(store),
        limits=MemoryLimitStore(store),
        workers=workers,
        tokens=tokens,
        idempotency=MemoryIdempotencyStore(store),
        doorbell=doorbell,
        events=NoJobEvents(),
        storage=storage,
        doctor=doctor,
        engine=make_engine("sqlite:///:memory:"),
        searches=MemorySearchStore(store, sweeps),
    )


def memory_app(settings: Settings, services: Services) -> FastAPI:
    return create_app(settings, services=services, instance="test-instance")


def config_only(directory: Path) -> Path:
    """A model directory that holds a ``config.json`` and nothing else: all that the service reads."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "hidden_size": 32,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "type_vocab_size": 2,
        "vocab_size": 100,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def claim(services: Services) -> Lease:
    """Claim the best queued job as a worker would."""
    job = services.store.claim(["cpu"], worker="w1", device="cpu", lease_seconds=60)
    assert job is not None, "no job is claimable"
    return job.lease


def succeed(services: Services, *, gate: bool | None = None, files: dict[str, bytes] | None = None) -> str:
    """Run the next job to its end, publishing ``files`` as its checkpoint; its id."""
    lease = claim(services)
    artifacts = {}
    if files is not None:
        name = f"runs/{lease.job_id}/1-x/checkpoint"
        for path, data in files.items():
            services.storage.write(f"{name}/{path}", data)
        artifacts["checkpoint"] = services.storage.uri(name)
        if "curve.json" in files:
            artifacts["curve"] = services.storage.uri(f"{name}/curve.json")
    assert services.store.succeed(lease, result(artifacts, gate))
    return lease.job_id


def sums(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with the SHA256SUMS that goes with them."""
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    return {**files, "SHA256SUMS": lines.encode()}


def fail(services: Services, code: str = "weights_corrupt") -> str:
    lease = claim(services)
    assert services.store.fail(
        lease, Failure(FailureClass.USER_ERROR, code, "the weights are torn", "fetch them again")
    )
    return lease.job_id


def result(artifacts: dict[str, str], gate: bool | None = None) -> dict[str, Any]:
    verdict = None
    if gate is not None:
        condition = {"metric": "eval_accuracy", "op": ">=", "limit": 0.7, "value": 0.741, "passed": gate}
        verdict = {"passed": gate, "conditions": [condition]}
    return {
        "model_digest": "sha256:" + "0" * 64,
        "metrics": {
            "parameters": {"before": 278_000_000, "after": 255_400_000},
            "model_bytes": {"before": 1_110_000_000, "after": 1_020_000_000},
            "latency_p50_seconds": {"before": 0.0112, "after": 0.0089},
            "eval_accuracy": {"before": 0.747, "after": 0.741, "stderr": 0.0098, "n": 2000},
            "speedup": {"after": 1.26},
        },
        "stages": [{"name": "fetch", "seconds": 0.2, "reused": True}, {"name": "prune", "seconds": 12.5}],
        "structure": {
            "layers": [
                {"index": 0, "heads_kept": [0, 2], "heads_total": 4, "ffn_kept": 48, "ffn_total": 64},
                {"index": 1, "heads_kept": [], "heads_total": 4, "ffn_kept": 0, "ffn_total": 64},
            ]
        },
        "artifacts": artifacts,
        "gate": verdict,
        "labels": "text",
    }
