"""Pages of mapped weights are dropped without loss, and only where nobody has written to them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from prunectl.checkpoints.load import load_original
from prunectl.pruning import residency
from support.models import build, model
from support.pruning import batches, output

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(residency, "WORTHWHILE_BYTES", 0)
    source = build(tmp_path / "source", "bert", "fill-mask")
    return load_original(source, json.loads((source / "config.json").read_text()))


def test_what_is_dropped_is_read_again(mapped: Any) -> None:
    batch = batches(mapped, 1)[0]
    expected = output(mapped, batch).clone()
    assert residency.release(mapped) >= sum(tensor.numel() * 4 for tensor in mapped.parameters())
    assert torch.equal(output(mapped, batch), expected)


def test_a_mapping_that_was_written_to_is_left_alone(mapped: Any) -> None:
    with torch.no_grad():
        for parameter in mapped.parameters():
            parameter.add_(1.0)
    expected = [parameter.clone() for parameter in mapped.parameters()]
    assert residency.release(mapped) == 0
    assert all(torch.equal(a, b) for a, b in zip(mapped.parameters(), expected, strict=True))


def test_memory_of_no_file_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "WORTHWHILE_BYTES", 0)
    built = model("bert", "fill-mask")
    expected = [parameter.clone() for parameter in built.parameters()]
    assert residency.release(built) == 0
    assert all(torch.equal(a, b) for a, b in zip(built.parameters(), expected, strict=True))


def test_small_models_cost_nothing(mapped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "WORTHWHILE_BYTES", 10**9)
    monkeypatch.setattr(residency, "_mappings", lambda _path: pytest.fail("the memory map was read"))
    assert residency.release(mapped) == 0


def test_a_system_that_has_no_memory_map(mapped: Any, tmp_path: Path) -> None:
    assert list(residency._mappings(tmp_path / "absent")) == []
