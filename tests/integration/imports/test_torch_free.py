"""Everything but the runner does without torch: it would cost seconds and hundreds of megabytes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "numpy"}


@pytest.mark.parametrize(
    "modules",
    [
        ("api.app",),
        ("worker.main", "worker.supervisor", "worker.runner"),
        ("inspection", "pruning.axes", "pruning.planning", "checkpoints.manifest", "checkpoints.card"),
        ("evaluation.data", "evaluation.tasks"),
        ("zoo.config", "zoo.fetch", "zoo.listing", "zoo.resolve", "zoo.safetensors_header"),
    ],
    ids=["api", "worker", "planning", "evaluation", "zoo"],
)
def test_nothing_heavy_comes_along(modules: tuple[str, ...]) -> None:
    names = ", ".join(f"prunectl.{module}" for module in modules)
    program = f"import sys, {names}; print({HEAVY!r} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
