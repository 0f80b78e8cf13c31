"""``attention`` and ``report``: a file that is whole, its path on stdout, and an exit code that says how it went."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from prunectl.attention import PAGE
from prunectl.cli import waiting
from prunectl.wiring import Services
from support import service as support


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.01)
    return directory


@pytest.fixture
def pruned(service: Any, run: Any, services: Services, model: str) -> str:
    run("submit", "-m", model, "--heads", "0.1")
    return support.succeed(services, files={"config.json": b"{}"})


def worker(services: Services, *, fails: bool = False) -> threading.Thread:
    """Ends the next picture, as a worker would, as soon as it is queued."""
    asked = threading.Event()

    def work() -> None:
        for _ in range(500):
            job = services.store.claim(["cpu"], worker="w1", device="cpu", lease_seconds=60)
            if job is not None:
                break
            asked.wait(0.01)
        assert job is not None
        if fails:
            from prunectl.errors import FailureClass
            from prunectl.jobs.model import Failure

            services.store.fail(job.lease, Failure(FailureClass.USER_ERROR, "weights_corrupt", "torn", "fetch again"))
            return
        name = f"runs/{job.id}/1-y"
        services.storage.write(f"{name}/{PAGE}", b"<!doctype html>")
        found = support.result({"attention": services.storage.uri(f"{name}/{PAGE}")})
        services.store.succeed(job.lease, {**found, "metrics": {}, "structure": {"layers": []}})

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_attention_waits_and_prints_the_path(run: Any, services: Services, pruned: str, here: Path) -> None:
    drawing = worker(services)
    ran = run("attention", pruned[-8:], "--text", "a list")
    drawing.join()
    assert (ran.code, ran.lines) == (0, [f"attention-{pruned}.html"])
    assert (here / ran.lines[0]).read_text() == "<!doctype html>"
    listed = run("list", "--columns", "recipe")
    assert f"attention of {pruned[-8:]}" in listed.lines


def test_attention_as_json_and_into_a_file(run: Any, services: Services, pruned: str, here: Path) -> None:
    drawing = worker(services)
    ran = run("attention", pruned, "--text", "a list", "--layer", "0,1", "--out", "a.html", "-o", "json")
    drawing.join()
    said = json.loads(ran.out)
    assert (said["schema_version"], said["of"], said["path"]) == (1, pruned, "a.html")
    assert said["uri"].endswith(PAGE)
    assert [path.name for path in here.iterdir()] == ["a.html"]


def test_a_picture_that_fails_is_a_failure(run: Any, services: Services, pruned: str, here: Path) -> None:
    drawing = worker(services, fails=True)
    ran = run("attention", pruned, "--text", "a list")
    drawing.join()
    assert ran.code == 1 and "weights_corrupt" in ran.err and "fetch again" in ran.err
    assert ran.out == "" and not list(here.iterdir())


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("--text", "a", "--layer", "x"), ("layer", "'x'")),
        (("--text", "a", "--layer", "9"), ("layers", "9")),
        (("--text", "  "), ("text",)),
        ((), ("--text",)),
    ],
)
def test_what_is_wrong_is_named(run: Any, pruned: str, arguments: tuple[str, ...], names: tuple[str, ...]) -> None:
    ran = run("attention", pruned, *arguments)
    assert ran.code == 2
    assert all(name in ran.err for name in names)


def test_report_writes_a_page_for_a_job_for_several_and_for_a_sweep(
    run: Any, services: Services, pruned: str, model: str, here: Path
) -> None:
    assert run("report", pruned[-8:]).lines == [f"report-{pruned}.html"]
    sweep = run("sweep", "-m", model, "--heads", "0.2,0.3").lines[0]
    others = [support.succeed(services), support.succeed(services)]
    assert run("report", "--sweep", sweep).lines == [f"report-{sweep}.html"]
    assert run("report", *others, "--out", "two.html").lines == ["two.html"]
    assert "Report of 2 jobs" in (here / "two.html").read_text()
    assert all(other in (here / f"report-{sweep}.html").read_text() for other in others)


def test_a_heat_map_is_a_picture_of_the_kind_that_its_name_says(run: Any, pruned: str, here: Path) -> None:
    assert run("report", pruned, "--heat-map", "heads.svg").lines == ["heads.svg"]
    assert (here / "heads.svg").read_text().startswith("<svg")
    refused = run("report", pruned, "--heat-map", "heads.pdf")
    assert refused.code == 2 and "heads.svg" in refused.err
    assert run("report", pruned, pruned[:10] + "x", "--heat-map", "heads.svg").code == 2


def test_a_report_needs_jobs_or_a_sweep_and_a_place(run: Any, pruned: str) -> None:
    assert run("report").code == 2
    ran = run("report", pruned, "--out", "no/such/directory/r.html")
    assert ran.code == 2 and "out" in ran.err
    assert run("report", "nosuchjob").code == 5
