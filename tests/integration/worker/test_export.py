"""A job that exports: ONNX files that onnxruntime runs alone, compared with the pruned model, and their ledger row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from prunectl.checkpoints import load_pruned, manifest, onnx_files
from prunectl.errors import EngineUnavailable, InvalidInput
from prunectl.pruning import engine
from prunectl.pruning.axes import ONNX_FAMILIES, check_export
from prunectl.recipe import Recipe
from prunectl.worker import exporting, measuring
from support import pipeline
from support.models import build, config, heads_of, model
from support.pruning import batches, masks_for, output

_ALONE = """
import json, sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
inputs = {name: numpy.array(value, dtype=numpy.int64) for name, value in json.load(open(sys.argv[2])).items()}
print(json.dumps(session.run(None, {g.name: inputs[g.name] for g in session.get_inputs()})[0].tolist()))
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def exported(family: str, head: str, directory: Path) -> tuple[Any, Path]:
    """(a model of which one block keeps nothing, its file)."""
    built = model(family, head)
    engine.apply(built, masks_for(built, seed=1, empty=(0,)))
    onnx_files.export(built, directory / "model.onnx", token_types=False)
    return built, directory / "model.onnx"


def test_a_job_exports_quantizes_and_says_what_that_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BENCH_SECONDS", 0.2)
    monkeypatch.setattr(exporting, "BENCH_SECONDS", 0.2)
    source = build(tmp_path / "source", "bert", "feature-extraction", layers=3, hidden=64, ffn=96)
    result, checkpoint = pipeline.run(source, {"layers": 1, "heads": 0.5, "quantize": "int8"}, tmp_path)
    assert [stage.name for stage in result.stages][-1] == "export"
    assert [row.step for row in result.ledger] == ["original", "layers", "heads+ffn", "quantize"]
    metrics, last = result.metrics, result.ledger[-1]
    assert last.value == metrics[f"onnx_int8_{last.metric}"].after and last.n == metrics["eval_cosine"].n
    assert metrics["onnx_eval_cosine"].after == pytest.approx(metrics["eval_cosine"].after, abs=1e-4)
    assert metrics["onnx_max_abs_error"].after <= 1e-4  # type: ignore[operator]
    assert 0 < metrics["onnx_mean_abs_error"].after < metrics["onnx_int8_mean_abs_error"].after  # type: ignore[operator]
    assert all(metrics[f"{name}_latency_p50_seconds"].after > 0 for name in ("onnx", "onnx_int8"))  # type: ignore[operator]
    for name, path in (("onnx", onnx_files.MODEL), ("onnx_int8", onnx_files.QUANTIZED)):
        assert result.artifacts[name] == f"{result.artifacts['checkpoint']}/{path}"
        assert (checkpoint / path).stat().st_size == metrics[f"{name}_bytes"].after
    manifest.verify(checkpoint)
    assert "quantize" in (checkpoint / "README.md").read_text()
    inputs = batches(load_pruned(checkpoint), 1)[0] | {"token_type_ids": torch.zeros(4, 9, dtype=torch.long)}
    (tmp_path / "inputs.json").write_text(json.dumps({name: value.tolist() for name, value in inputs.items()}))
    arguments = [str(checkpoint / onnx_files.MODEL), str(tmp_path / "inputs.json")]
    done = subprocess.run([sys.executable, "-I", "-c", _ALONE, *arguments], capture_output=True, text=True, check=True)
    expected = output(load_pruned(checkpoint), inputs).numpy()
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ONNX_FAMILIES)
def test_every_encoder_is_exported_for_any_number_of_texts_and_tokens(family: str, tmp_path: Path) -> None:
    for head in heads_of(family):
        built, file = exported(family, head, tmp_path / head)
        session = onnx_files.OnnxModel(file, built.config, threads=1)
        for rows, tokens in ((4, 9), (1, 3)):
            batch = {name: value[:rows, :tokens].contiguous() for name, value in batches(built, 1)[0].items()}
            [got] = session(**batch).values()
            torch.testing.assert_close(got, output(built, batch), rtol=1e-5, atol=1e-5)


def test_int8_covers_the_embeddings(tmp_path: Path) -> None:
    built, file = exported("bert", "feature-extraction", tmp_path)
    onnx_files.quantize(file, tmp_path / "model_quantized.onnx")
    held = onnx.load(str(tmp_path / "model_quantized.onnx")).graph.initializer
    words = [tensor for tensor in held if built.config.vocab_size in tensor.dims]
    # Gathered rows are stored unsigned, with a zero point.
    assert words and {tensor.data_type for tensor in words} <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


def test_what_cannot_be_exported_is_refused() -> None:
    for family in ("t5", "llama", "vit"):
        with pytest.raises(InvalidInput, match=f"{family} can't be exported to ONNX; text encoders can: bert"):
            check_export(config(family, heads_of(family)[0]).to_dict(), Recipe(heads=0.5, quantize="int8"))


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineUnavailable) as caught:
        onnx_files.export(model("bert", "fill-mask"), tmp_path / "model.onnx", token_types=False)
    assert "prunectl[worker,onnx]" in str(caught.value.hint)
