"""The embedded stack: started once, found again, stopped without a trace."""

from __future__ import annotations

import http.server
import json
import signal
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import psutil
import pytest

from .conftest import Stack


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_first_command_starts_it_and_down_leaves_nothing(stack: Stack) -> None:
    assert stack.run("status").returncode == 3
    assert not stack.home.exists()

    # Captured as `$(prunectl list)` captures: the call ends although the stack, started by it, lives on.
    listed = stack.run("list", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout)["items"] == []
    assert listed.stderr == ""

    assert stack.run("status").returncode == 0
    assert stat.S_IMODE(stack.home.stat().st_mode) == 0o700
    assert stat.S_IMODE((stack.home / "token").stat().st_mode) == 0o600
    first = stack.info
    assert stack.run("up").returncode == 0
    assert stack.info == first
    eventually(lambda: len(stack.processes()) >= 3)

    assert stack.run("down").returncode == 0
    assert stack.processes() == []
    assert not (stack.home / "stack.json").exists()
    assert stack.run("status").returncode == 3
    assert "not running" in stack.run("down").stderr


def test_two_commands_at_once_start_one(stack: Stack) -> None:
    commands = [stack.start("list", "-q") for _ in range(3)]
    for command in commands:
        _, err = command.communicate(timeout=120)
        assert command.returncode == 0, err
    supervisors = [process for process in stack.processes() if "prunectl.cli.host.stack" in process.cmdline()]
    assert [process.pid for process in supervisors] == [stack.info["pid"]]


def test_everything_killed_as_by_a_reboot_is_started_anew(stack: Stack) -> None:
    assert stack.run("up").returncode == 0
    before = stack.info
    for process in stack.processes():
        process.kill()
    eventually(lambda: not stack.processes())
    assert stack.info == before
    assert stack.run("status").returncode == 3
    assert stack.run("list").returncode == 0
    assert stack.info["instance"] != before["instance"]


def test_children_follow_a_supervisor_that_was_killed(stack: Stack) -> None:
    assert stack.run("up").returncode == 0
    psutil.Process(stack.info["pid"]).kill()
    eventually(lambda: not stack.processes())


def test_a_service_that_dies_comes_back_at_the_same_address(stack: Stack) -> None:
    assert stack.run("up").returncode == 0
    url = stack.info["url"]
    [service] = [
        process
        for process in stack.processes()
        if "prunectl.cli.host.service" in process.cmdline() and "api" in process.cmdline()
    ]
    service.kill()
    listed = stack.run("list")
    assert listed.returncode == 0, listed.stderr
    assert stack.info["url"] == url


def test_a_strangers_port_is_not_mistaken_for_the_stack(stack: Stack) -> None:
    assert stack.run("up").returncode == 0
    before = stack.info
    for process in stack.processes():
        process.kill()
    eventually(lambda: not stack.processes())
    # The port has gone to someone who answers everything with 200, and the process id to a process that lives.
    stranger = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Agreeable)
    threading.Thread(target=stranger.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{stranger.server_address[1]}"
        (stack.home / "stack.json").write_text(json.dumps({**before, "url": address, "pid": psutil.Process().pid}))
        assert stack.run("status").returncode == 3
        assert stack.run("list").returncode == 0
        assert stack.info["url"] != address
    finally:
        stranger.shutdown()
        stranger.server_close()


class Agreeable(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"status": "ok", "instance": "someone-else", "items": []}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_home_that_was_moved_while_it_ran(stack: Stack) -> None:
    assert stack.run("up").returncode == 0
    old = stack.info
    moved = Stack(stack.home.rename(stack.home.with_name("moved home")))
    assert moved.run("list").returncode == 0
    assert moved.info["home"] == str(moved.home)
    assert moved.info["instance"] != old["instance"]
    eventually(lambda: not psutil.pid_exists(old["pid"]) or psutil.Process(old["pid"]).status() == psutil.STATUS_ZOMBIE)
    assert stack.processes() == []


def test_a_home_that_was_removed_takes_the_stack_with_it(stack: Stack, tmp_path: Path) -> None:
    assert stack.run("up").returncode == 0
    stack.home.rename(tmp_path / "gone")
    eventually(lambda: not stack.processes(), seconds=30)


def test_a_home_that_can_not_be_written(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = Stack(tmp_path / "file" / "home").run("list")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "PRUNECTL_HOME" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_start_that_fails_says_why(stack: Stack) -> None:
    stack.variables["PRUNECTL_DATABASE_URL"] = "mysql://host/db"
    failed = stack.run("list")
    assert (failed.returncode, failed.stdout) == (3, "")
    assert "mysql" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert stack.processes() == []


def test_ctrl_c_while_waiting_detaches(stack: Stack, tmp_path: Path) -> None:
    support = pytest.importorskip("support.service")
    model = support.config_only(tmp_path / "model")
    # The job waits for a worker that nobody started, so that the command surely waits.
    stack.variables["PRUNECTL_MODEL_PATH"] = str(tmp_path)
    waiting = stack.start("submit", "--model", str(model), "--heads", "0.3", "--device", "gpu", "--wait")
    assert waiting.stdout is not None
    job_id = waiting.stdout.readline().strip()
    time.sleep(0.5)
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert f"prunectl wait {job_id}" in err
    assert json.loads(stack.run("show", job_id, "-o", "json").stdout)["state"] == "queued"


def test_nothing_answers_without_the_token(stack: Stack) -> None:
    assert stack.run("up").returncode == 0
    url = stack.info["url"]
    assert url.startswith("http://127.0.0.1:")
    assert httpx2.get(f"{url}/v1/jobs", trust_env=False).status_code == 401
    assert httpx2.get(f"{url}/readyz", trust_env=False).status_code == 200
