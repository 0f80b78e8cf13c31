"""The pruning benchmarks run, in small, and end with the JSON line that scripts read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("module", "arguments", "name", "measures"),
    [
        ("pruning_scores", ("--layers", "1", "--vocabulary", "500", "--rounds", "1"), "scores", 6),
        ("pruning_speedup", ("--layers", "1", "--batch", "1", "--rounds", "3", "--calibration", "16"), "speedup", 2),
    ],
)
def test_it_runs_and_prints_one_json_object_last(
    module: str, arguments: tuple[str, ...], name: str, measures: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, capture_output=True, check=True,
    )  # fmt: skip
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["benchmark"] == name and document["machine"] and document["versions"]["torch"]
    assert len(document["results"]) == measures
    for result in document["results"]:
        assert result["ours"] > 0 and result["target"] and result["met"] in (True, False)
