"""The `prunectl` command as a user types it: a subprocess with an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Prunectl:
    """Runs commands with an empty HOME and none of our variables, but those given."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    cwd: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PRUNECTL_", "HF_", "XDG_"))}
        kept |= {"HOME": str(self.home), "PRUNECTL_HOME": str(self.home / "prunectl"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        return kept | self.env

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "prunectl.cli.main", *map(str, arguments)]

    def run(self, *arguments: str, timeout: float = 300, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*arguments),
            env=self.environment,
            cwd=self.cwd or self.home,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
            input=stdin if stdin is not None else "",
        )

    def ok(self, *arguments: str, timeout: float = 300, stdin: str | None = None) -> str:
        """stdout of a command that must end with 0."""
        done = self.run(*arguments, timeout=timeout, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "-o", "json"))

    def popen(self, *arguments: str, **kwargs: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*arguments),
            env=self.environment,
            cwd=self.cwd or self.home,
            text=True,
            stdin=subprocess.DEVNULL,
            **kwargs,
        )

    def logs(self) -> str:
        """The tails of the embedded stack's logs, for a failed assertion's message."""
        found = sorted((self.home / "prunectl" / "logs").glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in found)
