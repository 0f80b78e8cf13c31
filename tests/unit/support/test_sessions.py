"""The matcher of documented sessions finds what differs, and forgives what differs from run to run alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.sessions import Shell, commands, matches

PAGE = """Text.

```console
$ first
one
$ second
```

```console measured
$ third --with \\
  more
two 3.5ms
```

```bash
$ not ours
```
"""


def test_commands_are_found_with_what_they_print() -> None:
    found = list(commands(PAGE))
    assert [(c.text, c.expected, c.measured, c.line) for c in found] == [
        ("first", ["one"], False, 4),
        ("second", [], False, 6),
        ("third --with \\\n  more", ["two 3.5ms"], True, 10),
    ]


@pytest.mark.parametrize(
    ("expected", "got", "measured", "same"),
    [
        (["heads 8 of 16"], ["heads 8 of 16"], False, True),
        (["heads 8 of 16"], ["heads 7 of 16"], False, False),
        (["p50   3.5ms  (-4%)"], ["p50  12.25ms  (~+17%)"], True, True),
        (["p50   3.5ms"], ["p95   3.5ms"], True, False),
        (["id 01m872c6d1m1jtdfgjzhymhd6v"], ["id 01m999c6d1m1jtdfgjzhymhd6v"], False, True),
        (["kept ▮▯"], ["kept ▯▮"], True, False),
        (["a", "…", "z"], ["a", "b", "c", "z"], False, True),
        (["a", "…", "z"], ["a", "b", "c"], False, False),
        (["uri file:///…/report.html"], ["uri file:///tmp/x/report.html"], False, True),
        (["one"], ["one", "two"], False, False),
        (["1.5e-06 -"], ["2e-07 -"], True, True),
    ],
)
def test_lines_match(expected: list[str], got: list[str], measured: bool, same: bool) -> None:
    assert matches(expected, got, measured=measured) is same


def test_a_shell_keeps_what_is_assigned_and_fails_with_its_command(tmp_path: Path) -> None:
    shell = Shell(tmp_path, os.environ)
    assert shell.run("ID=$(echo 12)") == ""
    assert shell.run("echo $ID > file; cat file") == "12\n"
    with pytest.raises(AssertionError, match="exit 3"):
        shell.run("exit 3")
