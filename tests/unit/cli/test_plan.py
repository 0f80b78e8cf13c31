"""``plan --curve``: the solver's points of one job."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prunectl.wiring import Services
from support import service as support

pytestmark = pytest.mark.usefixtures("service")

POINT = {
    "target_macs": 0.5,
    "macs": 480,
    "macs_total": 1000,
    "importance_kept": 0.913,
    "heads_kept": [3, 0],
    "ffn_kept": [40, 8],
}
CURVE = json.dumps({"schema_version": 1, "seq": 16, "points": [POINT]}).encode()


def test_the_points_of_a_job(run: Any, services: Services, model: str) -> None:
    run("submit", "-m", model, "--target-macs", "0.5")
    job_id = support.succeed(services, files=support.sums({"curve.json": CURVE}))
    lines = run("plan", job_id, "--curve").lines
    assert lines[0].split() == ["TARGET", "MACS", "IMPORTANCE", "HEADS", "NEURONS"]
    assert lines[1].split() == ["0.50", "48.0%", "91.3%", "3", "0", "40", "8"]
    assert json.loads(run("plan", job_id, "--curve", "-o", "json").out)["items"] == [POINT]
    assert run("plan", job_id, "--curve", "-q").lines == ["0.5"]


def test_a_job_without_a_target_has_no_curve(run: Any, services: Services, model: str) -> None:
    run("submit", "-m", model, "--heads", "0.3")
    job_id = support.succeed(services, files=support.sums({"config.json": b"{}"}))
    ran = run("plan", job_id, "--curve")
    assert (ran.code, ran.out) == (5, "")
    assert "--target-macs" in ran.err
    assert run("plan", job_id).code == 2
