"""One embedded stack for the tier: real service, real worker, real models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Prunectl
from support.training import xlmr_mlm

__all__ = ["xlmr_mlm"]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """A zoo root with the real encoder under the name ``minilm``, in copies so that no link leaves the root."""
    import shutil

    root = tmp_path_factory.mktemp("zoo")
    shutil.copytree(minilm, root / "minilm", ignore=shutil.ignore_patterns("README.md", "data_config.json"))
    return root


@pytest.fixture(scope="session")
def prunectl(tmp_path_factory: pytest.TempPathFactory, zoo: Path) -> Iterator[Prunectl]:
    command = Prunectl(tmp_path_factory.mktemp("home"), env={"PRUNECTL_MODEL_PATH": str(zoo)})
    try:
        yield command
    finally:
        command.run("down")
