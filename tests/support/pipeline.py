"""The runner's pipeline in this process: a recipe on a model directory, without queue, database or service."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from prunectl.jobs.lookup import upload_name
from prunectl.schemas import Result
from prunectl.storage import open_storage
from prunectl.worker import pipeline
from prunectl.worker.assignment import Assignment
from prunectl.worker.report import Report


def run(
    model: Path,
    recipe: dict[str, Any],
    home: Path,
    *,
    environment: dict[str, Any] | None = None,
    device: str = "cpu",
    **evaluation: Any,
) -> tuple[Result, Path]:
    """(what the job found, its checkpoint directory). ``environment``: of the submitting command, besides where it is."""
    scratch, storage = home / "scratch", home / "storage"
    scratch.mkdir(parents=True, exist_ok=True)
    storage.mkdir(exist_ok=True)
    spec = {"model": str(model), "recipe": recipe, "evaluation": {"max_samples": 24, "bench_seq": 16, **evaluation}}
    assignment = Assignment(
        job_id=uuid.uuid4().hex,
        attempt=1,
        lease_token="token",
        spec={**spec, "environment": {"cwd": str(home), **(environment or {})}},
        model_identity="",
        model_name=str(model),
        device=device,
        storage_url=str(storage),
        scratch=str(scratch),
        threads=1,
        embedded=True,
    )
    with open(os.devnull, "wb") as sink:
        result = pipeline.run(assignment, Report(sink.fileno()))
    assert isinstance(result, Result), "a search needs a queue"
    return result, Path(unquote(urlparse(result.artifacts["checkpoint"]).path))


def upload(home: Path, content: str | bytes, name: str = "corpus.txt") -> str:
    """Put a file where uploads lie; its reference, as a command that sent it would have it."""
    content = content.encode() if isinstance(content, str) else content
    digest = hashlib.sha256(content).hexdigest()
    (home / "storage").mkdir(parents=True, exist_ok=True)
    open_storage(str(home / "storage")).write_stream(upload_name(digest), iter([content]))
    return f"upload:sha256:{digest}/{name}"
