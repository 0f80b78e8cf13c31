"""A runner: a process that does one job and ends; ``python -m prunectl.worker.runner``, started by a supervisor."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

from prunectl.schemas import Result
from prunectl.worker import logs
from prunectl.worker.assignment import Assignment, Envelope
from prunectl.worker.failures import failure_of
from prunectl.worker.lifeline import die_with_parent
from prunectl.worker.report import Report, Wanted

logger = logging.getLogger(__name__)

Pipeline = Callable[[Assignment, Report], Result | Wanted]


def main(pipeline: Pipeline | None = None) -> int:
    """Read the job from standard input, run it and report; the exit status (0 also for a failure that was reported)."""
    envelope = Envelope.from_json(sys.stdin.buffer.read())
    die_with_parent(envelope.parent_pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # a pool process ignores some of them, and that is inherited
    assignment = envelope.assignment
    logs.configure(assignment.log_level, assignment.log_format, job=assignment.job_id, attempt=assignment.attempt)
    report = Report(envelope.report_fd)
    try:
        outcome = (pipeline or _shipped_pipeline(assignment))(assignment, report)
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


def _shipped_pipeline(assignment: Assignment) -> Pipeline:
    # Imported late: this is what loads torch, and from here on a failure to do so is reported.
    if "attention" in assignment.spec:
        from prunectl.worker import picturing

        draw: Pipeline = picturing.run
        return draw
    from prunectl.worker import pipeline

    run: Pipeline = pipeline.run
    return run


if __name__ == "__main__":
    sys.exit(main())
