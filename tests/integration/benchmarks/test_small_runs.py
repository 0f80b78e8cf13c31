"""Each benchmark in small: it runs, and ends with the JSON line that scripts read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.models import build
from support.queue_stub import python_path
from support.servers import RedisServer

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[3]


def run(tmp_path: Path, name: str, *arguments: str) -> dict[str, Any]:
    output = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments, "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{python_path()}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads(output.read_text())
    assert document["benchmark"] == name
    assert document["machine"] and document["versions"]["python"]
    assert document["results"]
    for result in document["results"]:
        assert result["ours"] >= 0 and result["unit"] and len(result["spread"]) == 2
        assert (result["target"] is None) == (result["met"] is None)
        assert (result["peer"] is None) == (result["theirs"] is None) == (result["ratio"] is None)
    return document


def test_queue(tmp_path: Path, postgres_url: str, redis_server: RedisServer) -> None:
    arguments = ("--jobs", "300", "--rounds", "1", "--seconds", "1", "--only", "accept", "claim")
    document = run(tmp_path, "queue", *arguments, "--postgres", postgres_url, "--redis", redis_server.url)
    assert [result["unit"] for result in document["results"]] == ["s", "s", "jobs/s", "ms"]
    assert document["results"][2]["ours"] > 0


def test_list(tmp_path: Path, postgres_url: str) -> None:
    document = run(tmp_path, "list", "--rows", "2000", "--rounds", "2", "--postgres", postgres_url)
    assert {result["measure"].split(",")[0] for result in document["results"]} == {"postgresql", "sqlite"}


def test_scale(tmp_path: Path, postgres_url: str, redis_server: RedisServer) -> None:
    arguments = ("--workers", "3", "--times", "2", "--seconds", "2", "--job-seconds", "0.5")
    run(tmp_path, "scale", *arguments, "--postgres", postgres_url, "--redis", redis_server.url)


def test_quantized(tmp_path: Path) -> None:
    build(tmp_path / "classifier", "bert", "text-classification", id2label=dict(enumerate(map(str, range(16)))))
    arguments = ("--held-out", "32", "--rounds", "2", "--seq", "16", "--cache", str(tmp_path / "classifier"))
    document = run(tmp_path, "quantized", *arguments)
    kinds = ("torch", "ONNX", "int8", "static int8")
    expected = [f"{side}, {kind}" for side in ("unpruned", "pruned") for kind in kinds]
    assert [result["measure"] for result in document["results"]] == expected
    for result in document["results"]:
        assert (result["max_abs_error"] > 0) == (result["peer"] != "unpruned, torch")
        assert 0 < result["mean_abs_error"] < 0.1 or result["peer"] == "unpruned, torch"


def test_structure(tmp_path: Path) -> None:
    small = ("--layers", "2", "--texts", "4", "--rounds", "1", "--batch", "1", "--calls", "3")
    quality = ("--training", "200", "--calibration", "64", "--held-out", "100", "--cache", str(tmp_path / "classifier"))
    results = {result["measure"]: result for result in run(tmp_path, "structure", *small, *quality)["results"]}
    assert results["multiply-adds"]["ratio"] == 1
    said = results["saved and opened again: largest difference"]
    assert said["ours"] < 1e-4
    assert "Torch-Pruning, `save_pretrained`, `from_pretrained`: fails, RuntimeError" in said["note"]
