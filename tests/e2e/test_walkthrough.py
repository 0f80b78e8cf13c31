"""docs/walkthrough.md is a session that works: every command runs, and prints what the page shows."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from support.command import Prunectl
from support.sessions import Shell, commands, matches
from support.training import Trained

PAGE = Path(__file__).parents[2] / "docs" / "walkthrough.md"
SENTENCE = "Hello, i am looking <mask> Jammie"


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, prunectl: Prunectl, xlmr_mlm: Trained) -> tuple[Path, list[str]]:
    """(where the session ran, what it printed otherwise than the page says)."""
    here, zoo = tmp_path_factory.mktemp("walk"), tmp_path_factory.mktemp("walk-zoo")
    shutil.copytree(xlmr_mlm.directory, zoo / "xlm-roberta-mini")
    tools = tmp_path_factory.mktemp("tools")
    for name, arguments in (("prunectl", "-m prunectl.cli.main"), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (tools / name).chmod(0o755)
    environment = prunectl.environment
    path = f"{tools}:{Path(sys.executable).parent}:{environment['PATH']}"
    shell = Shell(here, environment | {"PATH": path, "PRUNECTL_MODEL_PATH": str(zoo)})
    different = []
    for command in commands(PAGE.read_text(encoding="utf-8")):
        got = shell.run(command.text).splitlines()
        if not matches(command.expected, got, measured=command.measured):
            shown = "\n".join(["the page:", *command.expected, "the command:", *got])
            different.append(f"{PAGE.name}:{command.line}: $ {command.text}\n{shown}")
    return here, different


def test_every_command_prints_what_the_page_shows(walked: tuple[Path, list[str]]) -> None:
    assert not walked[1], "\n\n".join(walked[1])


def test_the_files_that_the_page_names_are_there_and_whole(walked: tuple[Path, list[str]]) -> None:
    here, _ = walked
    attention = (here / "attention.html").read_text(encoding="utf-8")
    assert "Hello, i am looking &lt;mask&gt; Jammie" in attention and "</html>" in attention
    assert (here / "importance.svg").read_text(encoding="utf-8").startswith("<svg")
    assert "Before and after" in (here / "report.html").read_text(encoding="utf-8")
    assert (here / "pruned" / "onnx" / "model_quantized.onnx").stat().st_size > 0


def test_the_sentence_has_as_many_tokens_as_the_page_times(xlmr_mlm: Trained) -> None:
    words = AutoTokenizer.from_pretrained(xlmr_mlm.directory)
    page = PAGE.read_text(encoding="utf-8")
    assert f"is {len(words(SENTENCE)['input_ids'])} tokens to this model" in page
    assert f"--bench-seq {len(words(SENTENCE)['input_ids'])} " in page
