"""A pipeline that prunes nothing, for tests of the queue, and a worker that runs it.

``python -m support.queue_stub runner`` is the runner and ``… template`` the template of such runners; ``… worker QUEUES
SLOTS [NAME]`` is a worker whose runners these are; ``… sweeper`` only sweeps.

What a job does stands in its tag ``stub``: ``ok``, ``sleep SECONDS``, ``deaf SECONDS`` (ignores SIGTERM), ``child
SECONDS`` (starts a process and waits), ``late SECONDS`` (waits after it has published), ``error CODE``, ``memory``,
``grow MEBIBYTES`` (allocates until that limit stops it), ``fill BYTES`` (writes so much into its checkpoint), ``exit
STATUS``, ``kill``, ``nonsense``, ``environment`` (prints it, and where temporary files go), ``hold MEBIBYTES`` (to its end).

The tag ``pause`` names a point at which the first attempt stops and waits to be killed; see `SUPERVISOR_POINTS` and
`RUNNER_POINTS`.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prunectl
from prunectl.errors import CorruptWeights, HubUnavailable
from prunectl.schemas import Measure, Result, Structure
from prunectl.storage import open_storage
from prunectl.worker.assignment import Assignment
from prunectl.worker.report import Report

RUNNER = (sys.executable, "-P", "-m", "support.queue_stub", "runner")
TEMPLATE = (sys.executable, "-P", "-m", "support.queue_stub", "template")
SUPERVISOR_POINTS = ("claimed", "spawning", "pruning", "published", "finishing")
RUNNER_POINTS = ("started", "pruning", "saving", "published", "reported")
PAUSED = "paused"
_held: list[bytes] = []
_ERRORS = {"weights_corrupt": CorruptWeights, "hub_unavailable": HubUnavailable}


def python_path() -> str:
    """For processes that tests start: where prunectl's portions and the tests' support are."""
    portions = [str(Path(part).resolve().parent) for part in prunectl.__path__]
    return os.pathsep.join([*portions, str(Path(__file__).resolve().parents[1])])


def run(assignment: Assignment, report: Report) -> Result:
    storage = open_storage(assignment.storage_url)
    storage.append(f"starts/{assignment.job_id}", f"{os.getpid()}\n".encode())
    what, _, argument = assignment.spec["tags"].get("stub", "ok").partition(" ")
    home = Path(assignment.scratch).parents[1]

    def point(name: str) -> None:
        _pause_at(name, assignment.spec, home, assignment.job_id, assignment.attempt)

    point("started")
    with report.stage("prune"):
        print(f"doing {what}", flush=True)  # noqa: T201 - output that the log has to carry
        point("pruning")
        _do(what, argument)
    with report.stage("save"):
        directory = Path(assignment.scratch) / "checkpoint"
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        point("saving")
        (directory / "model.safetensors").write_bytes(b"x" * (int(argument) if what == "fill" else 8))
        uri = storage.publish(str(directory), assignment.run_name)
    point("published")
    report.progress(0.9)
    if what == "late":
        time.sleep(float(argument))
    return Result(
        model_digest="sha256:0",
        metrics={
            "parameters": Measure(before=10, after=5),
            "eval_loss": Measure(before=1.0, after=1.1, stderr=0.1, n=8),
        },
        stages=report.stages,
        structure=Structure(layers=[]),
        artifacts={"checkpoint": uri},
    )


def _pause_at(point: str, spec: dict[str, Any], home: Path, job_id: str, attempt: int) -> None:
    if attempt == 1 and spec["tags"].get("pause") == point:
        (home / PAUSED).mkdir(exist_ok=True)
        (home / PAUSED / job_id).write_text(point)
        time.sleep(120)


def _do(what: str, argument: str) -> None:
    match what:
        case "sleep":
            time.sleep(float(argument))
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(float(argument))
        case "child":
            subprocess.run(["sleep", argument], check=True)
        case "error":
            raise _ERRORS[argument](f"stub says {argument}")
        case "memory":
            raise MemoryError
        case "grow":
            limit = int(argument) * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            held = []
            while True:
                held.append(bytearray(2**20))
        case "environment":
            print(json.dumps({**os.environ, "temporary files": tempfile.gettempdir(), "cwd": str(Path.cwd())}))  # noqa: T201
        case "hold":
            _held.append(b"x" * (int(argument) * 2**20))
        case "exit":
            os._exit(int(argument))
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "nonsense":
            raise AssertionError("nobody foresaw this")


def _pausing_after_report() -> Callable[[Assignment, Report], Result]:
    """`run` with the point ``reported``: the result has been sent and the process has not ended."""
    given: list[Assignment] = []
    real_run, real_result = run, Report.result

    def remembering(assignment: Assignment, report: Report) -> Result:
        given.append(assignment)
        return real_run(assignment, report)

    def result(self: Report, found: Result) -> None:
        real_result(self, found)
        [one] = given
        _pause_at("reported", one.spec, Path(one.scratch).parents[1], one.job_id, one.attempt)

    Report.result = result  # type: ignore[method-assign]
    return remembering


def _pause_in_supervisors(home: Path) -> None:
    """The points of a pool process, around what the shipped code does there."""
    from prunectl.db.job_store import SqlJobStore
    from prunectl.worker import supervisor

    real_claim, real_succeed, real_process = SqlJobStore.claim, SqlJobStore.succeed, supervisor.RunnerProcess

    def claim(self: SqlJobStore, *arguments: Any, **more: Any) -> Any:
        job = real_claim(self, *arguments, **more)
        if job is not None:
            _pause_at("claimed", job.spec, home, job.id, job.attempt)
        return job

    def succeed(self: SqlJobStore, lease: Any, result: Any) -> bool:
        job = self.get(lease.job_id)
        if job is not None:
            _pause_at("finishing", job.spec, home, job.id, lease.attempt)
        return real_succeed(self, lease, result)

    def process(command: Any, assignment: Assignment, *more: Any) -> Any:
        _pause_at("spawning", assignment.spec, home, assignment.job_id, assignment.attempt)
        return real_process(command, assignment, *more)

    SqlJobStore.claim, SqlJobStore.succeed = claim, succeed  # type: ignore[method-assign]
    supervisor.RunnerProcess = process  # type: ignore[assignment, misc]


def _sweep(settings: Any) -> None:
    from prunectl.jobs.sweeper import Sweeper
    from prunectl.wiring import build

    services = build(settings)
    Sweeper(services.store, services.workers, services.doorbell, settings).run()


def main() -> int:
    if sys.argv[1] == "runner":
        from prunectl.worker import runner

        return runner.main(_pausing_after_report())
    if sys.argv[1] == "template":
        from prunectl.worker import template

        return template.main(sys.argv[2:], preload=lambda: None, pipeline=_pausing_after_report())
    from prunectl.settings import Settings
    from prunectl.worker.main import serve

    if sys.argv[1] == "sweeper":
        _sweep(Settings())
    _pause_in_supervisors(Settings().home)
    name = sys.argv[4] if len(sys.argv) > 4 else None
    return serve(sys.argv[2].split(","), int(sys.argv[3]), name, Settings(), runner=RUNNER, template=TEMPLATE)


if __name__ == "__main__":
    sys.exit(main())
