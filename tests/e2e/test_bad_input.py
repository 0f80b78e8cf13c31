"""Wrong input, each kind with what it must end in: exit 2 with nothing queued, or a failed job with a code and a hint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support import models
from support.command import Prunectl


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.build(tmp_path_factory.mktemp("tiny") / "classifier", "bert", "text-classification")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--heads", "0.3", "--hedas", "1"], "hedas"),
        (["--heads", "1.0"], "heads"),
        (["--heads", "-0.1"], "heads"),
        (["--ffn", "nan"], "ffn"),
        (["--heads", "0.3", "--task", "fill-maks"], "task"),
        (["--heads", "0.3", "--task", "fill-mask"], "task"),
        (["--heads", "0.3", "--data", "no-such-file.jsonl"], "no-such-file.jsonl"),
        (["--heads", "0.3", "--engine", "textprunner"], "textpruner"),
        (["--heads", "0.3", "--scorer", "tailor"], "taylor"),
        ([], "heads"),
    ],
)
def test_a_wrong_value_is_refused_by_name(prunectl: Prunectl, tiny: Path, arguments: list[str], named: str) -> None:
    done = prunectl.run("submit", "--model", str(tiny), *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert named in done.stderr


@pytest.mark.parametrize("name", ["nowhere/../minilm", "no such model", "minilmm", "/no/such/directory"])
def test_an_unknown_model(prunectl: Prunectl, name: str) -> None:
    done = prunectl.run("submit", "--model", name, "--heads", "0.3")
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    if name == "minilmm":
        assert "minilm" in done.stderr


def test_a_link_out_of_the_zoo(prunectl: Prunectl, zoo: Path, tiny: Path) -> None:
    link = zoo / "escape"
    link.symlink_to(tiny)
    try:
        done = prunectl.run("submit", "--model", "escape", "--heads", "0.3")
    finally:
        link.unlink()
    assert (done.returncode, done.stdout) == (2, ""), done.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.txt", b"", "empty"),
        ("binary.txt", b"\x00\xff\xfe\x01", "binary"),
        ("rows.jsonl", b'{"text": "a"}\n{"label": 1}\n', "row 2"),
        ("range.jsonl", b'{"text": "a", "label": 0}\n{"text": "b", "label": 9}\n', "9"),
        ("names.csv", b"text,label\na,nonsense\nb,0\n", "nonsense"),
        ("broken.jsonl", b'{"text": \n', "JSON"),
        ("rows.xlsx", b"PK", ".xlsx"),
    ],
)
def test_a_data_file_that_cannot_be_used(
    prunectl: Prunectl, tiny: Path, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = prunectl.run("submit", "--model", str(tiny), "--heads", "0.3", "--data", str(tmp_path / name))
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert said in done.stderr


def test_labels_for_a_model_without_a_head(prunectl: Prunectl, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n')
    done = prunectl.run("submit", "--model", "minilm", "--heads", "0.3", "--data", str(tmp_path / "rows.jsonl"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "classification head" in done.stderr


def test_textpruner_names_the_families_it_has(prunectl: Prunectl, tmp_path: Path) -> None:
    directory = models.build(tmp_path / "distil", "distilbert", "fill-mask")
    done = prunectl.run("submit", "--model", str(directory), "--heads", "0.3", "--engine", "textpruner")
    assert (done.returncode, done.stdout) == (2, "")
    assert "xlm-roberta" in done.stderr


def _without_weights(directory: Path) -> None:
    (directory / "model.safetensors").unlink()


def _pickle_only(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def _without_tokenizer(directory: Path) -> None:
    for path in directory.glob("*token*"):
        path.unlink()
    for path in directory.glob("vocab*"):
        path.unlink()


def _wrong_shape(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))


def _unknown_architecture(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(
        json.dumps({**config, "model_type": "mamba", "architectures": ["MambaModel"]})
    )


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_without_weights, "weights_missing"),
        (_pickle_only, "weights_unsafe"),
        (_without_tokenizer, "tokenizer_missing"),
        (_wrong_shape, "weights_corrupt"),
        (_unknown_architecture, "unsupported_architecture"),
    ],
)
def test_what_only_the_worker_sees_fails_the_job(
    prunectl: Prunectl, tiny: Path, tmp_path: Path, spoil, code: str
) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(tiny, tmp_path / "model")
    spoil(tmp_path / "model")
    done = prunectl.run("submit", "--model", str(tmp_path / "model"), "--heads", "0.3", "--wait")
    assert done.returncode == 1, done.stderr
    job = prunectl.json("show", done.stdout.strip())
    assert (job["state"], job["error"]["code"]) == ("failed", code)
    assert job["error"]["hint"]
    assert not job["artifacts"]


def test_a_layer_may_lose_all_its_heads(prunectl: Prunectl, tiny: Path) -> None:
    job_id = prunectl.ok("submit", "--model", str(tiny), "--heads", "0.9", "--wait", "--max-samples", "32")
    layers = prunectl.json("show", job_id)["structure"]["layers"]
    assert sum(len(layer["heads_kept"]) for layer in layers) == 1
    assert any(layer["heads_kept"] == [] for layer in layers)


def test_no_space_for_the_checkpoint(prunectl: Prunectl, tiny: Path, tmp_path: Path) -> None:
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    user = Prunectl(tmp_path, env={"PRUNECTL_STORAGE_URL": str(disk)})
    try:
        done = user.run(
            "submit", "--model", str(tiny), "--heads", "0.5", "--retries", "0", "--wait", "--max-samples", "16"
        )
        assert done.returncode == 1, done.stderr
        job = user.json("show", done.stdout.strip())
        assert job["error"]["code"] == "disk_full"
        assert not list((disk / "runs").rglob("config.json")) if (disk / "runs").exists() else True
    finally:
        user.run("down")
        subprocess.run(["umount", "-l", str(disk)], check=False)
