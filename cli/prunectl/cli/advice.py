"""Next commands after an action, on stderr, for a person at a terminal."""

from __future__ import annotations

import sys

from prunectl.cli.failures import say


def next_commands(*commands: str) -> None:
    """Say what to type next; say nothing where nobody reads."""
    if sys.stderr.isatty():
        say("next: " + " · ".join(f"prunectl {command}" for command in commands))
