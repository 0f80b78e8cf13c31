"""The main job on the embedded stack: nothing set, nothing installed beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from support.command import Prunectl

ALWAYS = {
    "parameters",
    "nonzero_parameters",
    "macs",
    "model_bytes",
    "latency_p50_seconds",
    "latency_p95_seconds",
    "throughput_samples_per_second",
    "peak_memory_bytes",
}


def checkpoint_of(job: dict) -> Path:
    return Path(unquote(urlsplit(job["artifacts"]["checkpoint"]).path))


@pytest.fixture(scope="session")
def pruned(prunectl: Prunectl, minilm: Path) -> dict:
    """The first job: a directory, heads only."""
    printed = prunectl.ok(
        "submit", "--model", str(minilm), "--heads", "0.3", "--no-refit", "--wait", "--max-samples", "64"
    )
    assert len(printed.splitlines()) == 1
    return prunectl.json("show", printed)


def test_a_job_has_every_metric_before_and_after(pruned: dict) -> None:
    assert pruned["schema_version"] == 1
    assert pruned["state"] == "succeeded"
    for name in ALWAYS:
        assert pruned["metrics"][name]["before"] > 0, name
        assert pruned["metrics"][name]["after"] > 0, name
    for name in ("eval_cosine", "eval_overlap_at_10"):
        measure = pruned["metrics"][name]
        assert measure["before"] == 1.0
        assert 0 < measure["after"] < 1
        assert measure["stderr"] > 0
        assert measure["n"] == 64
    assert pruned["metrics"]["speedup"]["after"] > 0
    stages = [stage["name"] for stage in pruned["stages"]]
    assert stages == ["fetch", "baseline", "score", "prune", "save", "reload", "evaluate", "benchmark"]


def test_the_fraction_says_how_much_goes(pruned: dict) -> None:
    layers = pruned["structure"]["layers"]
    assert sum(layer["heads_total"] for layer in layers) == 72
    assert sum(len(layer["heads_kept"]) for layer in layers) == 72 - 21  # floor(0.3 x 72)
    assert all(layer["ffn_kept"] == layer["ffn_total"] == 1536 for layer in layers)
    metrics = pruned["metrics"]
    assert metrics["parameters"]["before"] - metrics["parameters"]["after"] == 21 * 32 * (4 * 384 + 3)


def test_the_checkpoint_equals_the_masked_original_in_a_fresh_process(pruned: dict, minilm: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "support.proof", str(minilm), str(checkpoint_of(pruned))],
        cwd=Path(__file__).parents[1],
        text=True,
        capture_output=True,
        check=True,
    )
    assert float(done.stdout) <= 1e-5


def test_a_published_checkpoint_is_whole_and_has_no_pickle(pruned: dict) -> None:
    directory = checkpoint_of(pruned)
    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "prunectl.json", "SHA256SUMS"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=directory, check=True)
    manifest = json.loads((directory / "prunectl.json").read_text())
    assert manifest["metrics"]["parameters"]["after"] == pruned["metrics"]["parameters"]["after"]


def test_an_identical_job_is_the_first_one_unless_forced(prunectl: Prunectl, pruned: dict, minilm: Path) -> None:
    same = ("submit", "--model", str(minilm), "--heads", "0.3", "--no-refit", "--max-samples", "64")
    assert prunectl.ok(*same) == pruned["id"]
    forced = prunectl.ok(*same, "--force")
    assert forced != pruned["id"]
    prunectl.run("cancel", forced)
    prunectl.run("wait", forced)


def test_a_zoo_name_and_both_axes(prunectl: Prunectl) -> None:
    job_id = prunectl.ok(
        "submit",
        "--model",
        "minilm",
        "--heads",
        "0.25",
        "--ffn",
        "0.5",
        "--wait",
        "--max-samples",
        "32",
        "--tag",
        "team=search",
    )
    job = prunectl.json("show", job_id)
    assert sum(layer["ffn_kept"] for layer in job["structure"]["layers"]) == 6 * 1536 // 2
    assert job["tags"] == {"team": "search"}
    assert [item["id"] for item in prunectl.json("list", "--tag", "team=search")["items"]] == [job_id]
    assert job["metrics"]["macs"]["after"] < job["metrics"]["macs"]["before"]


def test_both_engines_keep_the_same_heads(prunectl: Prunectl, minilm: Path) -> None:
    recipe = (
        "submit",
        "--model",
        str(minilm),
        "--heads",
        "0.4",
        "--seed",
        "3",
        "--min-heads",
        "1",
        "--wait",
        "--max-samples",
        "32",
    )
    native = prunectl.json("show", prunectl.ok(*recipe, "--engine", "native", "--scorer", "taylor"))
    textpruner = prunectl.json("show", prunectl.ok(*recipe, "--engine", "textpruner"))
    kept = [[layer["heads_kept"] for layer in job["structure"]["layers"]] for job in (native, textpruner)]
    assert kept[0] == kept[1]
    assert sum(map(len, kept[0])) == 72 - 28


def test_an_impossible_gate_ends_with_6(prunectl: Prunectl, pruned: dict) -> None:
    done = prunectl.run(
        "submit", "--model", "minilm", "--heads", "0.1", "--min-speedup", "50", "--wait", "--max-samples", "32"
    )
    assert done.returncode == 6, done.stderr
    job = prunectl.json("show", done.stdout.strip())
    assert job["state"] == "succeeded"
    assert job["gate"]["passed"] is False


def test_pull_brings_the_whole_checkpoint(prunectl: Prunectl, pruned: dict, tmp_path: Path) -> None:
    prunectl.ok("pull", pruned["id"], str(tmp_path / "out"))
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "out", check=True)


def test_spec_submits_the_same_job_again(prunectl: Prunectl, pruned: dict) -> None:
    spec = prunectl.ok("spec", pruned["id"])
    assert prunectl.ok("submit", "-f", "-", stdin=spec) == pruned["id"]


def test_logs_tell_what_happened(prunectl: Prunectl, pruned: dict) -> None:
    text = prunectl.ok("logs", pruned["id"])
    assert "reload" in text
    assert prunectl.run("logs", "-f", pruned["id"]).returncode == 0


def test_a_corrupt_model_fails_with_a_code_and_a_hint(prunectl: Prunectl, minilm: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (broken / name).write_bytes((minilm / name).read_bytes())
    (broken / "model.safetensors").write_bytes((minilm / "model.safetensors").read_bytes()[:1_000_000])
    done = prunectl.run("submit", "--model", str(broken), "--heads", "0.3", "--wait")
    assert done.returncode == 1
    job = prunectl.json("show", done.stdout.strip())
    assert job["state"] == "failed"
    assert job["error"]["code"] == "weights_corrupt"
    assert job["error"]["hint"]
    assert job["attempt"] == 1
