"""The parts of the embedded stack's start that need no process."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from prunectl.cli.host import control, packages
from prunectl.errors import Unavailable
from prunectl.settings import Settings


def test_a_bare_install_says_which_line_mends_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in ("torch", "celery") else object())
    with pytest.raises(Unavailable, match="celery, torch") as caught:
        control.ensure(Settings(home=tmp_path / "home"))
    assert "pip install 'prunectl[all]'" in str(caught.value.hint)
    assert not (tmp_path / "home").exists()
    with pytest.raises(Unavailable) as caught:
        packages.require("api")
    assert "prunectl[api]" in str(caught.value.hint)


def test_the_stack_inherits_nothing_of_a_submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "PATH": "/bin", "HF_TOKEN": "s", "HF_HOME": "/h", "PRUNECTL_MODEL_PATH": "zoo", "PRUNECTL_API_TOKEN": "t",
        "PRUNECTL_BROKER_URL": "redis://r", "PYTHONPATH": f"core{os.pathsep}/abs",
    }  # fmt: skip
    assert control.stack_environment(given, tmp_path / "home") == {
        "PATH": "/bin",
        "PRUNECTL_BROKER_URL": "redis://r",
        "PYTHONPATH": f"{tmp_path / 'core'}{os.pathsep}/abs",
        "PRUNECTL_HOME": str(tmp_path / "home"),
        "PRUNECTL_EMBEDDED": "1",
    }


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("STORAGE_URL", "store", "{here}/store"),
        ("STORAGE_URL", "/abs", "/abs"),
        ("STORAGE_URL", "s3://bucket/x", "s3://bucket/x"),
        ("DATABASE_URL", "sqlite:///jobs.db", "sqlite:///{here}/jobs.db"),
        ("DATABASE_URL", "sqlite:////abs/jobs.db", "sqlite:////abs/jobs.db"),
        ("DATABASE_URL", "postgresql+psycopg://host/db", "postgresql+psycopg://host/db"),
    ],
)
def test_the_stacks_paths_are_those_of_the_command_that_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, given: str, kept: str
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = control.stack_environment({f"PRUNECTL_{name}": given}, tmp_path / "home")
    assert variables[f"PRUNECTL_{name}"] == kept.format(here=tmp_path)


def test_who_holds_the_lock(tmp_path: Path) -> None:
    assert control.holder(tmp_path) is None
    with control.lock_file(tmp_path).open("w") as file:
        file.write("4321")
        file.flush()
        assert control.holder(tmp_path) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert control.holder(tmp_path) == 4321
    assert control.holder(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": "http://x"}', "null"])
def test_a_torn_stack_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    control.info_file(tmp_path).write_text(text)
    assert control.running(tmp_path) is None
    assert control.inspect(Settings(home=tmp_path))["running"] is False


def test_nothing_is_stopped_where_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)  # as in a bare install
    monkeypatch.delitem(sys.modules, "prunectl.cli.host.processes", raising=False)
    (tmp_path / "file").touch()
    for home in (tmp_path / "none", tmp_path / "file"):
        assert control.down(Settings(home=home)) is False
