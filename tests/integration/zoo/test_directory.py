from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunectl.errors import (
    CorruptWeights,
    MissingTokenizer,
    MissingWeights,
    ModelNotFound,
    PrunectlError,
    UnsafeWeights,
)
from prunectl.zoo.directory import check, model_digest
from prunectl.zoo.fetch import fetch
from prunectl.zoo.listing import list_models
from prunectl.zoo.resolve import HubSettings, locate
from support.models import FAMILIES, HEADS, build


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return build(tmp_path / "zoo" / "tiny")


def test_a_whole_model_passes_with_every_tensor(directory: Path) -> None:
    header = check(directory)
    assert header["bert.encoder.layer.0.output.dense.weight"] == ("F32", (32, 48))
    located = locate(str(directory), zoo_roots=(), hub=HubSettings())
    seen: list[float] = []
    assert fetch(located, HubSettings(), progress=seen.append) == directory
    assert seen == [1.0]


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({"config.json": None}, ModelNotFound, "without config.json"),
        ({"model.safetensors": None}, MissingWeights, "no model.safetensors"),
        ({"model.safetensors": None, "pytorch_model.bin": b""}, UnsafeWeights, "only as pytorch_model.bin"),
        ({"model.safetensors": None, "training_args.bin": b""}, MissingWeights, "no model.safetensors"),
        ({"model.safetensors": b""}, CorruptWeights, "truncated"),
        ({"tokenizer.json": None}, MissingTokenizer, "no tokenizer"),
        ({"tokenizer.json": None, "vocab.json": b"{}"}, MissingTokenizer, "no tokenizer"),
        ({"model.safetensors": None, "model.safetensors.index.json": b"{}"}, CorruptWeights, "no weight_map"),
        (
            {"model.safetensors": None, "model.safetensors.index.json": b'{"weight_map": {"a": "../b.safetensors"}}'},
            CorruptWeights,
            "no safetensors file beside it",
        ),
        (
            {"model.safetensors": None, "model.safetensors.index.json": b'{"weight_map": {"a": "b.safetensors"}}'},
            MissingWeights,
            "names b.safetensors",
        ),
    ],
)
def test_what_is_missing_or_damaged_has_its_own_error(
    directory: Path, files: dict[str, bytes | None], error: type[PrunectlError], message: str
) -> None:
    for name, content in files.items():
        if content is None:
            (directory / name).unlink()
        else:
            (directory / name).write_bytes(content)
    with pytest.raises(error) as caught:
        check(directory)
    assert message in str(caught.value)
    assert type(caught.value) is error


def test_sharded_weights_are_read_shard_by_shard(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"any": "model-00001-of-00001.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "bert.encoder.layer.1.output.dense.weight" in check(directory)


@pytest.mark.parametrize("names", [("vocab.txt",), ("vocab.json", "merges.txt"), ("sentencepiece.bpe.model",)])
def test_older_tokenizers_are_tokenizers_too(directory: Path, names: tuple[str, ...]) -> None:
    (directory / "tokenizer.json").unlink()
    for name in names:
        (directory / name).write_text("")
    check(directory)


def test_the_digest_is_of_contents_and_of_the_models_files_alone(directory: Path, tmp_path: Path) -> None:
    digest = model_digest(directory)
    assert digest.startswith("sha256:")
    assert model_digest(build(tmp_path / "copy")) == digest
    assert model_digest(build(tmp_path / "other", seed=1)) != digest
    (directory / "README.md").write_text("notes")
    assert model_digest(directory) == digest
    (directory / "tokenizer_config.json").write_text("{}")
    assert model_digest(directory) != digest


class TestList:
    def test_models_are_listed_with_what_can_be_pruned(self, tmp_path: Path) -> None:
        for family in FAMILIES:
            for head in HEADS:
                build(tmp_path / family / head, family, head, layers=3, heads=2)
        views = list_models([tmp_path])
        assert [view.name for view in views] == sorted(f"{family}/{head}" for family in FAMILIES for head in HEADS)
        for view in views:
            family, head = view.name.split("/")
            assert (view.prunable, view.reason, view.family, view.task) == (True, None, family, head)
            assert (view.layers, view.heads, view.ffn) == (3, 2, 48)
            assert view.parameters is not None and view.model_bytes is not None
            assert 0 < view.model_bytes - 4 * view.parameters < 20_000

    def test_broken_entries_say_why(self, directory: Path) -> None:
        root = directory.parent
        (build(root / "b-pickled") / "model.safetensors").rename(root / "b-pickled" / "pytorch_model.bin")
        (build(root / "c-other") / "config.json").write_text('{"model_type": "mamba"}')
        (build(root / "d-config") / "config.json").write_text("{")
        pruned = build(root / "e-pruned") / "config.json"
        pruned.write_text(json.dumps(json.loads(pruned.read_text()) | {"prunectl": {}}))
        (root / "f-nothing").mkdir()
        reasons = {view.name: view.reason for view in list_models([root, root / "absent"]) if not view.prunable}
        assert set(reasons) == {"b-pickled", "c-other", "d-config", "e-pruned"}
        assert "safetensors" in str(reasons["b-pickled"])
        assert "mamba" in str(reasons["c-other"])
        assert "not JSON" in str(reasons["d-config"])
        assert reasons["e-pruned"] == "it is already pruned"
