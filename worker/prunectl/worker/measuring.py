"""What a job measures of a model: counts, quality on the evaluation texts, latency."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from prunectl.evaluation import encoding, latency, macs, quality
from prunectl.evaluation.data import Example
from prunectl.evaluation.heads import head_for
from prunectl.evaluation.heads.base import inputs_of
from prunectl.evaluation.objectives import Objective, objective_for
from prunectl.schemas import Evaluation, Measure
from prunectl.worker.report import Report
from prunectl.worker.source import Source

BATCH_SIZE = 16
BATCH_TOKENS = 2048
"""Tokens that a batch of short texts may have where its size changes no result but its last digits."""
BENCH_SECONDS = 10.0
"""Time that each batch size of the benchmark may take: enough for fifty rounds of a small model, ten of a big one."""
PARITY_EXAMPLES = 64
"""Texts whose every output an exported file is compared on."""
SCALE_EXAMPLES = 64
"""Calibration examples at most that static quantization takes its scales from."""


def counts(model: PreTrainedModel, seq: int, side: str) -> dict[str, Measure]:
    return {
        "parameters": Measure(**{side: macs.parameters(model)}),
        "nonzero_parameters": Measure(**{side: macs.nonzero_parameters(model)}),
        "macs": Measure(**{side: macs.count(model, seq)}),
    }


def texts_a_batch(source: Source) -> int:
    """For evaluation and refit: as many texts as come to `BATCH_TOKENS`, and no fewer than `BATCH_SIZE`."""
    return BATCH_SIZE if source.tokenizer is None else max(BATCH_SIZE, BATCH_TOKENS // source.max_length)


def merged(before: dict[str, Measure], after: dict[str, Measure]) -> dict[str, Measure]:
    return before | {name: before[name].model_copy(update={"after": measure.after}) for name, measure in after.items()}


def weight_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


def objective_of(source: Source, examples: list[Example], seed: int, model: PreTrainedModel) -> Objective:
    """What ``model`` is scored, or refitted, by on these examples."""
    return objective_for(
        source.task, source.tokenizer, examples=examples, max_length=source.max_length, seed=seed, model=model
    )


def quality_of(
    model: PreTrainedModel,
    source: Source,
    seed: int,
    reference: quality.Reference,
    examples: Sequence[Example] | None = None,
) -> dict[str, quality.Quality]:
    """On the evaluation examples, or on ``examples``, of which ``reference`` is what the unpruned model said."""
    return quality.evaluate(
        model,
        source.tokenizer,
        source.task,
        source.evaluation if examples is None else examples,
        max_length=source.max_length,
        batch_size=texts_a_batch(source),
        seed=seed,
        reference=reference,
        original_ids=source.vocabulary.kept if source.vocabulary else None,
    )


def batches(model: PreTrainedModel, source: Source) -> list[dict[str, Any]]:
    """The first evaluation texts, as the model takes them."""
    rows = encoding.encode(model, source.tokenizer, source.evaluation[:PARITY_EXAMPLES], source.max_length)
    groups = encoding.by_length(rows, BATCH_SIZE)
    return [encoding.collate(source.tokenizer, [rows[index] for index in group]) for group in groups]


def scale_texts(model: PreTrainedModel, source: Source, seed: int) -> list[dict[str, Tensor]]:
    """The first calibration examples as the task shows them to ``model``: single texts ``[1, tokens]``, no padding."""
    asked = head_for(source.task).ask(
        model, source.tokenizer, source.calibration[:SCALE_EXAMPLES], max_length=source.max_length, seed=seed
    )
    return [inputs_of(encoding.collate(source.tokenizer, [row])) for row in asked.rows]


def figures(found: dict[str, quality.Quality], metric: str) -> tuple[float, float | None, int]:
    return found[metric].value, found[metric].stderr, found[metric].n


def benchmark(
    original: PreTrainedModel,
    small: PreTrainedModel,
    evaluation: Evaluation,
    source: Source,
    threads: int,
    report: Report,
) -> tuple[dict[str, Measure], dict[str, Any]]:
    """Latency and throughput for each batch size, the two models interleaved; the first batch size names no suffix."""
    metrics: dict[str, Measure] = {}
    conditions: dict[str, Any] = {}
    for index, batch in enumerate(evaluation.bench_batch):
        measured = latency.measure(
            {"before": original, "after": small},
            batch=batch,
            seq=source.bench_seq,
            threads=threads,
            budget_seconds=BENCH_SECONDS,
        )
        suffix = "" if index == 0 else f"_b{batch}"
        before, after = measured.latencies["before"], measured.latencies["after"]
        for name in ("latency_p50_seconds", "latency_p95_seconds", "throughput_samples_per_second"):
            metrics[name + suffix] = Measure(before=getattr(before, name), after=getattr(after, name))
        speedup, stderr = measured.speedup("before", "after")
        metrics["speedup" + suffix] = Measure(after=speedup, stderr=stderr)
        if index == 0:
            conditions = {f"bench_{key}": value for key, value in measured.conditions.items()}
        report.progress((index + 1) / len(evaluation.bench_batch))
    return metrics, conditions
