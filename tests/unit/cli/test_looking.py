"""``list``, ``show``, ``wait``, ``logs``, ``spec``, ``pull`` and the actions, in every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunectl.cli import waiting
from prunectl.jobs.caller import Caller
from prunectl.schemas import JobCreate
from prunectl.wiring import Services
from support import service as support
from support.service import sums

pytestmark = pytest.mark.usefixtures("service")


@pytest.fixture
def ids(services: Services, model: str) -> dict[str, str]:
    """A job in each state."""
    found, ada = {}, Caller("ada", frozenset({"submit"}))
    for state, heads in (("succeeded", 0.1), ("failed", 0.2), ("gated", 0.3), ("cancelled", 0.4), ("queued", 0.5)):
        body = JobCreate.model_validate({"model": model, "recipe": {"heads": heads}, "name": state})
        found[state] = services.jobs.submit(ada, body).job.id
        if state == "succeeded":
            support.succeed(services)
        elif state == "failed":
            support.fail(services)
        elif state == "gated":
            support.succeed(services, gate=False)
        elif state == "cancelled":
            services.jobs.cancel(ada, found[state])
    return found


def test_the_table_is_whole_and_plain_off_a_terminal(run: Any, ids: dict[str, str], model: str) -> None:
    ran = run("list", "-a", "--sort", "created_at")
    header, *rows = ran.lines
    assert header.split() == ["ID", "MODEL", "RECIPE", "STATE", "STAGE", "QUALITY(Δ)", "SPEEDUP", "SIZE(Δ)", "AGE"]
    assert [row.split()[0] for row in rows] == list(ids.values())
    assert all(line == line.rstrip() and "\x1b" not in line for line in ran.lines)
    done = rows[0]
    for text in (model, "h.10", "succeeded", "acc 0.741 (-0.006)", "1.26x", "1.02GB (-8%)"):
        assert text in done
    assert "weights_corrupt" in rows[1]
    assert "gate failed" in rows[2]


def test_wide_adds_columns_and_columns_choose_them(run: Any, ids: dict[str, str]) -> None:
    assert {"PARAMS(Δ)", "DEVICE", "WORKER"} <= set(run("list", "-o", "wide").lines[0].split())
    ran = run("list", "-a", "--columns", "name,eval_accuracy,eval_accuracy.delta,priority", "--sort", "created_at")
    assert ran.lines[0].split() == ["NAME", "EVAL_ACCURACY", "EVAL_ACCURACY.DELTA", "PRIORITY"]
    assert ran.lines[1].split() == ["succeeded", "0.741", "-0.006", "0"]


def test_an_unknown_column_names_the_nearest(run: Any, ids: dict[str, str]) -> None:
    ran = run("list", "--columns", "speedupp")
    assert ran.code == 2
    assert "did you mean speedup?" in ran.err


def test_machine_formats(run: Any, ids: dict[str, str]) -> None:
    every = list(ids.values())
    document = json.loads(run("list", "-a", "-o", "json", "--sort", "created_at").out)
    assert (document["schema_version"], document["next_cursor"]) == (1, None)
    assert [item["id"] for item in document["items"]] == every
    assert (
        run("list", "-a", "--json", "--sort", "created_at").out
        == run("list", "-a", "-o", "json", "--sort", "created_at").out
    )
    assert [json.loads(line)["id"] for line in run("list", "-a", "-o", "jsonl", "--sort", "created_at").lines] == every
    assert [
        item["id"] for item in yaml.safe_load(run("list", "-a", "-o", "yaml", "--sort", "created_at").out)["items"]
    ] == every
    assert run("ls", "-a", "-q", "--sort", "created_at").lines == every
    rows = list(csv.DictReader(io.StringIO(run("ps", "-a", "-o", "csv", "--sort", "created_at").out)))
    assert [row["id"] for row in rows] == every
    assert (rows[0]["speedup"], rows[0]["size"]) == ("1.26", "1020000000")


def test_filters(run: Any, ids: dict[str, str], model: str) -> None:
    assert run("list", "--state", "failed,cancelled", "--sort", "created_at", "-q").lines == [
        ids["failed"],
        ids["cancelled"],
    ]
    assert set(run("list", "--where", "eval_accuracy>0.7 and speedup>=1.2", "-q").lines) == {
        ids["succeeded"],
        ids["gated"],
    }
    assert len(run("list", "--model", f"{model[:2]}*", "-q").lines) == 5
    assert run("list", "--since", "0s", "-q").lines == []
    assert run("list", "--state", "faild").code == 2


def test_a_limit_is_followed_over_pages_and_says_when_there_is_more(
    run: Any, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("list", "-a", "-n", "2", "-q")
    assert len(ran.lines) == 2
    assert "-n 0" in ran.err
    monkeypatch.setattr("prunectl.cli.client.PAGE", 2)
    assert set(run("list", "-a", "-n", "0", "-q").lines) == set(ids.values())


def test_nothing_to_list(run: Any) -> None:
    ran = run("list")
    assert (ran.code, len(ran.lines)) == (0, 1)
    assert "no jobs" in ran.err


def test_show_reads_as_a_page_and_as_data(run: Any, ids: dict[str, str]) -> None:
    page = run("show", ids["succeeded"]).out
    for text in (
        "278.0M",
        "255.4M",
        "-8%",
        "eval_accuracy",
        "-0.0060",
        "0.0098",
        "2,000",
        "▮▯▮▯",
        "▯▯▯▯",
        "48/64",
        "reused",
    ):
        assert text in page
    job = json.loads(run("show", ids["succeeded"][-6:], "-o", "json").out)
    assert job["id"] == ids["succeeded"]
    assert job["structure"]["layers"][1]["heads_kept"] == []
    several = json.loads(run("show", ids["succeeded"], ids["failed"], "--json").out)
    assert [item["id"] for item in several["items"]] == [ids["succeeded"], ids["failed"]]
    failed = run("show", ids["failed"]).out
    assert "weights_corrupt" in failed
    assert "fetch them again" in failed


@pytest.mark.parametrize("ref", ["", " ", ".", "..", "a/b", "../sweeps"])
@pytest.mark.parametrize("command", ["show", "wait", "logs", "cancel", "rm", "spec"])
def test_what_can_not_be_an_id_is_not_found(run: Any, ids: dict[str, str], command: str, ref: str) -> None:
    ran = run(command, ref)
    assert (ran.code, ran.out) == (5, "")
    assert f"no job {ref!r}" in ran.err


def test_an_empty_sweep_lists_nothing(run: Any, ids: dict[str, str]) -> None:
    ran = run("list", "-q", "--sweep", "")
    assert (ran.code, ran.out) == (5, "")


def test_unknown_and_ambiguous_ids(run: Any, ids: dict[str, str]) -> None:
    ran = run("show", "zzzzzz")
    assert (ran.code, ran.out) == (5, "")
    assert "error: no job 'zzzzzz'" in ran.err
    assert run("show", "zz").code == 5
    assert run("show", ids["queued"][:4]).code == 1


@pytest.mark.parametrize(
    ("states", "code"),
    [
        (["succeeded"], 0),
        (["gated"], 6),
        (["cancelled", "gated"], 7),
        (["gated", "cancelled", "failed", "succeeded"], 1),
    ],
)
def test_wait_ends_with_the_first_outcome_that_counts(
    run: Any, ids: dict[str, str], states: list[str], code: int
) -> None:
    ran = run("wait", *(ids[state] for state in states), "-q")
    assert ran.code == code
    assert ran.lines == [ids[state] for state in states]


def test_wait_gives_up_in_time(run: Any, ids: dict[str, str]) -> None:
    assert run("wait", ids["queued"], "--timeout", "0s").code == 8
    assert run("wait", ids["queued"], ids["gated"], "--timeout", "0s").code == 6
    assert run("wait", ids["queued"], "--timeout", "soon").code == 2


def test_logs_whole_tail_and_followed(
    run: Any, services: Services, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    services.storage.append(f"logs/{ids['failed']}/a1.log", b"one\ntwo\nthree\n")
    assert run("logs", ids["failed"]).out == "one\ntwo\nthree\n"
    assert run("logs", ids["failed"], "-n", "2").out == "two\nthree\n"
    assert run("logs", ids["failed"], "-n", "0").out == ""
    assert run("logs", ids["failed"]).code == 0
    followed = run("logs", "-f", ids["failed"])
    assert (followed.code, followed.out) == (1, "one\ntwo\nthree\n")

    def work(_seconds: float) -> None:
        services.storage.append(f"logs/{ids['queued']}/a1.log", b"late\n")
        support.succeed(services)

    monkeypatch.setattr(waiting.time, "sleep", work)
    live = run("logs", "-f", ids["queued"])
    assert (live.code, live.out) == (0, "late\n")


def test_logs_as_documents(run: Any, services: Services, ids: dict[str, str]) -> None:
    services.storage.append(f"logs/{ids['failed']}/a1.log", b"one\ntwo\n")
    shown = run("logs", "-f", ids["failed"], "-n", "1", "--json")
    assert (shown.code, json.loads(shown.out)) == (1, {"schema_version": 1, "id": ids["failed"], "logs": "two\n"})
    both = run("logs", ids["failed"], ids["queued"], "-o", "jsonl").lines
    assert [json.loads(line)["logs"] for line in both] == ["one\ntwo\n", ""]


def test_actions_print_ids_and_go_on_past_a_failure(run: Any, ids: dict[str, str]) -> None:
    ran = run("cancel", "nosuchjob", ids["queued"])
    assert (ran.code, ran.lines) == (5, [ids["queued"]])
    assert run("cancel", ids["queued"]).code == 0
    assert run("cancel", ids["succeeded"]).code == 1
    assert run("retry", ids["queued"], ids["failed"]).lines == [ids["queued"], ids["failed"]]
    assert run("rm", ids["queued"]).code == 1
    assert run("rm", ids["cancelled"], ids["gated"]).lines == [ids["cancelled"], ids["gated"]]
    assert run("show", ids["gated"]).code == 5
    assert json.loads(run("cancel", ids["queued"], "-o", "json").out)["state"] == "cancelled"


FILES = {"config.json": b"{}", "model.safetensors": b"\x00" * 2_500_000, "onnx/model.onnx": b"o"}


@pytest.fixture
def checkpoint(run: Any, services: Services, model: str) -> Any:
    def publish(files: dict[str, bytes]) -> str:
        run("submit", "-m", model, "--heads", "0.3", "--force")
        return support.succeed(services, files=files)

    return publish


def test_pull_brings_the_whole_checkpoint(run: Any, checkpoint: Any, tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    ran = run("pull", checkpoint(sums(FILES)), str(target))
    assert (ran.code, ran.lines) == (0, [str(target)]), ran.err
    assert {
        path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()
    } == sums(FILES)
    job_id, other = checkpoint(sums(FILES)), str(tmp_path / "other")
    assert json.loads(run("pull", job_id, other, "--json").out) == {"schema_version": 1, "id": job_id, "path": other}
    again = run("pull", job_id, str(target))
    assert again.code == 2
    assert "not empty" in again.err


@pytest.mark.parametrize(
    "files",
    [
        FILES,
        {**sums(FILES), "config.json": b"[]"},
        {**sums(FILES), "extra.bin": b"x"},
        {"SHA256SUMS": sums(FILES)["SHA256SUMS"]},
    ],
    ids=["no-sums", "changed", "extra", "missing"],
)
def test_a_checkpoint_that_does_not_verify_is_not_left_there(
    run: Any, checkpoint: Any, tmp_path: Path, files: dict[str, bytes]
) -> None:
    ran = run("pull", checkpoint(files), str(tmp_path / "out"))
    assert ran.code == 1
    assert "SHA256SUMS" in ran.err
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_a_job_without_a_checkpoint_can_not_be_pulled(run: Any, ids: dict[str, str], tmp_path: Path) -> None:
    assert run("pull", ids["queued"], str(tmp_path / "out")).code == 5


def test_models_and_workers_and_doctor(run: Any, model: str) -> None:
    assert run("models", "-q").lines == [model]
    assert run("models", "list", "--json").code == 0
    assert json.loads(run("models", "show", model, "--json").out)["schema_version"] == 1
    shown = run("models", "show", model)
    assert "schema_version" not in shown.out
    assert (shown.code, "bert" in shown.out) == (0, True)
    wrong = run("models", "show", model + "x")
    assert wrong.code == 5
    assert f"did you mean {model}?" in wrong.err
    assert run("workers").code == 0
    checks = json.loads(run("doctor", "-o", "json").out)["items"]
    assert {"service", "version", "database", "broker"} <= {check["name"] for check in checks}
