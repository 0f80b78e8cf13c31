"""Static int8 files: scales from calibration texts, near what the model computes, and run by onnxruntime alone."""

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
from transformers import AutoTokenizer

from prunectl.checkpoints import load_pruned, onnx_files
from prunectl.errors import InvalidData
from prunectl.pruning import engine
from prunectl.pruning.axes import ONNX_FAMILIES
from prunectl.recipe import Recipe
from prunectl.worker import exporting, measuring
from support import pipeline
from support.models import build, heads_of, model
from support.pruning import batches, masks_for, output

_ALONE = """
import json, sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
inputs = {name: numpy.array(value, dtype=numpy.int64) for name, value in json.load(open(sys.argv[2])).items()}
print(json.dumps(session.run(None, {g.name: inputs[g.name] for g in session.get_inputs()})[0].tolist()))
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


def single(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Each text of the batch alone, without its padding."""
    lengths = batch["attention_mask"].sum(1).tolist()
    return [
        {name: value[row : row + 1, :length] for name, value in batch.items()} for row, length in enumerate(lengths)
    ]


def quantized(family: str, head: str, directory: Path) -> tuple[Any, Path]:
    """(a model of which one block keeps nothing, its static int8 file)."""
    built = model(family, head)
    engine.apply(built, masks_for(built, seed=1, empty=(0,)))
    whole, small = directory / "model.onnx", directory / "model_quantized.onnx"
    onnx_files.export(built, whole, token_types=False)
    onnx_files.quantize_static(whole, small, single(batches(built, 1)[0]))
    return built, small


def held_against(built: Any, got: torch.Tensor, batch: dict[str, Any]) -> tuple[float, float]:
    """(mean, largest absolute difference of real tokens' outputs), as shares of the model's largest output."""
    expected = output(built, batch)
    if expected.dim() == 3:
        real = batch["attention_mask"].bool()
        got, expected = got[real], expected[real]
    difference = (got - expected).abs() / expected.abs().max()
    return float(difference.mean()), float(difference.max())


@pytest.mark.parametrize("head", ["feature-extraction", "text-classification"])
def test_an_uneven_model_is_quantized_by_constant_scales(head: str, tmp_path: Path) -> None:
    built, file = quantized("bert", head, tmp_path)
    assert not list(tmp_path.glob("tmp*"))
    graph = onnx.load(str(file)).graph
    held = {tensor.name: tensor for tensor in graph.initializer}
    scales = [node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert scales and set(scales) <= set(held)
    assert not {"DynamicQuantizeLinear", "MatMulInteger"} & {node.op_type for node in graph.node}
    floats = [tensor for tensor in held.values() if tensor.data_type == onnx.TensorProto.FLOAT]
    assert not [tensor.name for tensor in floats if len(tensor.dims) == 2 and 0 not in tensor.dims]
    words = [tensor for tensor in held.values() if built.config.vocab_size in tensor.dims]
    assert words and {tensor.data_type for tensor in words} <= {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}

    batch = batches(built, 1)[0]
    (tmp_path / "inputs.json").write_text(json.dumps({name: value.tolist() for name, value in batch.items()}))
    arguments = [str(file), str(tmp_path / "inputs.json")]
    done = subprocess.run([sys.executable, "-I", "-c", _ALONE, *arguments], capture_output=True, text=True, check=True)
    mean, largest = held_against(built, torch.from_numpy(np.array(json.loads(done.stdout))), batch)
    assert 0 < mean < 0.01 and largest < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("family", ONNX_FAMILIES)
def test_every_encoder_is_quantized_by_constant_scales(family: str, tmp_path: Path) -> None:
    for head in heads_of(family):
        (tmp_path / head).mkdir()
        built, file = quantized(family, head, tmp_path / head)
        batch = batches(built, 1)[0]
        [got] = onnx_files.OnnxModel(file, built.config, threads=1)(**batch).values()
        mean, largest = held_against(built, got, batch)
        # Twelve logits average little: on some processors their mean error is a third of the largest allowed.
        assert 0 < mean < (0.01 if got.dim() == 3 else 0.025) and largest < 0.05, head


def test_scales_need_texts(tmp_path: Path) -> None:
    built = model("bert", "feature-extraction")
    onnx_files.export(built, tmp_path / "model.onnx", token_types=False)
    nothing = {"input_ids": torch.zeros(1, 0, dtype=torch.long)}
    for texts in ([], [nothing]):
        with pytest.raises(InvalidData, match="calibration texts, and there are none"):
            onnx_files.quantize_static(tmp_path / "model.onnx", tmp_path / "small.onnx", texts)
    assert not (tmp_path / "small.onnx").exists()


def test_a_job_takes_scales_from_calibration_texts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BENCH_SECONDS", 0.2)
    monkeypatch.setattr(exporting, "BENCH_SECONDS", 0.2)
    taken: list[list[int]] = []
    quantize_static = onnx_files.quantize_static

    def seen(path: Path, target: Path, texts: Any) -> None:
        assert all(text["attention_mask"].all() and text["input_ids"].size(0) == 1 for text in texts)
        taken.extend(text["input_ids"][0].tolist() for text in texts)
        quantize_static(path, target, texts)

    monkeypatch.setattr(onnx_files, "quantize_static", seen)
    source = build(tmp_path / "source", "bert", "text-classification")
    judged = [f"what the model is judged on {number}" for number in range(80)]
    shown = ["scales " + "come from this " * (1 + number % 5) + str(number) for number in range(80)]
    files = {
        name: pipeline.upload(tmp_path, "\n".join(json.dumps({"text": text}) for text in texts), f"{name}.jsonl")
        for name, texts in (("data", judged), ("calibration", shown))
    }
    corpus = pipeline.upload(tmp_path, "\n".join(judged + shown))
    result, checkpoint = pipeline.run(
        source, {"heads": 0.5, "vocab": corpus, "quantize": "int8-static"}, tmp_path, max_samples=80, **files
    )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    calibration = tokenizer(shown)["input_ids"]
    assert len(taken) == measuring.SCALE_EXAMPLES == 64 and all(ids in calibration for ids in taken)
    assert len(set(map(len, taken))) > 1
    assert max(map(max, taken)) < load_pruned(checkpoint).config.vocab_size
    assert (result.conditions["quantize"], result.conditions["n_scales"]) == ("int8-static", 64)
    assert (
        result.ledger[-1].step == "quantize"
        and result.metrics["onnx_int8_bytes"].after == result.ledger[-1].model_bytes
    )
    graph = onnx.load(str(checkpoint / onnx_files.QUANTIZED)).graph
    assert {"QuantizeLinear"} <= {node.op_type for node in graph.node}


def test_latency_tables_are_of_what_will_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(speedup=1.5, quantize="int8-static")
    runtime = exporting.runtime_of(recipe)
    assert runtime is not None and runtime.endswith(" int8-static")
    monkeypatch.delattr(onnx_files, "quantize")  # the dynamic one
    serve = exporting.serving(recipe, tmp_path, 1, token_types=True)
    built = model("bert", "text-classification")
    assert serve is not None
    batch = batches(built, 1)[0]
    [got] = serve(built)(**batch).values()
    assert got.shape == output(built, batch).shape and not torch.equal(got, output(built, batch))
    assert not list(tmp_path.iterdir())
