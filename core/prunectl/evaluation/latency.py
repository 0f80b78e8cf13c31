"""Latency: how long a forward pass takes, measured side by side so that a busy machine slows all models alike."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from prunectl.evaluation.inputs import made_up

WARM_UP = 2
BOOTSTRAP_ROUNDS = 500


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one model, over all timed calls."""

    latency_p50_seconds: float
    latency_p95_seconds: float
    throughput_samples_per_second: float


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Latencies by the models' names, and what they were measured under: batch, seq, threads, device, dtype, rounds.

    ``seconds`` is every timed call ``[rounds]`` of each model; the calls of one round ran one after the other.
    """

    latencies: dict[str, Latency]
    conditions: dict[str, Any]
    seconds: dict[str, list[float]]

    def speedup(self, before: str, after: str) -> tuple[float, float | None]:
        """Ratio of the median latencies, and its standard error by bootstrap over the rounds (pairs stay together)."""
        slow, fast = np.array(self.seconds[before]), np.array(self.seconds[after])
        ratio = self.latencies[before].latency_p50_seconds / self.latencies[after].latency_p50_seconds
        if len(slow) < 3:
            return ratio, None
        draws = np.random.default_rng(0).integers(0, len(slow), (BOOTSTRAP_ROUNDS, len(slow)))
        ratios = np.median(slow[draws], axis=1) / np.median(fast[draws], axis=1)
        return ratio, float(np.std(ratios, ddof=1))


@torch.inference_mode()
def measure(
    models: Mapping[str, PreTrainedModel],
    *,
    batch: int = 1,
    seq: int = 128,
    threads: int | None = None,
    rounds: int = 50,
    budget_seconds: float = 20.0,
    seed: int = 0,
) -> Benchmark:
    """Time one forward pass on random tokens ``[batch, seq]`` without padding, or on random images.

    Each round calls every model once, in turns that change from round to round: drift and noise hit all alike.
    There are ``rounds`` of them or, for big models, as many as ``budget_seconds`` allow, at least 3.
    ``threads`` is torch's intra-op setting while it runs (None: as it is).
    """
    usual = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        return _measure(models, batch, seq, rounds, budget_seconds, seed)
    finally:
        torch.set_num_threads(usual)


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _measure(
    models: Mapping[str, PreTrainedModel], batch: int, seq: int, rounds: int, budget_seconds: float, seed: int
) -> Benchmark:
    vocabulary = min((getattr(model.config, "vocab_size", 0) for model in models.values()), default=0)
    inputs = {name: made_up(model, batch, seq, seed=seed, vocabulary=vocabulary) for name, model in models.items()}

    started = time.perf_counter()
    for _ in range(WARM_UP):
        for name, model in models.items():
            _call(model, inputs[name])
        if time.perf_counter() - started > budget_seconds:
            break
    timed: dict[str, list[float]] = {name: [] for name in models}
    order = list(models)
    started = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and time.perf_counter() - started >= budget_seconds:
            break
        for name in order:
            timed[name].append(_call(models[name], inputs[name]))
        order.append(order.pop(0))
    first = next(iter(models.values()))
    conditions = {
        "batch": batch,
        "seq": seq,
        "threads": torch.get_num_threads(),
        "device": device_name(first.device),
        "dtype": str(first.dtype).removeprefix("torch."),
        "rounds": len(next(iter(timed.values()))),
    }
    return Benchmark({name: _summary(seconds, batch) for name, seconds in timed.items()}, conditions, timed)


def _call(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> float:
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(model.device)
    start = time.perf_counter()
    model(**inputs)
    if cuda:
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start


def _summary(seconds: list[float], batch: int) -> Latency:
    return Latency(
        latency_p50_seconds=float(np.percentile(seconds, 50)),
        latency_p95_seconds=float(np.percentile(seconds, 95)),
        throughput_samples_per_second=batch * len(seconds) / sum(seconds),
    )
