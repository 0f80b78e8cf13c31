"""Where models come from: the Hub, a trained XLM-R with its own head, classifiers with labels and without."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from support import models
from support.command import Prunectl
from support.hub_server import HubServer
from support.training import Trained

WORDS = ("names", "modules", "strings", "files", "numbers", "objects")


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer().running() as server:
        yield server


def test_a_hub_id_with_a_revision(prunectl: Prunectl, hub: HubServer, tmp_path: Path) -> None:
    directory = models.build(tmp_path / "tiny", "roberta", "fill-mask")
    commit = hub.add("acme/tiny-roberta", directory).commit
    user = Prunectl(prunectl.home, env={"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")})
    job_id = user.ok(
        "submit", "--model", f"acme/tiny-roberta@{commit}", "--heads", "0.3", "--wait", "--max-samples", "32"
    )
    job = user.json("show", job_id)
    assert job["model"]["name"] == f"acme/tiny-roberta@{commit}"
    assert {"eval_loss", "eval_accuracy", "eval_agreement"} <= job["metrics"].keys()
    unknown = user.run("submit", "--model", "acme/no-such-model", "--heads", "0.3")
    assert (unknown.returncode, unknown.stdout) == (2, "")


def test_a_private_hub_model_needs_the_submitters_token(prunectl: Prunectl, hub: HubServer, tmp_path: Path) -> None:
    hub.add("acme/private", models.build(tmp_path / "tiny", "bert", "feature-extraction"), private=True)
    surroundings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
    submit = ("submit", "--model", "acme/private", "--heads", "0.5", "--wait", "--max-samples", "32")
    assert Prunectl(prunectl.home, env=surroundings).run(*submit).returncode != 0
    job_id = Prunectl(prunectl.home, env={**surroundings, "HF_TOKEN": hub.token}).ok(*submit)
    everything = [path.read_bytes() for path in (prunectl.home / "prunectl").rglob("*") if path.is_file()]
    assert not [1 for content in everything if hub.token.encode() in content], f"job {job_id} left the token behind"


def test_a_trained_xlmr_is_pruned_and_stays_better_than_chance(prunectl: Prunectl, xlmr_mlm: Trained) -> None:
    assert xlmr_mlm.loss < xlmr_mlm.guess - 0.3
    xlmr = xlmr_mlm.directory
    job_id = prunectl.ok(
        "submit",
        "--model",
        str(xlmr),
        "--heads",
        "0.25",
        "--ffn",
        "0.3",
        "--no-refit",
        "--wait",
        "--max-samples",
        "256",
    )
    job = prunectl.json("show", job_id)
    assert job["labels"] == "text"
    loss, accuracy = job["metrics"]["eval_loss"], job["metrics"]["eval_accuracy"]
    assert loss["before"] < loss["after"] < xlmr_mlm.guess
    assert 0.02 < accuracy["after"] <= accuracy["before"]
    assert loss["n"] == 256
    checkpoint = unquote(urlsplit(job["artifacts"]["checkpoint"]).path)
    done = subprocess.run(
        [sys.executable, "-m", "support.proof", str(xlmr), checkpoint],
        cwd=Path(__file__).parents[1], text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) <= 1e-5


def test_a_classifier_with_labels_and_without(prunectl: Prunectl, tmp_path: Path) -> None:
    directory = models.build(tmp_path / "classifier", "distilbert", "text-classification")
    rows = [{"text": f"A text about {WORDS[i % 6]} number {i}.", "label": i % 3} for i in range(60)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job_id = prunectl.ok("submit", "--model", str(directory), "--heads", "0.5", "--data", str(data), "--wait")
    job = prunectl.json("show", job_id)
    assert job["labels"] == "data"
    assert {"eval_accuracy", "eval_f1", "eval_loss"} <= job["metrics"].keys()
    assert job["conditions"]["n_calibration"] + job["conditions"]["n_evaluation"] == 60
    unlabelled = prunectl.ok("submit", "--model", str(directory), "--ffn", "0.5", "--wait", "--max-samples", "32")
    job = prunectl.json("show", unlabelled)
    assert job["labels"] == "model"
    assert job["metrics"]["eval_agreement"]["before"] == 1.0
