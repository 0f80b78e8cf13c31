"""Peak memory, measured in a fresh process that forks once a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunectl.errors import PrunectlError
from prunectl.evaluation.memory import Request, peaks
from support.models import build


def test_a_models_peak_is_its_weights_and_little_more(tmp_path: Path) -> None:
    large = build(tmp_path / "large", head="feature-extraction", layers=6, heads=8, hidden=512, ffn=2048)
    small = build(tmp_path / "small", head="feature-extraction")
    weights = (large / "model.safetensors").stat().st_size
    requests = [Request("support.loaders:plain", str(path), batch=4, seq=32) for path in (small, large, small)]
    first, big, last = peaks(requests)
    # Above all, that what torch and transformers take themselves (hundreds of MB) isn't counted, and no order matters.
    assert weights <= big < 1.4 * weights
    assert first < 0.2 * weights and last < 0.2 * weights


def test_a_model_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PrunectlError, match="memory measurement failed"):
        peaks([Request("support.loaders:broken", str(tmp_path), batch=1, seq=8)])
