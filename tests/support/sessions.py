"""Sessions in pages: console blocks of a Markdown file, run as a user would type them, and their output compared.

A block is fenced as ``console``, its commands start with ``$ ``, what follows is what they print on stdout. ``…`` alone on
a line stands for any lines, within a line for anything. Ids and times of jobs are never compared; in a block fenced as
``console measured`` neither are numbers, nor how wide columns are.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```console(?P<measured> measured)?\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
ASSIGNMENT = re.compile(r"^(?P<name>[A-Z_]+)=\$\((?P<command>.*)\)$", re.DOTALL)
ID = re.compile(r"\b[0-9a-z]{26}\b")
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
NUMBER = re.compile(
    r"(?<![A-Za-z_])~?[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?:ms|us|s|m|h|d|kB|MB|GB|B|k|M|G|x|%)?(?![\w.])"
)


@dataclass(frozen=True)
class Command:
    """One command of a page, as it stands there."""

    text: str
    expected: list[str]
    measured: bool
    line: int


def commands(page: str) -> Iterator[Command]:
    for block in FENCE.finditer(page):
        at = page.count("\n", 0, block.start("body")) + 1
        text: str | None = None
        output: list[str] = []
        started = at
        for number, line in enumerate(block["body"].splitlines(), at):
            if line.startswith("$ ") or (text is not None and text.endswith("\\") and not output):
                if line.startswith("$ "):
                    if text is not None:
                        yield Command(text, output, bool(block["measured"]), started)
                    text, output, started = line[2:], [], number
                else:
                    text = f"{text}\n{line}"
            else:
                output.append(line)
        if text is not None:
            yield Command(text, output, bool(block["measured"]), started)


class Shell:
    """Runs commands one by one in ``cwd``; what one assigns, the next ones see."""

    def __init__(self, cwd: Path, environment: Mapping[str, str], timeout: float = 300) -> None:
        self._cwd, self._environment, self._timeout = cwd, dict(environment), timeout

    def run(self, command: str) -> str:
        """What the command prints; raises AssertionError where it fails."""
        assigned = ASSIGNMENT.match(command)
        done = subprocess.run(
            ["bash", "-c", assigned["command"] if assigned else command],
            cwd=self._cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self._timeout,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        if assigned:
            self._environment[assigned["name"]] = done.stdout.strip()
            return ""
        return done.stdout


def matches(expected: list[str], got: list[str], *, measured: bool) -> bool:
    """Whether the lines are those that the page shows."""
    parts = [
        r"(?:.*\n)*?" if line.strip() == "…" else ".*".join(map(re.escape, plain(line, measured).split("…"))) + r"\n"
        for line in expected
    ]
    text = "".join(plain(line, measured) + "\n" for line in got)
    return re.fullmatch("".join(parts), text) is not None


def plain(line: str, measured: bool) -> str:
    """The line without what differs from run to run."""
    line = TIME.sub("TIME", DIGEST.sub("DIGEST", ID.sub("ID", line.rstrip())))
    if measured:
        line = re.sub(r"\s+", " ", NUMBER.sub("#", line)).replace("( ", "(").strip()
    return line
