"""The flags of a greedy search, what a waiting one says of itself, and its steps in ``show``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from prunectl.cli.job_page import print_page
from prunectl.jobs.ports import SearchStore
from prunectl.jobs.searches import new_candidates
from prunectl.wiring import Services


def test_submit_takes_the_flags_and_refuses_what_does_not_fit(service: Any, run: Any, model: str) -> None:
    job = json.loads(
        run("submit", "-m", model, "--greedy-layers", "1", "--keep-performance", "0.95", "--candidates", "2",
            "--selection", "0.2", "-o", "json").out
    )  # fmt: skip
    recipe = job["recipe"]
    assert (recipe["greedy_layers"], recipe["keep_performance"], recipe["candidates"]) == (1, 0.95, 2)
    assert (recipe["recover"], job["evaluation"]["selection"]) == ("distill", 0.2)
    assert "greedy1 keep.95 distill" in run("list").out
    for flags, said in (
        (("--greedy-layers", "2"), "nearest that can be met: greedy_layers=1"),
        (("--greedy-layers", "1", "--layers", "1"), "give one"),
        (("--greedy-layers", "some"), "--greedy-layers: 'some' is not valid"),
    ):
        refused = run("submit", "-m", model, *flags)
        assert refused.code == 2 and said in refused.err
    plan = run("submit", "-m", model, "--greedy-layers", "1", "--dry-run")
    assert "a search of 1 steps: trains at most 2 candidates" in plan.out + plan.err


def test_a_waiting_search_says_what_it_waits_for(service: Any, run: Any, model: str, services: Services) -> None:
    job_id = run("submit", "-m", model, "--greedy-layers", "1").lines[0]
    job = services.store.claim(["cpu"], worker="w1", device="cpu", lease_seconds=60)
    assert job is not None and job.id == job_id
    searches: SearchStore | None = services.searches
    assert searches is not None
    sweep, new = new_candidates(job, None, [(0,), (1,)])
    assert searches.wait_for(job.lease, sweep, new)
    why = json.loads(run("why", job_id, "-o", "json").out)
    assert why["reasons"][0]["code"] == "candidates"
    assert why["reasons"][0]["data"] == {"sweep_id": sweep.id, "queued": 2}
    shown = json.loads(run("show", job_id, "-o", "json").out)
    assert (shown["state"], shown["waits_for"]) == ("queued", sweep.id)
    assert len(json.loads(run("list", "--sweep", sweep.id, "-o", "json").out)["items"]) == 2
    run("cancel", job_id)
    states = {item["state"] for item in json.loads(run("list", "--sweep", sweep.id, "-o", "json").out)["items"]}
    assert states == {"cancelled"}


def test_show_draws_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    measure = {"before": 0.9, "after": 0.88, "stderr": 0.01, "n": 100}
    rows = [{"layer": layer, "job_id": f"j{layer}", "value": value} for layer, value in ((3, 0.88), (4, 0.75))]
    step = {"step": 1, "layer": 3, "removed": [3], "job_id": "j3", "selection": measure, "held_out": measure}
    search = {
        "metric": "eval_accuracy",
        "sweep_id": "s1",
        "steps": [{**step, "kept": 0.9778, "accepted": True, "candidates": rows}],
        "removed": [3],
        "trainings": 2,
        "cpu_seconds": 61.4,
    }
    job = {
        "id": "j",
        "model": {"name": "m"},
        "recipe": {"greedy_layers": 1},
        "state": "succeeded",
        "created_at": "2026-01-01T00:00:00.000Z",
        "search": search,
    }
    print_page(job)
    text = capsys.readouterr().out
    assert "greedy search by eval_accuracy" in text
    assert "3:0.8800 4:0.7500" in text and "0.9778" in text and "± 0.01" in text
    assert "2 candidates, 61 CPU seconds; prunectl list --sweep s1" in text
