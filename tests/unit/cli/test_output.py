"""How tables look on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from prunectl.cli.main import COMMANDS, load
from prunectl.cli.output import field, print_table


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"api", "worker"}))
def test_every_command_takes_every_format(name: str) -> None:
    command = load(COMMANDS[name], name)
    for each in getattr(command, "commands", {"": command}).values():
        flags = {flag for parameter in each.params for flag in parameter.opts}
        assert {"--output", "-o", "--json", "--quiet", "-q"} <= flags, each.name


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_leaves_no_escape_in_a_table(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    print_table([{"id": "a"}], [field("id")])
    assert "ID" in terminal.getvalue()
    assert ("\x1b" in terminal.getvalue()) is (no_color == "")
