"""ONNX and int8, dynamic and static, of a pruned classifier beside the unpruned one's own, all interleaved in one run.

``python -m benchmarks.quantized``. The pruned model is a whole job's (`--target-macs`, so uneven, with its refit); the files
of the unpruned one are written and quantized in the same way. Static int8 takes its scales from training texts, as many as
a job does. Each file is held against the torch model that it came from, judged on the same held-out texts, and takes turns
with all the others when it is timed.
Writes the section "ONNX and int8" of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.local_jobs import LocalJobs, checkpoint_of
from benchmarks.page import write_section

METRIC = "eval_accuracy"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantized", description=__doc__.split("\n")[0])
    parser.add_argument("--held-out", type=int, default=2000, help="texts that every model is judged on")
    parser.add_argument("--target-macs", type=float, default=0.5, help="share of the multiply-adds that stays")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks/minilm-packages"), help="the classifier")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        document = run(given, Path(home))
    body = render(document, given)
    sys.stdout.write(body)
    if given.held_out >= 2000:  # not where the benchmark itself is tried in small
        write_section("ONNX and int8", body)
    line = json.dumps(document)
    if given.output:
        given.output.write_text(line)
    sys.stdout.write(line + "\n")
    return 0


def run(given: argparse.Namespace, home: Path) -> dict[str, Any]:
    import torch
    from benchmarks import pruning_data
    from transformers import AutoTokenizer

    from prunectl.checkpoints import load as checkpoint_load
    from prunectl.checkpoints import onnx_files
    from prunectl.evaluation import encoding, latency, quality
    from prunectl.evaluation.latency import device_name
    from prunectl.worker.exporting import parity
    from prunectl.worker.measuring import SCALE_EXAMPLES
    from support.pipeline import upload

    torch.set_num_threads(given.threads)
    train, held_out = pruning_data.texts()
    held_out = held_out[: given.held_out]
    directory = pruning_data.classifier(given.cache.absolute(), train)
    jobs = LocalJobs(home, threads=given.threads)
    files = {
        name: upload(
            home, "\n".join(json.dumps({"text": row.text, "label": row.label}) for row in rows), f"{name}.jsonl"
        )
        for name, rows in (("data", held_out), ("calibration", train))
    }
    recipe = {"target_macs": given.target_macs, "quantize": "int8"}
    evaluation = {**files, "max_length": pruning_data.MAX_LENGTH, "bench_seq": given.seq}
    job_id = jobs.submit(directory, recipe, evaluation)
    job = jobs.run(tell=lambda ended: sys.stderr.write(f"the job: {ended.state}\n"))[job_id]
    assert job.result is not None, job.failure
    checkpoint = checkpoint_of(job)
    config = json.loads((directory / "config.json").read_text())
    whole: Any = checkpoint_load.load_original(directory, config)
    small: Any = checkpoint_load.load_pruned(checkpoint)
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)

    exported, quantized = home / "model.onnx", home / "quantized.onnx"
    onnx_files.export(whole, exported, token_types=True)
    onnx_files.quantize(exported, quantized)
    paths = {
        ("unpruned", "ONNX"): exported,
        ("unpruned", "int8"): quantized,
        ("pruned", "ONNX"): checkpoint / onnx_files.MODEL,
        ("pruned", "int8"): checkpoint / onnx_files.QUANTIZED,
    }
    scaling = [
        encoding.collate(tokenizer, [row])
        for row in encoding.encode(whole, tokenizer, train[:SCALE_EXAMPLES], pruning_data.MAX_LENGTH)
    ]
    for side in ("unpruned", "pruned"):
        paths[side, "static int8"] = home / f"{side}-static.onnx"
        onnx_files.quantize_static(paths[side, "ONNX"], paths[side, "static int8"], scaling)
    models: dict[tuple[str, str], Any] = {("unpruned", "torch"): whole, ("pruned", "torch"): small}
    for key, path in paths.items():
        models[key] = onnx_files.OnnxModel(path, models[key[0], "torch"].config, threads=given.threads)
    sizes = {("unpruned", "torch"): directory, ("pruned", "torch"): checkpoint} | paths

    rows = encoding.encode(whole, tokenizer, held_out[:64], pruning_data.MAX_LENGTH)
    texts = [encoding.collate(tokenizer, [rows[i] for i in group]) for group in encoding.by_length(rows, 16)]
    timed = latency.measure(
        {" ".join(key): model for key, model in models.items()},
        batch=given.batch, seq=given.seq, threads=given.threads, rounds=given.rounds, budget_seconds=240,
    )  # fmt: skip
    results = []
    for side in ("unpruned", "pruned"):
        for kind in ("torch", "ONNX", "int8", "static int8"):
            model = models[side, kind]
            largest, mean, _ = (0.0, 0.0, 0.0) if kind == "torch" else parity(models[side, "torch"], model, texts)
            found = quality.evaluate(
                model, tokenizer, "text-classification", held_out,
                max_length=pruning_data.MAX_LENGTH, batch_size=16, seed=0, reference=None,
            )[METRIC]  # fmt: skip
            path, of = sizes[side, kind], sizes["unpruned", kind]
            speedup, error = timed.speedup(f"unpruned {kind}", f"{side} {kind}")
            results.append(
                {
                    "measure": f"{side}, {kind}",
                    "ours": timed.latencies[f"{side} {kind}"].latency_p50_seconds,
                    "peer": f"unpruned, {kind}",
                    "theirs": timed.latencies[f"unpruned {kind}"].latency_p50_seconds,
                    "unit": "s",
                    "ratio": speedup,
                    "spread": [speedup - 1.96 * (error or 0), speedup + 1.96 * (error or 0)],
                    "target": None,
                    "met": None,
                    "bytes": _bytes(path),
                    "bytes_unpruned": _bytes(of),
                    "max_abs_error": largest,
                    "mean_abs_error": mean,
                    "accuracy": found.value,
                    "stderr": found.stderr,
                    "n": found.n,
                }
            )
    return {
        "benchmark": "quantized",
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": device_name(torch.device("cpu")),
        "conditions": timed.conditions,
        "n_scales": len(scaling),
        "heads_kept": [len(layer["heads_kept"]) for layer in job.result["structure"]["layers"]],
        "ffn_kept": [layer["ffn_kept"] for layer in job.result["structure"]["layers"]],
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers", "onnx", "onnxruntime")},
        "results": results,
    }


def _bytes(path: Path) -> int:
    found = path.glob("*.safetensors") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in found)


def render(document: dict[str, Any], given: argparse.Namespace) -> str:
    rows = []
    for result in document["results"]:
        error = f"{result['max_abs_error']:.2g} / {result['mean_abs_error']:.2g}" if result["max_abs_error"] else ""
        rows.append(
            f"| {result['measure']} | {result['bytes'] / 1e6:.1f} MB | {error} | {result['accuracy']:.4f} ± {result['stderr']:.4f} | "
            f"{1000 * result['ours']:.1f} ms | {result['ratio']:.2f} × ({result['spread'][0]:.2f}–{result['spread'][1]:.2f}) |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    n, rounds = document["results"][0]["n"], document["conditions"]["rounds"]
    return f"""\
`make bench-quantized`: the 16-class classifier on all-MiniLM-L6-v2 and what `--target-macs {given.target_macs} --quantize int8` makes of it
(heads kept {document["heads_kept"]}, neurons {document["ffn_kept"]}), each as torch, ONNX, dynamic int8 and
static int8, whose scales come from {document["n_scales"]} training texts. Errors are largest and mean absolute differences of the
logits to the torch model of the same row's side on 64 texts; accuracy on n = {n:,} held-out texts with its standard error; p50
latency of a batch of {given.batch} × {given.seq} tokens, all eight taking turns for {rounds} rounds on {given.threads} thread(s); the last
column is over the unpruned model in the same form, with a 95 % interval by bootstrap over rounds.

| model | size | error, largest / mean | accuracy | p50 | speed-up |
|---|---|---|---|---|---|
{chr(10).join(rows)}

{datetime.date.today().isoformat()}; {document["machine"]}; {versions}.
"""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
