"""Loaders that a fresh process can import by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoModel


def plain(path: Path) -> Any:
    return AutoModel.from_pretrained(path)


def broken(path: Path) -> Any:
    raise ValueError(f"no model at {path.name}")
