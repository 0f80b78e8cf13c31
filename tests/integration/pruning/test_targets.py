"""Jobs with a target: the solver's answer keeps to it from the plan to the checkpoint; refits are said and reloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prunectl.checkpoints import load_pruned, manifest
from prunectl.evaluation import latency_table, macs
from prunectl.evaluation.latency_table import LatencyTable
from prunectl.pruning import budgets
from prunectl.pruning.blocks import find_blocks, inputs_of, linear
from prunectl.pruning.levels import LevelCosts
from prunectl.recipe import Recipe
from prunectl.worker.stored_tables import StoredTables
from support.models import build, heads_of, model
from support.pipeline import run


@pytest.mark.parametrize("family", ["bert", pytest.param("t5", marks=pytest.mark.slow)])
def test_a_job_keeps_to_its_multiply_adds_whatever_earlier_steps_took(family: str, tmp_path: Path) -> None:
    source = build(tmp_path / "source", family, heads_of(family)[-1], layers=4)
    result, checkpoint = run(source, {"target_macs": 0.6, "layers": 1}, tmp_path)
    counted = result.metrics["macs"]
    assert counted.before is not None and counted.after is not None
    assert 0.5 * counted.before < counted.after <= 0.6 * counted.before
    assert macs.count(load_pruned(checkpoint), 16) == counted.after
    said = result.conditions["refit"]
    assert 0 <= said["matrices"] <= said["matrices_total"]
    assert said["held_back_loss"]["after"] <= said["held_back_loss"]["before"]
    assert [row.step for row in result.ledger] == ["original", "layers", "heads+ffn"]


def test_a_target_leaves_the_whole_curve_and_the_job_is_a_point_of_it(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "bert", "feature-extraction", layers=3)
    result, checkpoint = run(source, {"target_macs": 0.5}, tmp_path)
    assert result.artifacts["curve"] == f"{result.artifacts['checkpoint']}/curve.json"
    points = json.loads((checkpoint / "curve.json").read_text())["points"]
    kept = [point["importance_kept"] for point in points]
    assert kept == sorted(kept) and 0 <= kept[0] < kept[-1] < 1
    assert all(point["macs"] <= point["target_macs"] * point["macs_total"] for point in points)
    ours = next(point for point in points if point["target_macs"] == 0.5)
    assert ours["heads_kept"] == [len(block.heads_kept) for block in result.structure.layers]
    assert ours["ffn_kept"] == [block.ffn_kept for block in result.structure.layers]
    assert ours["macs"] == result.metrics["macs"].after
    manifest.verify(checkpoint)


@pytest.mark.slow
def test_a_job_with_a_speedup_measures_once_and_keeps_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build(tmp_path / "source", "bert", "feature-extraction", layers=3)
    measured: list[Any] = []

    def measure(built: Any, **_: Any) -> LatencyTable:
        """A machine where a head takes 2 ms and eight neurons 1 ms, of 90 ms in all."""
        measured.append(built)
        blocks = find_blocks(built)
        levels = [list(range(5))] * len(blocks) + [[0, 8, 16, 24, 32, 40, 48]] * len(blocks)
        seconds = [
            [(number - counts[-1]) * (0.002 if counts[-1] == 4 else 0.000125) for number in counts] for counts in levels
        ]
        return LatencyTable(LevelCosts(0.090, levels, seconds), 0.090)

    monkeypatch.setattr(latency_table, "measure", measure)
    result, _ = run(source, {"speedup": 1.5}, tmp_path)
    assert len(measured) == 1, "the target and the table are one measurement"
    assert len(list((tmp_path / "storage" / "latencies").iterdir())) == 1
    kept = [(len(block.heads_kept), block.ffn_kept) for block in result.structure.layers]
    spent = 0.090 - sum((4 - heads) * 0.002 + (48 - neurons) * 0.000125 for heads, neurons in kept)
    assert 0.058 < spent <= 0.060 + 1e-9


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_table, "ROUNDS", 1)
    monkeypatch.setattr(latency_table, "FFN_LEVELS", 4)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "albert", "mpnet"])
@pytest.mark.usefixtures("quick")
def test_a_measured_table_has_the_axes_of_the_solver(family: str) -> None:
    built = model(family, heads_of(family)[0])
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    table = latency_table.measure(built, seq=8, multiple_of=4)
    recipe = Recipe(speedup=2, multiple_of=4)
    assert len(table.costs.levels) == len(table.costs.seconds) == len(budgets.least_units(recipe, find_blocks(built)))
    for levels, seconds in zip(table.costs.levels, table.costs.seconds, strict=True):
        assert levels == sorted(levels) and levels[0] == 0 and len(levels) == len(seconds)
        assert seconds[-1] == 0.0, "nothing removed saves nothing"
    assert table.costs.total([levels[-1] for levels in table.costs.levels]) == table.whole_seconds > 0
    assert LatencyTable.from_json(table.to_json()) == table
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())


@pytest.mark.parametrize("family", ["bert", "albert", "deberta-v2", "mpnet"])
@pytest.mark.usefixtures("quick")
def test_another_runtime_is_asked_about_models_of_one_layer(family: str) -> None:
    built = model(family, heads_of(family)[0])
    before = {name: tensor.clone() for name, tensor in built.state_dict().items()}
    asked: list[Any] = []

    def serve(given: Any) -> Any:
        asked.append(given)
        return given.forward

    table = latency_table.measure(built, seq=8, multiple_of=4, serving=serve)
    whole, *alone = asked
    assert whole is built
    assert all(other.get_input_embeddings().num_embeddings == latency_table.SMALL_VOCABULARY for other in alone)
    sizes = set()
    for other in alone:
        [block] = find_blocks(other)
        sizes.add(
            (inputs_of(linear(other, block.output)) // block.head_dim, inputs_of(linear(other, block.ffn_second or "")))
        )
    [first, *_] = find_blocks(built)
    assert {heads for heads, _ in sizes} == set(range(first.heads_total + 1))
    assert {neurons for _, neurons in sizes} == {4 * groups for groups in table.costs.levels[-1]}
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())


@pytest.mark.slow
def test_a_job_that_exports_keeps_to_what_onnxruntime_takes(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "bert", "feature-extraction", layers=2)
    result, checkpoint = run(source, {"speedup": 1.2, "quantize": "int8"}, tmp_path)
    [table] = (tmp_path / "storage" / "latencies").iterdir()
    assert LatencyTable.from_json(table.read_bytes()).whole_seconds > 0
    assert result.metrics["macs"].after < result.metrics["macs"].before  # type: ignore[operator]
    assert (checkpoint / "onnx" / "model_quantized.onnx").exists()
    assert not list((tmp_path / "scratch").rglob("quantized.onnx"))


class Shelf(dict[str, bytes]):
    def exists(self, name: str) -> bool:
        return name in self

    def read(self, name: str) -> bytes:
        return self[name]

    def write(self, name: str, data: bytes) -> None:
        self[name] = data


@pytest.mark.usefixtures("quick")
def test_other_conditions_are_other_tables() -> None:
    shelf, built = Shelf(), model("bert", "fill-mask", layers=1)
    first = StoredTables(shelf, batch=1, seq=8, threads=1, multiple_of=1)
    assert first(built) == first(built) and len(shelf) == 1
    StoredTables(shelf, batch=2, seq=8, threads=1, multiple_of=1)(built)
    first(model("bert", "fill-mask", layers=2))
    served = StoredTables(
        shelf, batch=1, seq=8, threads=1, multiple_of=1, runtime="other 1", serving=lambda given: given.forward
    )
    served(built)
    assert len(shelf) == 4
