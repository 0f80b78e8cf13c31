"""docs/benchmarks.md: each benchmark writes its own section and leaves the others alone."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_START = "# Benchmarks\n\nEach section is written by the command that it names.\n"


def write_section(title: str, body: str, page: Path = PAGE) -> None:
    """Replace the section ``## title`` of ``page`` by ``body``, or append it."""
    text = page.read_text(encoding="utf-8") if page.exists() else _START
    section = f"## {title}\n\n{body.strip()}\n"
    found = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    if found.search(text):
        text = found.sub(lambda _match: section + "\n", text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    page.write_text(text.rstrip() + "\n", encoding="utf-8")
