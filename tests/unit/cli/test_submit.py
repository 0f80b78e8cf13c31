"""``submit``: flags, files, data, dry runs, waiting."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunectl.attention import read_spec
from prunectl.cli import waiting
from prunectl.cli.main import COMMANDS, load
from prunectl.recipe import Recipe
from prunectl.schemas import Evaluation, JobCreate
from prunectl.settings import Settings
from prunectl.wiring import Services
from support import service as support

pytestmark = pytest.mark.usefixtures("service")


def test_the_id_alone_is_on_stdout(run: Any, services: Services, model: str) -> None:
    ran = run("submit", "--model", model, "--heads", "0.3")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    [line] = ran.lines
    job = services.store.get(line)
    assert job is not None
    assert job.owner == "ada"
    assert job.spec["recipe"]["heads"] == 0.3


def test_every_field_of_a_job_has_a_flag() -> None:
    flags = {parameter.name for parameter in load(COMMANDS["submit"], "submit").params}
    fields = {*Recipe.model_fields, *Evaluation.model_fields, *JobCreate.model_fields} - {
        "recipe",
        "evaluation",
        "environment",
    }
    assert {"timeout" if name == "timeout_seconds" else name for name in fields} <= flags


def test_all_flags_reach_the_job(run: Any, services: Services, model: str) -> None:
    ran = run(
        "submit", "-m", model, "--heads", "0.25", "--ffn", ".5", "--scorer", "random", "--iterations", "3", "--even",
        "--multiple-of", "8", "--min-heads", "1", "--min-ffn", "4", "--no-refit", "--seed", "7", "--task", "fill-mask",
        "--metric", "accuracy", "--max-samples", "64",
        "--max-length", "32", "--max-drop", "0.01", "--min-speedup", "1.2",
        "--bench-batch", "1,16", "--bench-seq", "64", "--device", "cpu",
        "--priority", "-3", "--name", "n", "--tag", "a=b",
        "--tag", "c=d=e", "--timeout", "2h", "--retries", "0", "--data", "builtin:python-docs",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    job = services.store.get(ran.lines[0])
    assert job is not None
    spec = JobCreate.model_validate(job.spec)
    assert spec.recipe == Recipe(
        heads=0.25, ffn=0.5, scorer="random", iterations=3, even=True, multiple_of=8, min_heads=1, min_ffn=4, refit=False,
        seed=7
    )  # fmt: skip
    assert spec.evaluation.bench_batch == (1, 16)
    assert spec.evaluation.metric == "eval_accuracy"  # for short, accuracy
    assert (spec.evaluation.max_drop, spec.evaluation.min_speedup, spec.evaluation.max_samples) == (0.01, 1.2, 64)
    assert (spec.priority, spec.name, spec.tags, spec.timeout_seconds, spec.retries) == (
        -3,
        "n",
        {"a": "b", "c": "d=e"},
        7200,
        0,
    )


def test_flags_win_over_set_which_wins_over_the_file(run: Any, services: Services, model: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"model: {model}\nheads: 0.1\nffn: 0.1\nseed: 1\nbench-seq: 64\ntag: {{a: file, b: file}}\n")
    ran = run("submit", "-f", str(file), "--set", "ffn=0.2", "--set", "seed=2", "--seed", "3", "--tag", "b=flag")
    assert ran.code == 0, ran.err
    job = services.store.get(ran.lines[0])
    assert job is not None
    recipe = job.spec["recipe"]
    assert (recipe["heads"], recipe["ffn"], recipe["seed"]) == (0.1, 0.2, 3)
    assert job.spec["evaluation"]["bench_seq"] == 64
    assert job.tags == {"a": "file", "b": "flag"}


def test_a_spec_is_submitted_again_from_stdin(run: Any, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("submit", "-m", model, "--heads", "0.3", "--timeout", "90s", "--tag", "a=b").lines[0]
    spec = run("spec", first)
    assert yaml.safe_load(spec.out)["heads"] == 0.3
    monkeypatch.setattr("sys.stdin", io.StringIO(spec.out))
    again = run("submit", "-f", "-")
    assert again.lines == [first]
    assert "identical" in again.err


def test_an_identical_job_is_returned_unless_forced(run: Any, model: str) -> None:
    first = run("submit", "-m", model, "--heads", "0.3")
    second = run("submit", "-m", model, "--heads", "0.3")
    assert (second.code, second.out) == (0, first.out)
    assert "--force" in second.err
    assert run("submit", "-m", model, "--heads", "0.3", "--force").out != first.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--heads", "1.5"], ["--heads: '1.5' is not valid; allowed is a number >= 0 and < 1"]),
        (["--heads", "30"], ["did you mean 0.3?"]),
        (["--heads", "lots"], ["--heads", "'lots'"]),
        (["--heads", "nan"], ["--heads"]),
        (["--heads", "0.3", "--scorer", "tailor"], ["--scorer: 'tailor'", "allowed is ", "did you mean taylor?"]),
        (["--heads", "0.3", "--device", "gpus"], ["--device", "did you mean gpu?"]),
        (["--heads", "0.3", "--task", "fill-masks"], ["--task", "did you mean fill-mask?"]),
        (["--heads", "0.3", "--metric", "eval_acuracy"], ["--metric: 'eval_acuracy'", "did you mean eval_accuracy?"]),
        (["--heads", "0.3", "--metric", "speedup"], ["--metric: 'speedup'", "allowed is eval_loss"]),
        (["--heads", "0.3", "--quantize", "int4"], ["--quantize: 'int4' is not valid; allowed is int8, int8-static", "did you mean int8?"]),
        (["--heads", "0.3", "--export", "tflite"], ["--export: 'tflite' is not valid; allowed is onnx"]),
        (["--heads", "0.3", "--priority", "5000"], ["--priority: '5000'", "the nearest is 1000"]),
        (["--heads", "0.3", "--bench-batch", "0"], ["--bench-batch: '0'", "the nearest is 1"]),
        (["--heads", "0.3", "--bench-batch", "1,x"], ["--bench-batch", "'x'"]),
        (["--heads", "0.3", "--timeout", "soon"], ["--timeout", "'soon'", "90s"]),
        (["--heads", "0.3", "--tag", "novalue"], ["--tag", "key=value"]),
        (["--heads", "0.3", "--column", "txt=a"], ["--column", "'txt=a'", "write OURS=NAME"]),
        (["--heads", "0.3", "--set", "haeds=0.1"], ["'haeds'", "did you mean heads?"]),
        (["--heads", "0.3", "--set", "heads"], ["--set", "name=value"]),
        (["--layers", "1", "--refit"], ["refit can't be used by layers"]),
        ([], ["error: nothing to remove"]),
        (["--heads", "0.3", "-f", "missing.yaml"], ["--file", "missing.yaml"]),
        (["--heads", "0.3", "--data", "missing.jsonl"], ["--data", "missing.jsonl"]),
        (["--heads", "0.3", "-o", "jsn"], ["--output", "did you mean json?"]),
        (["--heads", "0.3", "--json", "-q"], ["--output"]),
        (["--headz", "0.3"], ["no such option: --headz", "--heads"]),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("no_service")
def test_bad_input_is_refused_before_anything_is_asked(run: Any, arguments: list[str], expected: list[str]) -> None:
    ran = run("submit", "--model", "m", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    for text in expected:
        assert text in ran.err


def test_a_row_with_a_metric_that_was_accepted_once_can_be_read() -> None:
    row = {"model": "m", "recipe": {"heads": 0.3}, "evaluation": {"metric": "eval_acuracy"}}
    assert read_spec(row).evaluation.metric == "eval_acuracy"


@pytest.mark.usefixtures("no_service")
def test_a_misspelt_data_file_names_the_nearest(run: Any, tmp_path: Path) -> None:
    (tmp_path / "reviews.jsonl").write_text('{"text": "good"}\n')
    ran = run("submit", "-m", "m", "--heads", "0.3", "--data", str(tmp_path / "review.jsonl"))
    assert ran.code == 2
    assert f"did you mean {tmp_path / 'reviews.jsonl'}?" in ran.err


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "heads: [", "1: 2\n"])
@pytest.mark.usefixtures("no_service")
def test_a_file_that_holds_no_recipe(run: Any, tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    ran = run("submit", "-m", "m", "-f", str(file))
    assert ran.code == 2
    assert "--file" in ran.err


def test_a_local_data_file_is_uploaded_once_by_its_digest(
    run: Any, services: Services, model: str, tmp_path: Path
) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"a sentence about number {n} of many\n" for n in range(40)))
    ran = run("submit", "-m", model, "--heads", "0.3", "--data", str(file))
    assert ran.code == 0, ran.err
    job = services.store.get(ran.lines[0])
    assert job is not None
    kind, digest = job.spec["evaluation"]["data"].removesuffix("/lines.txt").rsplit(":", 1)
    assert kind == "upload:sha256"
    assert services.storage.read(f"uploads/{digest[:2]}/{digest}") == file.read_bytes()
    both = ("--calibration", str(file), "--data", str(file), "--max-samples", "20")
    assert run("submit", "-m", model, "--heads", "0.3", *both).code == 0


def test_texts_that_leave_one_side_empty_are_refused(run: Any, services: Services, model: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("the only text\n" * 5)
    two.write_text("the only text\nanother one\n")
    alone = run("submit", "-m", model, "--heads", "0.3", "--data", str(one))
    assert (alone.code, alone.out) == (2, "")
    assert "single distinct text" in alone.err and "--calibration" in alone.err
    same = run("submit", "-m", model, "--heads", "0.3", "--data", str(two), "--calibration", str(one))
    assert (same.code, same.out) == (2, "")
    assert "every calibration text is also an evaluation text" in same.err
    assert run("submit", "-m", model, "--heads", "0.3", "--data", str(one), "--calibration", str(two)).code == 0
    assert run("submit", "-m", model, "--heads", "0.3", "--data", str(two)).code == 0


def test_a_file_that_is_too_large_is_named(
    run: Any, services: Services, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "upload_limit", 100)
    file = tmp_path / "lines.txt"
    file.write_text("a sentence\n" * 10)
    ran = run("submit", "-m", model, "--heads", "0.3", "--data", str(file))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: --data: '{file}' has 110 bytes")
    assert "100 bytes" in ran.err


def test_columns_travel_as_flags_and_come_back_in_the_spec(
    run: Any, services: Services, model: str, tmp_path: Path
) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("sentence,text_pair\none,two\nthree,four\n")
    refused = run("submit", "-m", model, "--heads", "0.3", "--data", str(data))
    assert refused.code == 2
    assert "has no column text; its columns are sentence, text_pair" in refused.err
    ran = run("submit", "-m", model, "--heads", "0.3", "--data", str(data), "--column", "text=sentence")
    assert ran.code == 0, ran.err
    job = services.store.get(ran.lines[0])
    assert job is not None
    assert JobCreate.model_validate(job.spec).evaluation.column_names == {"text": "sentence"}
    assert yaml.safe_load(run("spec", job.id).out)["columns"] == ["text=sentence"]


def test_what_is_unset_is_not_in_the_spec(run: Any, services: Services, model: str) -> None:
    # An older worker, which knows no later fields, must be able to take the job.
    job = services.store.get(run("submit", "-m", model, "--heads", "0.3").lines[0])
    assert job is not None
    assert None not in job.spec["evaluation"].values()
    assert None not in job.spec["recipe"].values()


def test_a_dry_run_prints_counts_and_queues_nothing(run: Any, model: str) -> None:
    ran = run("submit", "-m", model, "--heads", "0.3", "--dry-run")
    assert ran.code == 0, ran.err
    assert "remove 2 of 8" in ran.out
    plan = json.loads(run("submit", "-m", model, "--heads", "0.3", "--dry-run", "--json").out)
    assert (plan["schema_version"], plan["heads_removed"]) == (1, 2)
    assert run("list", "-a", "-q").out == ""


def test_an_unknown_model_is_exit_2_and_queues_nothing(run: Any, model: str, tmp_path: Path) -> None:
    ran = run("submit", "-m", "./no/such/directory", "--heads", "0.3")
    assert (ran.code, ran.out) == (2, "")
    assert "error: --model: " in ran.err
    assert run("list", "-a", "-q").out == ""


@pytest.fixture
def worker(services: Services, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a worker does while the command waits: each pause runs the next step."""
    steps: list[Any] = []
    monkeypatch.setattr(waiting.time, "sleep", lambda _seconds: steps.pop(0)() if steps else None)
    return steps


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (lambda services: support.succeed(services), 0),
        (lambda services: support.succeed(services, gate=True), 0),
        (lambda services: support.succeed(services, gate=False), 6),
        (lambda services: support.fail(services), 1),
        (lambda services: services.store.cancel(services.store.find("0")[0]), 7),
    ],
)
def test_waiting_ends_with_the_jobs_outcome(
    run: Any, services: Services, worker: list[Any], model: str, step: Any, code: int
) -> None:
    worker.append(lambda: step(services))
    ran = run("submit", "-m", model, "--heads", "0.3", "--wait")
    assert ran.code == code, ran.err
    assert len(ran.lines) == 1
    assert "queued" in ran.err
    if code == 1:
        assert "error: weights_corrupt: the weights are torn" in ran.err
        assert "hint: fetch them again" in ran.err


def test_with_json_the_job_is_printed_once_at_its_end(
    run: Any, services: Services, worker: list[Any], model: str
) -> None:
    worker.append(lambda: support.succeed(services))
    job = json.loads(run("submit", "-m", model, "--heads", "0.3", "--wait", "-o", "json").out)
    assert (job["state"], job["metrics"]["speedup"]) == ("succeeded", {"after": 1.26})


def test_following_shows_the_log_on_stderr(run: Any, services: Services, worker: list[Any], model: str) -> None:
    def work() -> None:
        lease = support.claim(services)
        services.storage.append(f"logs/{lease.job_id}/a1.log", b"pruning now\n")
        services.store.succeed(lease, support.result({}))

    worker.append(work)
    ran = run("submit", "-m", model, "--heads", "0.3", "--follow")
    assert (ran.code, len(ran.lines)) == (0, 1)
    assert "pruning now" in ran.err


def test_ctrl_c_detaches_and_cancels_nothing(run: Any, services: Services, worker: list[Any], model: str) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    worker.append(interrupt)
    ran = run("submit", "-m", model, "--heads", "0.3", "--wait")
    assert ran.code == 130
    [job_id] = ran.lines
    assert f"prunectl wait {job_id}" in ran.err
    job = services.store.get(job_id)
    assert job is not None
    assert (job.state, job.cancel_requested_at) == ("queued", None)
