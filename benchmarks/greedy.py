"""Greedy layer pruning against choosing layers without looking, at the same sizes and with the same recovery.

``python -m benchmarks.greedy`` takes a trained classifier (all-MiniLM-L6-v2 under a head that tells packages apart) of six
layers and removes one, two and three: by greedy search, nearest the output, at random (several draws) and by block
influence. Each result is fine-tuned on the same texts and judged on the same held-out ones, which no choice has seen.
Writes the section "Greedy layer pruning" of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.local_jobs import LocalJobs
from benchmarks.page import write_section

METRIC = "eval_accuracy"
DRAWS = (1, 2, 3)
"""Seeds of the random choices. Texts, training and everything else have the search's seed in every row."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.greedy", description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=3, help="how many go at most")
    parser.add_argument("--training", type=int, default=400, help="texts that are trained on and chosen by")
    parser.add_argument("--held-out", type=int, default=600, help="texts that every row is judged on")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks/minilm-packages"), help="the classifier")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        document = run(given, Path(home))
    body = render(document, given)
    sys.stdout.write(body)
    if given.layers >= 3:  # not where the benchmark itself is tried in small
        write_section("Greedy layer pruning", body)
    line = json.dumps(document)
    if given.output:
        given.output.write_text(line)
    sys.stdout.write(line + "\n")
    return 0


def run(given: argparse.Namespace, home: Path) -> dict[str, Any]:
    from benchmarks import pruning_data

    from prunectl.pruning.depth import choose
    from prunectl.recipe import Recipe
    from support.pipeline import upload

    train, held_out = pruning_data.texts()
    model = pruning_data.classifier(given.cache.absolute(), train)
    config = json.loads((model / "config.json").read_text())
    jobs = LocalJobs(home)

    def sent(rows: list[Any], name: str) -> str:
        return upload(home, "\n".join(json.dumps({"text": r.text, "label": r.label}) for r in rows), name)

    rows = sent(train[: given.training], "train.jsonl")
    evaluation = {
        "data": sent(held_out[: given.held_out], "held.jsonl"),
        "calibration": rows,
        "max_length": pruning_data.MAX_LENGTH,
    }
    training = {"recover": "finetune", "recover_epochs": given.epochs, "recover_data": rows, "recover_rate": 1e-4}
    search = jobs.submit(model, {"greedy_layers": given.layers, **training}, evaluation)
    ended = jobs.run(workers=given.workers, tell=_tell)[search]
    assert ended.result is not None, ended.failure
    found = ended.result["search"]
    # The others' removed layers as indices, so that all train and are measured as the search's candidates were; what the
    # search has tried itself is found instead of trained again.
    choices: dict[tuple[str, int], list[str]] = {}
    influence = _influence(model, config, train, given.training)
    for number in range(1, given.layers + 1):
        wanted = {"top layers": [choose(config, Recipe(layers=number, layer_choice="top"))]}
        wanted["random"] = [choose(config, Recipe(layers=number, layer_choice="random", seed=seed)) for seed in DRAWS]
        wanted["block influence"] = [choose(config, Recipe(layers=number), influence)]
        for name, sets in wanted.items():
            choices[name, number] = [
                jobs.submit(model, {"layers": list(removed), **training}, {**evaluation, "selection": 0.15})
                for removed in sets
            ]
    jobs.run(workers=given.workers, tell=_tell)
    results = []
    for number in range(1, given.layers + 1):
        step = found["steps"][number - 1]
        ours = step["held_out"]
        for name in ("top layers", "random", "block influence"):
            measured = [jobs.result(job)["metrics"][METRIC] for job in choices[name, number]]
            theirs = statistics.mean(m["after"] for m in measured)
            error = (ours["stderr"] ** 2 + statistics.mean(m["stderr"] for m in measured) ** 2) ** 0.5
            results.append(
                {
                    "measure": f"accuracy without {number} of 6 layers",
                    "ours": ours["after"],
                    "stderr": ours["stderr"],
                    "n": ours["n"],
                    "removed": step["removed"],
                    "peer": name + (f", mean of {len(measured)} draws" if name == "random" else ""),
                    "theirs": theirs,
                    "theirs_removed": [
                        jobs.result(job)["structure"]["removed_layers"] for job in choices[name, number]
                    ],
                    "unit": "accuracy",
                    "ratio": ours["after"] / theirs,
                    "spread": [ours["after"] - theirs - 1.96 * error, ours["after"] - theirs + 1.96 * error],
                    "target": f"> {name}",
                    "met": ours["after"] > theirs,
                }
            )
    return {
        "benchmark": "greedy",
        "machine": ended.result["conditions"]["machine"],
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "unpruned": found["steps"][0]["held_out"]["before"],
        "trainings": found["trainings"],
        "cpu_seconds": found["cpu_seconds"],
        "results": results,
    }


def render(document: dict[str, Any], given: argparse.Namespace) -> str:
    rows = []
    for result in document["results"]:
        low, high = result["spread"]
        removed = ", ".join(map(str, result["removed"]))
        theirs = " / ".join(", ".join(map(str, layers)) for layers in result["theirs_removed"])
        rows.append(
            f"| {len(result['removed'])} | {removed} | {result['ours']:.4f} ± {result['stderr']:.4f} | {result['peer']} | "
            f"{theirs} | {result['theirs']:.4f} | {result['ours'] - result['theirs']:+.4f} ({low:+.3f} to {high:+.3f}) |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    return f"""\
`make bench-greedy`: a classifier of 16 classes on all-MiniLM-L6-v2 (6 layers, unpruned accuracy {document["unpruned"]:.4f}); the layers
that go chosen by greedy search, or by a rule that trains nothing to choose. Every row is fine-tuned for {given.epochs} epoch(s) on the same
{given.training} texts (15 % of them kept apart, which the search chooses by) and judged on n = {given.held_out} others. ± is the standard
error over texts; the interval of the difference, 95 %, takes the two as independent, which is too wide as the texts are the same.
The search trained {document["trainings"]} candidates in {document["cpu_seconds"]:.0f} CPU seconds and serves all sizes.

| gone | greedy's | accuracy | against | its layers | accuracy | difference |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

{datetime.date.today().isoformat()}; {document["machine"]}; {versions}.
"""


def _influence(model: Path, config: dict[str, Any], train: list[Any], number: int) -> list[float]:
    from benchmarks import pruning_data

    from prunectl.checkpoints.load import load_original
    from prunectl.evaluation.objectives import objective_for
    from prunectl.pruning import layers
    from prunectl.pruning.vocabulary import load_tokenizer

    whole: Any = load_original(model, config)
    objective: Any = objective_for(
        "text-classification", load_tokenizer(model), examples=train[: min(number, 256)],
        max_length=pruning_data.MAX_LENGTH, seed=0, model=whole,
    )  # fmt: skip
    return layers.block_influence(whole, objective.batches(16), objective.loss)


def _tell(job: Any) -> None:
    recipe = job.spec["recipe"]
    what = f"without {recipe['layers']}" if recipe.get("layers") else "the search"
    value = "" if job.result is None else f" {job.result['metrics'][METRIC]['after']:.4f}"
    sys.stderr.write(f"{what}: {job.state}{value}{'' if job.failure is None else ' ' + job.failure.message}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
