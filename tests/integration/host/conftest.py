"""The embedded stack of a home of its own, driven as a user would: by the command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from prunectl.cli.host import processes

START_SECONDS = 120


@dataclass
class Stack:
    """One ``PRUNECTL_HOME``."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PRUNECTL_", "HF_"))}
        return {**kept, "PRUNECTL_HOME": str(self.home), "PRUNECTL_CANCEL_GRACE_SECONDS": "1", **self.variables}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "prunectl.cli.main", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment(), capture_output=True, text=True, timeout=START_SECONDS
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @property
    def info(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.home / "stack.json").read_text())
        return document

    def processes(self) -> list[psutil.Process]:
        """Every live process that was started for this home."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.environ().get("PRUNECTL_HOME") == str(self.home)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A home on a path with a space, not there yet. Whatever was started for it is gone afterwards."""
    found = Stack(tmp_path / "a home")
    yield found
    for home in [path for path in tmp_path.iterdir() if path.is_dir()]:
        processes.kill(Stack(home).processes())
