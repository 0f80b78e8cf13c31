"""A pipeline that prunes nothing, for tests of the queue, and a worker that runs it.

``python -m support.queue_stub runner`` is the runner; ``python -m support.queue_stub worker QUEUES SLOTS [NAME]`` is a
worker whose runners are this one. What a job does stands in its tag ``stub``: ``ok``, ``sleep SECONDS``, ``deaf
SECONDS`` (ignores SIGTERM), ``child SECONDS`` (starts a process and waits), ``late SECONDS`` (waits after it has
published), ``error CODE``, ``memory``, ``exit STATUS``, ``kill``, ``nonsense``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import prunectl
from prunectl.errors import CorruptWeights, HubUnavailable
from prunectl.schemas import Measure, Result, Structure
from prunectl.storage import open_storage
from prunectl.worker.assignment import Assignment
from prunectl.worker.report import Report

RUNNER = (sys.executable, "-P", "-m", "support.queue_stub", "runner")
_ERRORS = {"weights_corrupt": CorruptWeights, "hub_unavailable": HubUnavailable}


def python_path() -> str:
    """For processes that tests start: where prunectl's portions and the tests' support are."""
    portions = [str(Path(part).resolve().parent) for part in prunectl.__path__]
    return os.pathsep.join([*portions, str(Path(__file__).resolve().parents[1])])


def run(assignment: Assignment, report: Report) -> Result:
    storage = open_storage(assignment.storage_url)
    storage.append(f"starts/{assignment.job_id}", f"{os.getpid()}\n".encode())
    what, _, argument = assignment.spec["tags"].get("stub", "ok").partition(" ")
    with report.stage("prune"):
        print(f"doing {what}", flush=True)  # noqa: T201 - output that the log has to carry
        _do(what, argument)
    with report.stage("save"):
        directory = Path(assignment.scratch) / "checkpoint"
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        uri = storage.publish(str(directory), assignment.run_name)
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
        case "exit":
            os._exit(int(argument))
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "nonsense":
            raise AssertionError("nobody foresaw this")


def main() -> int:
    if sys.argv[1] == "runner":
        from prunectl.worker import runner

        return runner.main(run)
    from prunectl.settings import Settings
    from prunectl.worker.main import serve

    name = sys.argv[4] if len(sys.argv) > 4 else None
    return serve(sys.argv[2].split(","), int(sys.argv[3]), name, Settings(), runner=RUNNER)


if __name__ == "__main__":
    sys.exit(main())
