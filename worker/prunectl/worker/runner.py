"""A runner: a process that does one job and ends. A supervisor starts it, as ``python -m prunectl.worker.runner`` or as a
fork of its template (`prunectl.worker.template`).
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from functools import partial

from prunectl.schemas import Result
from prunectl.worker import logs
from prunectl.worker.assignment import Assignment, Envelope
from prunectl.worker.failures import failure_of
from prunectl.worker.lifeline import die_with_parent, name_process
from prunectl.worker.report import Report, Wanted

logger = logging.getLogger(__name__)

PROCESS_NAME = "prunectl-runner"
Pipeline = Callable[[Assignment, Report], Result | Wanted]


def main(pipeline: Pipeline | None = None) -> int:
    """Read the job from standard input, run it and report; the exit status (0 also for a failure that was reported)."""
    envelope = Envelope.from_json(sys.stdin.buffer.read())
    die_with_parent(envelope.parent_pid)
    return work(envelope, pipeline)


def work(envelope: Envelope, pipeline: Pipeline | None = None) -> int:
    """Do the job and report on the envelope's descriptor, in a process that is nobody else's; the exit status."""
    name_process(PROCESS_NAME)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # a pool process ignores some of them, and that is inherited
    assignment = envelope.assignment
    logs.configure(assignment.log_level, assignment.log_format, job=assignment.job_id, attempt=assignment.attempt)
    report = Report(envelope.report_fd)
    try:
        outcome = (pipeline or _shipped_pipeline(envelope))(assignment, report)
        if isinstance(outcome, Wanted):
            report.wanted(outcome)
        else:
            report.result(outcome)
    except Exception as error:
        failure = failure_of(error)
        if failure.code == "internal_error":
            logger.exception("the job failed")
        else:
            logger.error("the job failed: %s: %s", failure.code, failure.message, exc_info=error)
        report.failure(failure)
    return 0


def _shipped_pipeline(envelope: Envelope) -> Pipeline:
    # Imported late: this is what loads torch, and from here on a failure to do so is reported.
    if "attention" in envelope.assignment.spec:
        from prunectl.worker import picturing

        draw: Pipeline = picturing.run
        return draw
    from prunectl.worker import pipeline, reload

    # Here, where this process has imported all and computed nothing, is the last moment to fork a fresh one.
    return partial(pipeline.run, prover=reload.Prover.forked(unneeded=[envelope.report_fd]))


if __name__ == "__main__":
    sys.exit(main())
