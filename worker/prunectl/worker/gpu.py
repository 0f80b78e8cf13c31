"""Which GPUs this machine shows, found without importing torch into the worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_PROBE = (
    "import json, torch; print(json.dumps([torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]))"
)
_PROBE_SECONDS = 120.0


def visible_gpus() -> list[str]:
    """Their names.

    A process of its own asks torch, and only where there is a device file: CUDA must not meet our forks.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        return []
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
    )
    if probe.returncode != 0:
        return []
    names: list[str] = json.loads(probe.stdout)
    return names
