"""What the service imports must not bring torch along: it would cost seconds and hundreds of megabytes."""

from __future__ import annotations

import os
import subprocess
import sys

MODULES = (
    "prunectl.evaluation.data",
    "prunectl.evaluation.tasks",
    "prunectl.zoo.config",
    "prunectl.zoo.fetch",
    "prunectl.zoo.listing",
    "prunectl.zoo.resolve",
    "prunectl.zoo.safetensors_header",
)


def test_torch_free_modules_are_torch_free() -> None:
    program = f"import sys, {', '.join(MODULES)}; print({{'torch', 'transformers', 'numpy'}} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
