"""The stage ``export``: ONNX files of the pruned model, their parity with it, and what int8 costs and brings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.checkpoints import onnx_files
from prunectl.errors import ReloadMismatch
from prunectl.evaluation import latency
from prunectl.evaluation.inputs import made_up
from prunectl.evaluation.latency_table import Serving
from prunectl.evaluation.quality import Quality
from prunectl.recipe import Recipe
from prunectl.schemas import Measure

TOLERANCE = 1e-4
"""Largest difference that the float32 file may make, relative to the largest output where that is above 1: another
runtime sums in another order. int8 has none: what it costs is measured.
"""
BENCH_SECONDS = 10.0


@dataclass
class Exported:
    """``files``: artifact name -> path in the checkpoint. ``qualities``: of each file, where its output can be judged."""

    files: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Measure] = field(default_factory=dict)
    qualities: dict[str, dict[str, Quality]] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)


def export(
    model: PreTrainedModel,
    recipe: Recipe,
    checkpoint: Path,
    *,
    texts: Sequence[Mapping[str, Tensor]],
    scale_texts: Sequence[Mapping[str, Tensor]] = (),
    judge: Callable[[onnx_files.OnnxModel], dict[str, Quality]] | None,
    before: Mapping[str, Measure],
    batch: int,
    seq: int,
    threads: int,
) -> Exported:
    """Write the files that ``recipe`` asks for into ``checkpoint`` and measure them, by onnxruntime alone.

    ``texts`` are batches of real inputs, whose every output is compared with ``model``'s (padding apart).
    ``scale_texts`` are the single calibration texts that static quantization takes scales from. ``judge`` takes the task's
    metrics of a file, ``before`` has the unpruned model's. For each file, ``onnx`` and ``onnx_int8``, the metrics are
    ``…_bytes``, ``…_max_abs_error``, ``…_mean_abs_error``, ``…_latency_p50_seconds``, ``…_speedup``
    (over ``model`` in torch, interleaved) and ``…_eval_…``. Raises ReloadMismatch where the float32 file computes
    something else, InvalidData where static quantization has no texts, EngineUnavailable where the extra isn't installed.
    """
    found, paths = Exported(), {"onnx": checkpoint / onnx_files.MODEL}
    model = model.to("cpu")  # type: ignore[arg-type]
    onnx_files.export(model, paths["onnx"], token_types=any("token_type_ids" in batch for batch in texts))
    if recipe.quantize is not None:
        paths["onnx_int8"] = checkpoint / onnx_files.QUANTIZED
        _quantize(recipe, paths["onnx"], paths["onnx_int8"], scale_texts)
    sessions = {name: onnx_files.OnnxModel(path, model.config, threads=threads) for name, path in paths.items()}
    for name, session in sessions.items():
        found.files[name] = paths[name].relative_to(checkpoint).as_posix()
        found.bytes[name] = paths[name].stat().st_size
        found.metrics[f"{name}_bytes"] = Measure(after=found.bytes[name])
        largest, mean, scale = parity(model, session, texts)
        if name == "onnx" and not largest <= TOLERANCE * max(1.0, scale):
            raise ReloadMismatch(
                f"the exported ONNX file differs from the pruned model by {largest:.3g}",
                hint="this is a defect: please report the model's architecture and the recipe",
            )
        found.metrics[f"{name}_max_abs_error"] = Measure(after=largest)
        found.metrics[f"{name}_mean_abs_error"] = Measure(after=mean)
        if judge is not None:
            found.qualities[name] = judge(session)
            for metric, quality in found.qualities[name].items():
                base = before[metric].before if metric in before else None
                found.metrics[f"{name}_{metric}"] = Measure(
                    before=base, after=quality.value, stderr=quality.stderr, n=quality.n
                )
    timed = latency.measure(
        {"torch": model, **sessions},  # type: ignore[dict-item]
        batch=batch,
        seq=seq,
        threads=threads,
        budget_seconds=BENCH_SECONDS,
    ).latencies
    for name in sessions:
        found.metrics[f"{name}_latency_p50_seconds"] = Measure(after=timed[name].latency_p50_seconds)
        found.metrics[f"{name}_speedup"] = Measure(
            after=timed["torch"].latency_p50_seconds / timed[name].latency_p50_seconds
        )
    return found


def runtime_of(recipe: Recipe) -> str | None:
    """The runtime that serves what the recipe makes, as latency tables name it; None: torch.

    Raises EngineUnavailable where the extra isn't installed.
    """
    if recipe.export is None:
        return None
    kind = f" {recipe.quantize}" if recipe.quantize else ""
    return onnx_files.runtime() + kind


def serving(recipe: Recipe, scratch: Path, threads: int, token_types: bool) -> Serving | None:
    """What exports a model into ``scratch`` and runs it as `runtime_of` says; the files go again.

    Static quantization takes its scales from a text made up: how long a file takes doesn't depend on them.
    """
    if recipe.export is None:
        return None

    def serve(model: PreTrainedModel) -> onnx_files.OnnxModel:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            whole, small = Path(folder, "model.onnx"), Path(folder, "quantized.onnx")
            onnx_files.export(model, whole, token_types=token_types)
            if recipe.quantize is not None:
                _quantize(recipe, whole, small, [made_up(model, 1, 8)])
            return onnx_files.OnnxModel(small if recipe.quantize else whole, model.config, threads=threads)

    return serve


def _quantize(recipe: Recipe, path: Path, target: Path, texts: Sequence[Mapping[str, Tensor]]) -> None:
    if recipe.quantize == "int8-static":
        onnx_files.quantize_static(path, target, texts)
    else:
        onnx_files.quantize(path, target)


def can_judge(model: PreTrainedModel, task: str) -> bool:
    """Whether the task's metrics can be taken of a file: embeddings can't, of a model whose first output is logits."""
    return task != "feature-extraction" or model.base_model is model


@torch.inference_mode()
def parity(
    model: PreTrainedModel, session: onnx_files.OnnxModel, texts: Sequence[Mapping[str, Tensor]]
) -> tuple[float, float, float]:
    """(largest, mean absolute difference, largest absolute output) over every number given for tokens of ``texts``."""
    largest = scale = total = 0.0
    count = 0
    for inputs in texts:
        expected = model(**inputs)[0]
        got = next(iter(session(**inputs).values()))
        if expected.dim() == 3:  # an output a token: those of padding are nobody's
            real = inputs["attention_mask"].bool()
            expected, got = expected[real], got[real]
        difference = (got - expected).abs()
        largest = max(largest, float(difference.max()))
        scale = max(scale, float(expected.abs().max()))
        total += float(difference.double().sum())
        count += difference.numel()
    return largest, total / max(count, 1), scale
