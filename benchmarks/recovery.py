"""What recovery wins back: one classifier cut to half of its heads and neurons, and then left, refitted, fine-tuned or
distilled.

``python -m benchmarks.recovery``. all-MiniLM-L6-v2 fine-tuned to tell Python packages apart; every row is a whole job. The
texts to train on have labels for fine-tuning and none for distillation; all rows are judged on the same held-out texts.
Writes the section "Recovery" of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.local_jobs import LocalJobs
from benchmarks.page import write_section

METRIC = "eval_accuracy"
CUT = {"heads": 0.5, "ffn": 0.5}
ROWS: dict[str, dict[str, Any]] = {
    "one-shot": {"refit": False},
    "refitted": {},
    "fine-tuned": {"recover": "finetune"},
    "distilled, no labels": {"recover": "distill"},
}
MARGIN = 0.01
"""What the distilled model may lose, beside a standard error of the difference."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__.split("\n")[0])
    parser.add_argument("--training", type=int, default=5000, help="texts that are trained on")
    parser.add_argument("--held-out", type=int, default=2000, help="texts that every row is judged on")
    parser.add_argument("--epochs", type=int, default=10, help="of recovery, at most")
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks/minilm-fine-tuned"), help="the classifier")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        document = run(given, Path(home))
    body = render(document, given)
    sys.stdout.write(body)
    if given.held_out >= 2000:  # not where the benchmark itself is tried in small
        write_section("Recovery", body)
    line = json.dumps(document)
    if given.output:
        given.output.write_text(line)
    sys.stdout.write(line + "\n")
    return 0


def run(given: argparse.Namespace, home: Path) -> dict[str, Any]:
    from benchmarks import pruning_data

    from support.pipeline import upload

    train, held_out = pruning_data.texts()
    train, held_out = train[: given.training], held_out[: given.held_out]
    model = pruning_data.fine_tuned(given.cache.absolute(), train)
    jobs = LocalJobs(home, threads=given.threads)

    def sent(rows: list[dict[str, Any]], name: str) -> str:
        return upload(home, "\n".join(json.dumps(row) for row in rows), name)

    labelled = [{"text": row.text, "label": row.label} for row in train]
    texts = {
        "finetune": sent(labelled, "labelled.jsonl"),
        "distill": sent([{"text": row["text"]} for row in labelled], "unlabelled.jsonl"),
    }
    evaluation = {
        "data": sent([{"text": row.text, "label": row.label} for row in held_out], "held.jsonl"),
        "calibration": texts["finetune"],
        "max_length": pruning_data.MAX_LENGTH,
        "bench_seq": pruning_data.MAX_LENGTH,
    }
    before, submitted = os.getloadavg()[0], {}
    for name, recipe in ROWS.items():
        if method := recipe.get("recover"):
            recipe = {**recipe, "recover_data": texts[method], "recover_epochs": given.epochs}
        submitted[name] = jobs.submit(model, {**CUT, **recipe}, evaluation)
    ended = jobs.run(tell=lambda job: sys.stderr.write(f"{job.spec['recipe']}: {job.state}\n"))
    load = os.getloadavg()[0]
    results = []
    for name, job_id in submitted.items():
        job = ended[job_id]
        assert job.result is not None, job.failure
        found, stages = job.result["metrics"][METRIC], job.result["stages"]
        lost, error = found["before"] - found["after"], found["difference_stderr"]
        distilled = name.startswith("distilled")
        results.append(
            {
                "measure": f"{METRIC}, {name}",
                "ours": found["after"],
                "stderr": found["stderr"],
                "n": found["n"],
                "difference": -lost,
                "difference_stderr": error,
                "peer": "unpruned",
                "theirs": found["before"],
                "unit": "accuracy",
                "ratio": found["after"] / found["before"],
                "spread": [-lost - 1.96 * error, -lost + 1.96 * error],
                "target": f"difference >= -({MARGIN} + one standard error)" if distilled else None,
                "met": lost <= MARGIN + error if distilled else None,
                "training_seconds": sum(stage["seconds"] for stage in stages if stage["name"] == "recover"),
                "speedup": job.result["metrics"]["speedup"]["after"],
            }
        )
    return {
        "benchmark": "recovery",
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{ended[submitted['refitted']].result['conditions']['machine']}, load {before:.1f} before and {load:.1f} after",
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "results": results,
    }


def render(document: dict[str, Any], given: argparse.Namespace) -> str:
    first = document["results"][0]
    error = (first["theirs"] * (1 - first["theirs"]) / (first["n"] - 1)) ** 0.5
    rows = [f"| unpruned | {first['theirs']:.4f} ± {error:.4f} | | | 1.00 × |"]
    for result in document["results"]:
        name = result["measure"].partition(", ")[2]
        trained = f"{result['training_seconds']:.0f} s" if result["training_seconds"] else "none"
        rows.append(
            f"| {name} | {result['ours']:.4f} ± {result['stderr']:.4f} | "
            f"{result['difference']:+.4f} ± {result['difference_stderr']:.4f} | {trained} | {result['speedup']:.2f} × |"
        )
    verdict = "met" if document["results"][-1]["met"] else "**not met**"
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    return f"""\
`make bench-recovery`: all-MiniLM-L6-v2 fine-tuned to tell 16 Python packages apart by a paragraph of their docstrings; half of its
heads and half of its neurons go, and what is left is recovered on {given.training:,} texts for {given.epochs} epochs at most. Accuracy on
n = {first["n"]:,} held-out texts; ± is the standard error, that of the difference paired text by text. Distillation learns from what the
unpruned model says and sees no label. It is to end within one standard error and one point of the unpruned model: {verdict}.
A trained row that equals the refitted one found no epoch that was better on the texts kept apart to choose by: the unpruned
classifier was trained on those as well, which flatters what is left of it before any training.

| recovery | accuracy | difference to the unpruned | training | latency |
|---|---|---|---|---|
{chr(10).join(rows)}

{datetime.date.today().isoformat()}; {document["machine"]}, {given.threads} thread(s); {versions}.
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
