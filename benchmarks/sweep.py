"""A sweep of recipes on one trained classifier, one worker, against a loop of as many TextPruner runs.

``python -m benchmarks.sweep``. Ours are whole jobs through the job service and the supervisor, from before its first
runner has imported anything, each with what the peer doesn't do: a refit, a reload proved in a fresh process, and a
latency benchmark; a second line counts only the stages that the peer has, too. The peer's loop stays in one process that
has everything imported; a run loads, scores the same calibration texts, prunes to the same counts, evaluates the same
texts with our batching, and saves. Its runs are alike, so few are run and multiplied.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from benchmarks import pruning_data
from benchmarks.local_jobs import LocalJobs
from benchmarks.pruning_quality import right
from benchmarks.report import Measurement, Report
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prunectl.evaluation.objectives import objective_for
from prunectl.pruning import engine
from prunectl.recipe import Recipe
from prunectl.worker.source import CALIBRATION_SAMPLES

HEADS, FFN = (0.2, 0.35, 0.5), (0.2, 0.35, 0.5, 0.7)
COMMON_STAGES = ("fetch", "baseline", "score", "prune", "save", "evaluate")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", type=int, default=len(HEADS) * len(FFN), help="of the grid's, the first so many")
    parser.add_argument("--peer-runs", type=int, default=3, help="runs of TextPruner; multiplied to as many as recipes")
    parser.add_argument("--evaluation", type=int, default=pruning_data.HELD_OUT, help="texts that each model answers")
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks/minilm-packages"), help="the classifier")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    report = Report("sweep", packages=("torch", "transformers", "textpruner"))
    train, held_out = pruning_data.texts()
    held_out = held_out[: given.evaluation]
    directory = pruning_data.classifier(given.cache, train).absolute()
    grid = list(itertools.product(HEADS, FFN))[: given.recipes]
    theirs = [one_run(directory, train, held_out, *grid[number % len(grid)]) for number in range(given.peer_runs)]
    total = statistics.median(theirs) * len(grid)
    peer = f"TextPruner in a loop ({given.peer_runs} runs of {statistics.median(theirs):.1f} s, multiplied)"
    for refit in (False, True):
        with tempfile.TemporaryDirectory() as home:
            seconds, jobs = ours(Path(home), directory, train, held_out, grid, given, refit=refit)
        spent: Counter[str] = Counter()
        for job in jobs:
            for stage in job.result["stages"]:
                spent[stage["name"]] += stage["seconds"]
        shared = Counter(stage["name"] for job in jobs for stage in job.result["stages"] if stage["reused"])
        where = ", ".join(f"{name} {value:.1f}" for name, value in spent.most_common())
        note = (
            f"n = {len(held_out)}; seconds by stage: {where}, outside of stages {seconds - sum(spent.values()):.1f}; "
            f"reused: {dict(shared)}"
        )
        name = f"sweep of {len(grid)} recipes, one worker{', refitted' if refit else ''}"
        aim: dict[str, Any] = {} if refit else {"target": ">= 6", "target_is": "ratio"}
        report.add(Measurement(name, "s", [seconds], [total], peer, note=note, **aim))
        common = sum(spent[stage] for stage in COMMON_STAGES)
        report.add(Measurement(f"{name}, stages that the peer has", "s", [common], [total], peer))
    report.finish(given.output)
    return 0


def ours(
    home: Path,
    model: Path,
    train: list[Any],
    held_out: list[Any],
    grid: list[tuple[float, float]],
    given: Any,
    *,
    refit: bool,
) -> tuple[float, list[Any]]:
    """(seconds from the first submission to the last job's end, the jobs). Raises RuntimeError where one failed."""
    from support import pipeline

    jobs = LocalJobs(home, threads=given.threads)
    files = {
        flag: pipeline.upload(
            home, "\n".join(json.dumps({"text": row.text, "label": row.label}) for row in rows), f"{flag}.jsonl"
        )
        for flag, rows in (("data", held_out), ("calibration", train))
    }
    evaluation = {**files, "max_length": pruning_data.MAX_LENGTH, "bench_seq": pruning_data.MAX_LENGTH}
    start = time.perf_counter()
    for heads, ffn in grid:
        jobs.submit(model, {"heads": heads, "ffn": ffn, "refit": refit}, evaluation)
    ended = list(jobs.run(tell=lambda job: print(f"sweep: {job.id}: {job.state}", file=sys.stderr)).values())
    seconds = time.perf_counter() - start
    failed = [job for job in ended if job.result is None]
    if failed:
        raise RuntimeError(f"{len(failed)} jobs failed, the first with {failed[0].error}")
    return seconds, ended


def one_run(directory: Path, train: list[Any], held_out: list[Any], heads: float, ffn: float) -> float:
    """Seconds of one TextPruner run."""
    start = time.perf_counter()
    model: Any = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    objective = objective_for(
        "text-classification", tokenizer, examples=train[:CALIBRATION_SAMPLES], max_length=pruning_data.MAX_LENGTH,
        seed=0, model=model,
    )  # fmt: skip
    recipe = Recipe(heads=heads, ffn=ffn, engine="textpruner")
    masks = engine.choose_masks(model, recipe, objective.batches(16), objective.loss)
    engine.apply(model, masks, engine="textpruner")
    right(model, tokenizer, held_out)
    with tempfile.NamedTemporaryFile() as file:
        torch.save(model.state_dict(), file.name)
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
