"""Starts and ends a runner: a session of its own, which gets its job on standard input and reports on a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

from prunectl.worker.assignment import Assignment, Envelope
from prunectl.worker.lifeline import reap_group, signal_group
from prunectl.worker.warm_runners import Adopted, Ends, WarmRunners

RUNNER: Sequence[str] = (sys.executable, "-P", "-m", "prunectl.worker.runner")
TEMPLATE: Sequence[str] = (sys.executable, "-P", "-m", "prunectl.worker.template")

# A runner reads models that strangers made; it has no use for these.
_SECRETS = ("PRUNECTL_DATABASE_URL", "PRUNECTL_BROKER_URL", "PRUNECTL_API_TOKEN")


class RunnerProcess:
    """A running runner. ``report`` and ``output`` are descriptors to read from, and belong to the caller.

    It is a fork of the template in ``warm``; where that has none to give, or is None, ``command`` is started.
    ``patient`` says whether waiting for a template is still worth it.
    """

    def __init__(
        self,
        command: Sequence[str],
        assignment: Assignment,
        environment: Mapping[str, str],
        warm: WarmRunners | None = None,
        patient: Callable[[], bool] = lambda: True,
    ) -> None:
        self.report, report_end = os.pipe()
        self.output, output_end = os.pipe()
        envelope = Envelope(assignment, report_end, os.getpid())
        try:
            with tempfile.TemporaryFile() as stdin:  # a file, so that a long job can't block us as a pipe could
                stdin.write(envelope.to_json())
                stdin.seek(0)
                forked = None
                if warm is not None:
                    ends = Ends(stdin.fileno(), output_end, report_end)
                    forked = warm.fork(ends, environment, assignment.scratch, patient)
                self._process: subprocess.Popen[bytes] | Adopted = forked or subprocess.Popen(
                    list(command),
                    stdin=stdin,
                    stdout=output_end,
                    stderr=output_end,
                    pass_fds=(report_end,),
                    start_new_session=True,
                    cwd=assignment.scratch,
                    env=dict(environment),
                )
        except BaseException:
            os.close(self.report)
            os.close(self.output)
            raise
        finally:
            os.close(report_end)
            os.close(output_end)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Exit status as `subprocess` gives it, or None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        signal_group(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """The whole session's group, and wait for all of it."""
        signal_group(self.pid, signal.SIGKILL)
        self._process.wait()
        reap_group(self.pid)


def runner_environment(assignment: Assignment, *, slot: int) -> dict[str, str]:
    """The worker's environment without its secrets, with this slot's GPU and share of the cores."""
    environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    threads = str(assignment.threads)
    environment |= {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "CUDA_VISIBLE_DEVICES": _gpu_of(slot) if assignment.device == "gpu" else "",
        "TMPDIR": assignment.scratch,
    }
    if "PYTHONPATH" in environment:  # the runner works in its scratch directory, where a relative path means nothing
        parts = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in parts if part)  # noqa: PTH100
    return environment


def _gpu_of(slot: int) -> str:
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return visible[slot % len(visible)] if visible else str(slot)
