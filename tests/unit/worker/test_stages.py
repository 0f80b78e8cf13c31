"""Stages that a recipe of several steps enters more than once."""

from __future__ import annotations

import os

from prunectl.worker.report import Received, Report


def test_a_stage_that_is_entered_again_goes_on_and_the_bar_never_goes_back() -> None:
    read, write = os.pipe()
    report, received = Report(write), Received()
    progress: list[float] = []
    try:
        for name in ("score", "prune", "score", "prune", "save"):
            with report.stage(name):  # type: ignore[arg-type]
                report.progress(0.5)
            received.feed(os.read(read, 65536))
            progress.append(received.progress)
            assert received.stage == name
    finally:
        os.close(read)
        os.close(write)
    assert [stage.name for stage in report.stages] == ["score", "prune", "save"]
    assert progress == sorted(progress) and received.faults == 0
