"""Taylor scores equal TextPruner's and the definition; nothing of the model is left changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from textpruner import GeneralConfig, TransformerPruner, TransformerPruningConfig

from prunectl.evaluation.data import Example
from prunectl.evaluation.objectives import objective_for
from prunectl.evaluation.tasks import Task
from prunectl.pruning import scores, surgery
from prunectl.pruning.blocks import find_blocks, linear
from prunectl.pruning.masks import Masks
from prunectl.pruning.packing import Budget
from prunectl.pruning.textpruner import LossModel
from support.models import FAMILIES, HEADS, heads_of, model, texts, tokenizer
from support.pruning import batches, loss


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "distilbert"])
def test_equal_textpruners_own_scores(family: str, even: bool, tmp_path: Path) -> None:
    built = model(family, "fill-mask")
    given = batches(built, 3)
    ours = scores.taylor(built, given, loss, even=even)
    config = TransformerPruningConfig(ffn_even_masking=even, head_even_masking=even)
    pruner = TransformerPruner(
        LossModel(built, loss), config, GeneralConfig(use_device="cpu", output_dir=str(tmp_path))
    )
    heads, ffn = pruner.get_importance_score(given)
    torch.testing.assert_close(ours.heads, heads.detach(), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(ours.ffn, ffn.detach(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_the_sum_of_gradient_times_weight(family: str) -> None:
    built = model(family, "text-classification")
    given = batches(built, 2)
    ours = scores.taylor(built, given, loss)
    expected_heads, expected_ffn = torch.zeros_like(ours.heads), torch.zeros_like(ours.ffn)
    for batch in given:
        built.zero_grad()
        loss(built, batch).backward()
        for row, block in enumerate(find_blocks(built)):
            output, second = linear(built, block.output), linear(built, block.ffn_second)
            assert output.weight.grad is not None and second.weight.grad is not None
            felt = (output.weight.grad * output.weight).detach().sum(0)
            expected_heads[row] += felt.view(block.heads_total, -1).sum(1).abs()
            expected_ffn[row] += (second.weight.grad * second.weight).detach().sum(0).abs()
    torch.testing.assert_close(ours.heads, expected_heads / 8, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(ours.ffn, expected_ffn / 8, rtol=1e-4, atol=1e-9)


def test_leave_no_gradient_no_hook_and_the_flags_as_they_were() -> None:
    built = model("bert", "fill-mask")
    built.train()
    built.bert.embeddings.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in built.parameters()]
    heard: list[float] = []
    scores.taylor(built, batches(built, 2), loss, progress=heard.append)
    assert heard == [0.5, 1.0]
    assert built.training and all(module.training for module in built.modules())
    assert [parameter.requires_grad for parameter in built.parameters()] == flags
    assert all(parameter.grad is None for parameter in built.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in built.modules())


def test_a_removed_unit_scores_nothing() -> None:
    built = model("roberta", "fill-mask")
    masks = Masks(torch.tensor([[True, False, True, True]] * 2), torch.arange(96).view(2, 48) % 2 == 0)
    assert masks.heads is not None and masks.ffn is not None
    with surgery.masked(built, masks):
        found = scores.taylor(built, batches(built), loss, even=True)
    assert not found.heads[~masks.heads].any() and not found.ffn[~masks.ffn].any()
    assert found.heads[masks.heads].all() and found.ffn[masks.ffn].all()


def test_random_scores_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = scores.random((2, 4, 8), seed=5)
    torch.manual_seed(2)
    again, other = scores.random((2, 4, 8), seed=5), scores.random((2, 4, 8), seed=6)
    assert torch.equal(first.heads, again.heads) and torch.equal(first.ffn, again.ffn)
    assert not torch.equal(first.heads, other.heads)


def test_no_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        scores.taylor(model("bert", "fill-mask"), [], loss)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_fisher_is_the_mean_squared_gradient_of_the_masks(family: str) -> None:
    built = model(family, heads_of(family)[0])
    given = batches(built, 3)
    found = scores.fisher(built, given, loss)
    each = [scores.taylor(built, [batch], loss) for batch in given]
    size = len(given[0]["input_ids"])  # of one batch, taylor is the gradient's size divided by the examples
    for name in ("heads", "ffn"):
        gradients = torch.stack([getattr(one, name) * size for one in each])
        torch.testing.assert_close(getattr(found, name), gradients.square().mean(0), rtol=1e-4, atol=1e-12)


def test_one_pass_gives_both_and_even_masks_change_taylor_alone() -> None:
    built = model("bert", "fill-mask")
    given = batches(built)
    runs = 0

    def counted(model: Any, batch: Any) -> torch.Tensor:
        nonlocal runs
        runs += 1
        return loss(model, batch)

    even = scores.gradient_scores(built, given, counted, even=True)
    assert runs == len(given)
    plain = scores.gradient_scores(built, given, loss)
    torch.testing.assert_close(even["fisher"].ffn, plain["fisher"].ffn, rtol=1e-5, atol=0)
    assert not torch.allclose(even["taylor"].ffn, plain["taylor"].ffn)


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_batch_that_memory_cannot_hold_is_halved_and_scores_the_same(by_token: bool, error: RuntimeError) -> None:
    built = model("bert", "fill-mask" if by_token else "text-classification")
    given = batches(built, 2, 5)
    for batch in given:
        shape = batch["input_ids"].shape if by_token else (5,)
        batch["labels"] = torch.arange(torch.Size(shape).numel()).view(shape) % 3
        if by_token:
            batch["labels"][0, 2:] = batch["labels"][3] = -100

    def entropy(built: Any, batch: Any) -> torch.Tensor:
        logits = built(**{name: value for name, value in batch.items() if name != "labels"})[0]
        chosen = batch["labels"] >= 0
        return torch.nn.functional.cross_entropy(logits[chosen], batch["labels"][chosen])

    def narrow(built: Any, batch: Any) -> torch.Tensor:
        if len(batch["input_ids"]) > 2:
            raise error
        return entropy(built, batch)

    expected, found = (scores.gradient_scores(built, given, measure) for measure in (entropy, narrow))
    for name in ("taylor", "fisher"):
        torch.testing.assert_close(found[name].heads, expected[name].heads, rtol=1e-4, atol=1e-9)  # type: ignore[index]
        torch.testing.assert_close(found[name].ffn, expected[name].ffn, rtol=1e-4, atol=1e-9)  # type: ignore[index]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", HEADS)
def test_packed_passes_score_what_the_whole_batches_do(
    family: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, words = model(family, task), tokenizer(family)
    examples = [Example(text[: 12 + 9 * number]) for number, text in enumerate(texts(12))]
    made = objective_for(task, words, examples=examples, max_length=24, seed=0, model=built)
    found = []
    for budget in (Budget(10_000, 10_000), Budget(60, 2)):
        passes: list[int] = []

        def counted(built: Any, batch: Any, passes: list[int] = passes) -> torch.Tensor:
            passes.append(batch["input_ids"].numel())
            return made.loss(built, batch)

        monkeypatch.setattr(scores, "budget_of", lambda _model, budget=budget: budget)
        found.append((scores.gradient_scores(built, made.batches(12), counted), passes))
    (whole, once), (parts, several) = found
    assert len(once) == 1
    assert len(several) == 1 if task == "feature-extraction" else len(several) > 3 and sum(several) < sum(once)
    for name in ("taylor", "fisher"):
        torch.testing.assert_close(parts[name].heads, whole[name].heads, rtol=1e-3, atol=1e-8)  # type: ignore[index]
        torch.testing.assert_close(parts[name].ffn, whole[name].ffn, rtol=1e-3, atol=1e-8)  # type: ignore[index]


def test_other_errors_and_a_single_example_that_does_not_fit_are_raised() -> None:
    built = model("bert", "fill-mask")
    for error in (RuntimeError("shape mismatch"), torch.OutOfMemoryError("no")):

        def failing(_model: Any, _batch: Any, error: RuntimeError = error) -> torch.Tensor:
            raise error

        with pytest.raises(type(error), match=str(error)):
            scores.taylor(built, batches(built), failing)
