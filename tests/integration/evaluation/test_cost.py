"""What a model costs: latency, MACs, parameters, memory."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prunectl.evaluation import latency, macs, memory
from prunectl.evaluation.tasks import Task
from support.models import FAMILIES, HEADS, model


def by_hand(layers: int, hidden: int, ffn: int, seq: int) -> int:
    projections = 4 * seq * hidden * hidden
    attention = 2 * seq * seq * hidden
    return layers * (projections + attention + 2 * seq * hidden * ffn)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_macs_of_an_encoder_by_hand(family: str, attention: str) -> None:
    subject = model(family, "feature-extraction", layers=3, heads=4, hidden=32, ffn=48)
    subject.set_attn_implementation(attention)
    pooler = 32 * 32 if family not in ("electra", "distilbert") else 0
    projection = 20 * 16 * 32 if family == "electra" else 0  # its embeddings are half as wide
    assert macs.count(subject, 20) == by_hand(3, 32, 48, 20) + pooler + projection


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", HEADS)
def test_macs_and_parameters_are_those_that_the_plan_states(family: str, task: Task) -> None:
    planning = pytest.importorskip("prunectl.pruning.planning")
    subject = model(family, task)
    config = subject.config.to_dict() | {"architectures": [type(subject).__name__]}
    assert planning.count_macs(config, 24) == macs.count(subject, 24)
    assert planning.count_parameters(config) == macs.parameters(subject)


def test_shared_parameters_count_once_and_zeros_not() -> None:
    first, second = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    second.weight = first.weight
    torch.nn.init.zeros_(second.bias)
    both = torch.nn.ModuleList([first, second])
    assert macs.parameters(both) == 12 + 4 + 4
    assert macs.nonzero_parameters(both) == 12 + 4


class Sleeper:
    """Stands in for a model: a call takes ``seconds`` on a clock of its own."""

    def __init__(self, clock: SimpleNamespace, seconds: float, name: str) -> None:
        self.config = SimpleNamespace(vocab_size=50, pad_token_id=0)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self._clock, self._seconds, self._name = clock, seconds, name

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
        assert input_ids.shape == attention_mask.shape == (4, 16)
        assert (input_ids != 0).all()
        self._clock.calls.append(self._name)
        self._clock.now += self._seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=0.0, calls=[])
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    return made


def test_latency_is_interleaved_and_stated(clock: SimpleNamespace) -> None:
    models: dict[str, Any] = {"before": Sleeper(clock, 0.02, "before"), "after": Sleeper(clock, 0.01, "after")}
    found = latency.measure(models, batch=4, seq=16, threads=1, rounds=10, budget_seconds=60)
    before, after = found.latencies["before"], found.latencies["after"]
    assert before.latency_p50_seconds == pytest.approx(0.02)
    assert after.latency_p95_seconds == pytest.approx(0.01)
    assert after.throughput_samples_per_second == pytest.approx(400)
    assert found.conditions | {"device": ""} == {
        "batch": 4, "seq": 16, "threads": 1, "device": "", "dtype": "float32", "rounds": 10
    }  # fmt: skip
    assert clock.calls[4:8] == ["before", "after", "after", "before"]


def test_latency_keeps_to_its_budget(clock: SimpleNamespace) -> None:
    models: dict[str, Any] = {"before": Sleeper(clock, 2.0, "before")}
    found = latency.measure(models, batch=4, seq=16, rounds=1000, budget_seconds=20)
    assert found.conditions["rounds"] == 10
    slow: dict[str, Any] = {"before": Sleeper(clock, 100.0, "before")}
    assert latency.measure(slow, batch=4, seq=16, rounds=1000, budget_seconds=20).conditions["rounds"] == 3


def test_latency_of_a_real_model_leaves_torchs_threads_alone() -> None:
    usual = torch.get_num_threads()
    found = latency.measure({"m": model("bert", "fill-mask")}, batch=2, seq=8, threads=1, rounds=3)
    assert 0 < found.latencies["m"].latency_p50_seconds <= found.latencies["m"].latency_p95_seconds < 5
    assert torch.get_num_threads() == usual


@pytest.mark.parametrize("polled", [False, True])
def test_peak_memory_is_the_most_that_was_held_at_once(polled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if polled:
        monkeypatch.setattr(memory, "_reset_peak", lambda: False)

    def use() -> None:
        held = bytearray(40_000_000)
        time.sleep(0.03 if polled else 0)  # the fallback only sees what lasts
        del held
        bytearray(10_000_000)

    # Pages that the process has free already are used first.
    assert 39_000_000 < memory.peak_of(use) < 48_000_000


def test_peak_memory_of_a_failing_function_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError("no such model")

    with pytest.raises(RuntimeError, match="exit 1"):
        memory.peak_of(fail)
    assert "no such model" in capfd.readouterr().err
