"""``sweep``, ``sweeps`` and what the other commands do with a sweep's id."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from prunectl.cli import waiting
from prunectl.wiring import Services
from support import service as support

pytestmark = pytest.mark.usefixtures("service")


@pytest.fixture
def sweep_id(run: Any, model: str) -> str:
    ran = run("sweep", "-m", model, "--heads", "0.1:0.3:0.1", "--ffn", "0,0.25", "--name", "mine", "--tag", "t=1")
    assert ran.code == 0, ran.err
    assert "6 jobs" in ran.err
    [printed] = ran.lines
    return str(printed)


def test_the_product_is_queued_and_the_id_stands_alone(run: Any, sweep_id: str) -> None:
    jobs = json.loads(run("list", "--sweep", sweep_id, "-o", "json", "--sort", "id").out)["items"]
    assert [(job["recipe"]["heads"], job["recipe"]["ffn"]) for job in jobs] == [
        (0.1, 0), (0.1, 0.25), (0.2, 0), (0.2, 0.25), (0.3, 0), (0.3, 0.25),
    ]  # fmt: skip
    assert all(job["tags"] == {"t": "1"} and job["name"] is None and job["sweep_id"] == sweep_id for job in jobs)


def test_it_reads_as_a_page_a_row_and_documents(run: Any, services: Services, sweep_id: str) -> None:
    support.succeed(services), support.fail(services)
    page = run("show", sweep_id)
    for text in ("2/6 done: 4 queued, 1 succeeded, 1 failed", "heads=0.1,0.2,0.3 ffn=0,0.25", "mine", "QUALITY(Δ)"):
        assert text in page.out
    assert run("sweeps", "show", sweep_id[-6:]).out == page.out
    header, row = run("sweeps").lines
    assert header.split() == [
        "ID", "NAME", "STATE", "JOBS", "QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED", "PROGRESS", "AGE",
    ]  # fmt: skip
    assert row.split()[:10] == [sweep_id, "mine", "running", "6", "4", "0", "1", "1", "0", "33%"]
    document = json.loads(run("show", sweep_id, "-o", "json").out)
    assert document["counts"] == {"queued": 4, "running": 0, "succeeded": 1, "failed": 1, "cancelled": 0}
    assert json.loads(run("sweeps", "-o", "json").out)["items"] == [document]
    assert run("sweeps", "list", "-q").lines == [sweep_id]
    [line] = csv.DictReader(io.StringIO(run("sweeps", "-o", "csv").out))
    assert (line["failed"], line["progress"]) == ("1", "0.3333")


def test_wait_ends_with_the_jobs_outcomes(run: Any, services: Services, sweep_id: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.01)
    assert run("wait", sweep_id, "--timeout", "0s").code == 8
    support.fail(services)
    assert run("wait", sweep_id, "--timeout", "0s").code == 1
    for _ in range(5):
        support.succeed(services)
    assert run("wait", sweep_id).code == 1
    assert run("retry", "--sweep", sweep_id, "--failed").err.strip() == "1 of 6 jobs queued again"
    support.succeed(services, gate=False)
    ran = run("wait", sweep_id)
    assert ran.code == 6
    assert "succeeded" in ran.out and "6/6 done" in ran.err


def test_cancel_all_then_retry_all(run: Any, sweep_id: str) -> None:
    ran = run("cancel", "--sweep", sweep_id[:12])
    assert (ran.code, ran.lines, ran.err.strip()) == (0, [sweep_id], "6 of 6 jobs cancelled")
    assert run("wait", sweep_id).code == 7
    assert "0 of 6" in run("cancel", "--sweep", sweep_id).err
    assert json.loads(run("retry", "--sweep", sweep_id, "-o", "json").out)["changed"] == 6


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("cancel",), 2),
        (("cancel", "abcd", "--sweep", "abcd"), 2),
        (("retry", "abcd", "--failed"), 2),
        (("cancel", "--sweep", "nothing1"), 5),
        (("list", "--sweep", "nothing1"), 5),
        (("show", "nothing1"), 5),
        (("sweeps", "show", "nothing1"), 5),
    ],
)
def test_wrong_use(run: Any, arguments: tuple[str, ...], code: int) -> None:
    assert run(*arguments).code == code


def test_a_file_and_flags_make_one_grid(run: Any, model: str, tmp_path: Path) -> None:
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(f"model: {model}\nname: from-file\nheads: [0.1, 0.2]\nffn: 0.1:0.2:0.1\nlayers: [0, 1]\n")
    ran = run("sweep", "-f", str(recipe), "--set", "seed=1,2", "--layers", "1", "--dry-run", "-o", "json")
    assert ran.code == 0, ran.err
    plan = json.loads(ran.out)
    assert (plan["jobs"], plan["identical"]) == (8, 0)
    assert plan["grid"] == {"heads": [0.1, 0.2], "ffn": ["0.1", "0.2"], "seed": ["1", "2"]}
    assert plan["base"]["recipe"] == {"layers": "1"}
    page = run("sweep", "-f", str(recipe), "--layers", "1", "--dry-run").out
    assert "0 exist already" in page
    assert run("sweeps", "-q").lines == []


def test_a_range_of_whole_numbers_in_a_file_is_no_time_of_day(run: Any, model: str, tmp_path: Path) -> None:
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(f"model: {model}\nname: 2026-01-31\nheads: 0.1\nseed: 1:5:2\n")
    ran = run("sweep", "-f", str(recipe), "--set", "ffn=0", "--set", "max_samples=10:30:10", "--dry-run", "-o", "json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["grid"] == {"seed": ["1", "3", "5"], "max_samples": ["10", "20", "30"]}


def test_local_files_are_sent_once_each(run: Any, model: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("".join(f"line {number} of {name}\n" for number in range(8)))
    files = f"{tmp_path / 'a.txt'};{tmp_path / 'b.txt'}"
    ran = run("sweep", "-m", model, "--heads", "0.1,0.2", "--data", files, "-o", "json")
    assert ran.code == 0, ran.err
    sweep = json.loads(ran.out)
    assert sweep["jobs"] == 4
    assert all(value.startswith("upload:sha256:") for value in sweep["grid"]["data"])


@pytest.mark.usefixtures("no_service")
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--heads", "0.1:0.5:0"), "--heads"),
        (("--heads", "0.1,1.5"), "--heads"),
        (("--heads", "0.1,,0.2"), "--heads"),
        (("--heads", "0.1", "--scorer", "taylor,tailor"), "taylor"),
        ((), "nothing to remove"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_sent(run: Any, flags: tuple[str, ...], named: str) -> None:
    ran = run("sweep", "-m", "tiny", *flags)
    assert ran.code == 2
    assert named in ran.err
    assert ran.out == ""


def test_sweep_takes_every_flag_of_submit(run: Any) -> None:
    def flags(command: str) -> set[str]:
        return {word for word in run(command, "--help").out.replace(",", " ").split() if word.startswith("-")}

    assert flags("submit") - flags("sweep") == set()
