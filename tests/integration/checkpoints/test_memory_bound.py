"""Loading, surgery and saving stay below 1.3 x the weights, whatever the axis: as `make bench-memory` on a smaller model."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import memory

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    # A vocabulary that is half of the model, as multilingual ones have, and large enough for fixed costs to be small.
    memory.make(directory, layers=6, hidden=768, vocabulary=60_000)
    return directory


@pytest.mark.parametrize("axis", memory.AXES)
def test_the_peak_is_bounded(axis: str, source: Path, tmp_path: Path) -> None:
    size = (source / "model.safetensors").stat().st_size
    peak = memory.measure(source, axis, tmp_path)["save"]
    assert 0.3 * size < peak < memory.BOUND * size
