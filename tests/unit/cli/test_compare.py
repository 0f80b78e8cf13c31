"""``compare``, ``list --pareto`` and their routes."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from prunectl.wiring import Services
from support import service as support


def measured(services: Services, accuracy: float, latency: float, *, passed: bool | None = None) -> str:
    """End the next job with these figures."""
    lease = support.claim(services)
    result = support.result({}, passed)
    result["metrics"]["eval_accuracy"]["after"] = accuracy
    result["metrics"]["latency_p50_seconds"]["after"] = latency
    assert services.store.succeed(lease, result)
    return lease.job_id


@pytest.fixture
def sweep(service: TestClient, run: Any, services: Services, model: str) -> tuple[str, list[str]]:
    """Four jobs: a good one, a fast one, one that both beat, and one that is queued."""
    sweep_id = run("sweep", "-m", model, "--heads", "0.1:0.4:0.1").lines[0]
    ended = [
        measured(services, 0.741, 0.0089, passed=True),
        measured(services, 0.702, 0.0071, passed=False),
        measured(services, 0.690, 0.0095),
    ]
    return sweep_id, ended


def test_the_table_has_the_baseline_first_and_marks_what_is_no_difference(
    run: Any, sweep: tuple[str, list[str]]
) -> None:
    sweep_id, ids = sweep
    ran = run("compare", *ids, "--metrics", "eval_accuracy,latency_p50_seconds,speedup")
    header, base, *rows = ran.lines
    assert header.split() == ["ID", "RECIPE", "EVAL_ACCURACY", "LATENCY_P50_SECONDS", "SPEEDUP", "GATE"]
    assert base.split() == ["base", "-", "0.747", "11.2ms", "-", "-"]
    assert rows[0].split() == ["*", ids[0], "h.10", "0.741", "±0.0098", "~", "8.9ms", "(-21%)", "1.26x", "passed"]
    assert rows[1].split()[3:6] == ["0.702", "±0.0098", "(-0.045)"]
    assert rows[1].startswith("* ") and rows[1].endswith("FAILED")
    assert not rows[2].startswith("* ")
    every = run("compare", "--sweep", sweep_id)
    assert every.lines[-1].endswith("queued")
    assert "MODEL_BYTES" in every.lines[0]


def test_the_gate_is_the_exit_code(run: Any, sweep: tuple[str, list[str]]) -> None:
    sweep_id, ids = sweep
    assert run("compare", *ids).code == 0
    assert run("compare", *ids, "--gate").code == 6
    assert run("compare", ids[0], "--gate").code == 0
    assert run("compare", "--sweep", sweep_id, "--gate").code == 6


def test_machine_formats(run: Any, sweep: tuple[str, list[str]]) -> None:
    sweep_id, ids = sweep
    document = json.loads(run("compare", *ids, "-o", "json").out)
    assert (document["schema_version"], document["x"], document["y"]) == (1, "latency_p50_seconds", "eval_accuracy")
    first = document["items"][0]
    assert first["differences"]["eval_accuracy"] == pytest.approx(
        {"delta": -0.006, "relative": -0.006 / 0.747, "within_error": True}
    )
    assert first["metrics"]["eval_accuracy"]["n"] == 2000
    assert [item["front"] for item in document["items"]] == [True, True, False]
    assert run("compare", *ids, "-q").lines == ids
    rows = list(csv.DictReader(io.StringIO(run("compare", *ids, "-o", "csv").out)))
    assert (rows[1]["eval_accuracy.after"], rows[1]["eval_accuracy.within_error"]) == ("0.702", "False")


def test_pareto(run: Any, service: TestClient, sweep: tuple[str, list[str]]) -> None:
    sweep_id, ids = sweep
    assert set(run("list", "--sweep", sweep_id, "--pareto", "-q").lines) == set(ids[:2])
    ada = {"Authorization": "Bearer ada-secret"}
    answer = service.get(f"/v1/sweeps/{sweep_id}/pareto", headers=ada).json()
    assert (answer["x"], answer["y"]) == ("latency_p50_seconds", "eval_accuracy")
    assert [(point["id"], point["front"]) for point in answer["items"]] == [
        (ids[1], True), (ids[0], True), (ids[2], False),
    ]  # fmt: skip
    by_size = service.get(f"/v1/sweeps/{sweep_id}/pareto", params={"x": "parameters"}, headers=ada).json()
    assert [point["id"] for point in by_size["items"] if point["front"]] == [ids[0]]  # all are of one size
    ben = {"Authorization": "Bearer ben-secret"}
    assert service.get(f"/v1/sweeps/{sweep_id}/pareto", headers=ben).status_code == 404
    assert service.get("/v1/compare", params={"ids": ids[0]}, headers=ben).status_code == 404


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), 2), (("abcd", "--sweep", "abcd"), 2), (("nothing1",), 5), (("nothing1", "--metrics", "beauty"), 2)],
)
@pytest.mark.usefixtures("service")
def test_wrong_use(run: Any, arguments: tuple[str, ...], code: int) -> None:
    ran = run("compare", *arguments)
    assert ran.code == code
    assert ran.out == ""
