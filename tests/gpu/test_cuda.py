"""What has to hold on a CUDA device as well: the same choices, whole jobs, training in bf16."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from prunectl.checkpoints import load as checkpoint_load
from prunectl.evaluation.data import builtin_python_docs
from prunectl.evaluation.objectives import objective_for
from prunectl.pruning import engine
from prunectl.pruning.scores import gradient_scores
from prunectl.pruning.vocabulary import load_tokenizer
from prunectl.recipe import Recipe
from prunectl.zoo.directory import local_config
from support import models, pipeline

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DEVICE = "cuda"


def loaded(directory: Path, device: str) -> torch.nn.Module:
    return checkpoint_load.load_original(directory, local_config(directory)).to(device)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", models.FAMILIES)
def test_scores_are_those_of_the_processor(family: str, tmp_path: Path) -> None:
    directory = models.build(tmp_path / "model", family, "fill-mask")
    words, found = load_tokenizer(directory), []
    for device in ("cpu", DEVICE):
        model = loaded(directory, device)
        objective = objective_for(
            "fill-mask", words, examples=builtin_python_docs()[:16], max_length=32, seed=0, model=model  # type: ignore[arg-type]
        )  # fmt: skip
        found.append(gradient_scores(model, objective.batches(8), objective.loss)["taylor"])  # type: ignore[arg-type]
    for ours, theirs in ((found[0].heads, found[1].heads), (found[0].ffn, found[1].ffn)):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(ours.max()))


def test_a_refitted_cut_computes_there_what_it_computes_here(tmp_path: Path) -> None:
    directory = models.build(tmp_path / "model", "bert", "fill-mask")
    words, recipe, outputs = load_tokenizer(directory), Recipe(heads=0.5, ffn=0.5), []
    for device in ("cpu", DEVICE):
        model = loaded(directory, device)
        objective = objective_for(
            "fill-mask", words, examples=builtin_python_docs()[:16], max_length=32, seed=0, model=model  # type: ignore[arg-type]
        )  # fmt: skip
        engine.prune(model, recipe, objective.batches(8), objective.loss)  # type: ignore[arg-type]
        batch = {name: value.to(device) for name, value in objective.batches(8)[0].items() if name != "labels"}
        with torch.no_grad():
            outputs.append(model(**batch)[0].cpu())
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "recipe",
    [
        {"heads": 0.5, "ffn": 0.5},
        {"target_macs": 0.5},
        {"layers": 1, "weights": 0.5, "scorer": "wanda"},
        {"heads": 0.5, "recover": "distill", "recover_epochs": 1, "gradient_checkpointing": True},
        {"heads": 0.5, "recover": "finetune", "recover_epochs": 1},
    ],
    ids=["cut", "solved", "layers and weights", "distilled", "fine-tuned"],
)
def test_a_whole_job(recipe: dict[str, object], tmp_path: Path) -> None:
    directory = models.build(tmp_path / "model", "bert", "fill-mask")
    result, checkpoint = pipeline.run(directory, recipe, tmp_path, device="gpu", data="builtin:python-docs")
    assert result.conditions["machine"] == torch.cuda.get_device_name(0)
    for metric in ("latency_p50_seconds", "throughput_samples_per_second", "peak_memory_bytes"):
        assert all(
            value is not None and value > 0 for value in (result.metrics[metric].before, result.metrics[metric].after)
        )
    assert checkpoint_load.load_pruned(checkpoint).device.type == "cpu"
    shutil.rmtree(checkpoint)
