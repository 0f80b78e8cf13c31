"""The embedded stack of one user: first commands at once, a machine that goes down, a home that moves."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support import models
from support.command import Prunectl
from support.fleet import until

CLOCKS = {
    "PRUNECTL_LEASE_SECONDS": "6",
    "PRUNECTL_HEARTBEAT_SECONDS": "1",
    "PRUNECTL_SWEEP_SECONDS": "2",
    "PRUNECTL_CANCEL_GRACE_SECONDS": "2",
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.build(tmp_path_factory.mktemp("zoo") / "tiny", "bert", "fill-mask", layers=3)


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Prunectl]:
    home = tmp_path / "a user's own home"
    home.mkdir()
    command = Prunectl(home, env={**CLOCKS, "OMP_NUM_THREADS": "1"})
    try:
        yield command
    finally:
        for place in tmp_path.iterdir():
            Prunectl(place, env=command.env).run("down")
        assert of_home(tmp_path) == [], "nothing is left"


def of_home(top: Path) -> list[psutil.Process]:
    """Every live process of a stack below ``top``."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("PRUNECTL_HOME", "")
            if home.startswith(str(top)) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def submit(model: Path) -> tuple[str, ...]:
    return ("submit", "--model", str(model), "--heads", "0.5", "--max-samples", "32")


def test_first_commands_at_once_queue_one_job_and_start_one_stack(user: Prunectl, tiny: Path, tmp_path: Path) -> None:
    started = [user.popen(*submit(tiny), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    answers = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0], answers
    ids = {out.strip() for out, _ in answers}
    assert len(ids) == 1, "an identical job is the one that is there"
    supervisors = [process for process in of_home(tmp_path) if "prunectl.cli.host.stack" in process.cmdline()]
    assert len(supervisors) == 1
    assert user.run("wait", *ids).returncode == 0


def test_a_machine_that_goes_down_with_a_job_on_it(user: Prunectl, tiny: Path, tmp_path: Path) -> None:
    job_id = user.ok(*submit(tiny))
    until(lambda: user.json("show", job_id)["stage"] in ("baseline", "score", "reload"), "the job's work", 120)
    for process in of_home(tmp_path):
        process.kill()
    until(lambda: not of_home(tmp_path), "everything to be gone", 10)
    time.sleep(1)
    assert user.run("wait", job_id, "--timeout", "5m").returncode == 0, user.logs()
    job = user.json("show", job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    checkpoint = next((user.home / "prunectl" / "storage" / "runs" / job_id).glob("a2-*"))
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=checkpoint, check=True)


def test_a_home_that_moves_keeps_its_jobs_and_checkpoints(user: Prunectl, tiny: Path, tmp_path: Path) -> None:
    job_id = user.ok(*submit(tiny), "--wait")
    moved = Prunectl(user.home.rename(tmp_path / "another place"), env=user.env)
    job = moved.json("show", job_id)
    assert job["state"] == "succeeded"
    assert job["artifacts"]["checkpoint"].startswith((tmp_path / "another place").as_uri())
    moved.ok("pull", job_id, str(tmp_path / "out"))
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=True)
    assert json.loads(moved.ok("status", "-o", "json"))["running"]
