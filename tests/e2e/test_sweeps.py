"""A real sweep on the embedded stack: three recipes of one model, from the command to the comparison."""

from __future__ import annotations

from pathlib import Path

from support import models
from support.command import Prunectl


def test_three_recipes_from_sweep_to_comparison(prunectl: Prunectl, tmp_path: Path) -> None:
    model = models.build(tmp_path / "tiny", "bert", "fill-mask", layers=2)
    flags = ("--model", str(model), "--heads", "0.25:0.75:0.25", "--max-samples", "16", "--max-drop", "1")
    done = prunectl.run("sweep", *flags, "--name", "grid", "--wait", timeout=300)
    assert done.returncode == 0, done.stderr + prunectl.logs()
    [sweep_id] = done.stdout.split()
    assert "3 jobs" in done.stderr and "3/3 done: 3 succeeded" in done.stderr

    sweep = prunectl.json("show", sweep_id)
    assert (sweep["state"], sweep["name"], sweep["counts"]["succeeded"], sweep["progress"]) == (
        "succeeded",
        "grid",
        3,
        1.0,
    )
    jobs = prunectl.json("list", "--sweep", sweep_id, "--sort", "id")["items"]
    assert [job["recipe"]["heads"] for job in jobs] == [0.25, 0.5, 0.75]
    assert [job["sweep_id"] for job in jobs] == [sweep_id] * 3
    sizes = [job["metrics"]["parameters"]["after"] for job in jobs]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3
    ids = [job["id"] for job in jobs]

    comparison = prunectl.json("compare", *ids, "--gate")
    assert [item["id"] for item in comparison["items"]] == ids
    assert any(item["front"] for item in comparison["items"])
    assert prunectl.json("why", ids[0])["reasons"][0]["code"] == "succeeded"

    # Again: everything is there already, so nothing runs.
    again = prunectl.json("sweep", *flags)
    assert (again["jobs"], again["shared"], again["state"]) == (3, 3, "succeeded")
    assert prunectl.run("wait", again["id"]).returncode == 0
    assert prunectl.run("cancel", "--sweep", again["id"]).stderr.strip() == "0 of 3 jobs cancelled"
