"""A gate's verdict on a smaller model that isn't faster, and on one that is: the same each time it is asked."""

from __future__ import annotations

import pytest

from support.command import Prunectl

RUNS = 5


def outcomes(prunectl: Prunectl, *recipe: str) -> list[tuple[int, str]]:
    """(exit code, id) of ``RUNS`` jobs that are each measured anew."""
    settings = ("--max-samples", "32", "--bench-seq", "64", "--wait", "--force")
    found = []
    for _ in range(RUNS):
        done = prunectl.run("submit", "--model", "minilm", *recipe, *settings)
        found.append((done.returncode, done.stdout.strip()))
    assert len({job for _, job in found}) == RUNS
    return found


@pytest.mark.slow
def test_smaller_but_not_faster_fails_every_time_and_show_says_so(prunectl: Prunectl) -> None:
    # Rows of the embedding table go: a third of the bytes, and no multiply-add.
    found = outcomes(prunectl, "--vocab", "builtin:python-docs", "--min-speedup", "1.5")
    assert [code for code, _ in found] == [6] * RUNS
    for _, job_id in found:
        job = prunectl.json("show", job_id)
        assert (job["state"], job["gate"]["passed"]) == ("succeeded", False)
        sizes = job["metrics"]["model_bytes"]
        assert sizes["after"] < 0.8 * sizes["before"]
        assert job["metrics"]["macs"]["after"] == job["metrics"]["macs"]["before"]
        page = prunectl.ok("show", job_id)
        assert "gate: failed" in page
        assert "smaller but not fast" in page and "where the gate asks for >= 1.5" in page


@pytest.mark.slow
def test_smaller_and_faster_passes_every_time(prunectl: Prunectl) -> None:
    found = outcomes(prunectl, "--layers", "4", "--min-speedup", "1.5")
    assert [code for code, _ in found] == [0] * RUNS
    for _, job_id in found:
        assert prunectl.json("show", job_id)["gate"]["passed"] is True
        page = prunectl.ok("show", job_id)
        assert "gate: passed" in page and "smaller but not" not in page
