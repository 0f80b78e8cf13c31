"""How models run while they are trained: dropout, and layers that are computed again on the way back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.evaluation.inputs import made_up
from prunectl.recovery.distillation import Distillation
from prunectl.recovery.mode import training_mode
from support import models


def kept_and_gradients(model: PreTrainedModel, *, dropout: bool, checkpointing: bool) -> tuple[int, dict[str, Tensor]]:
    """(bytes that autograd kept outside of what is computed again, the gradients)."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)
    model.zero_grad(set_to_none=True)
    with training_mode(model, dropout=dropout, checkpointing=checkpointing):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(**made_up(model, 4, 32))[0].float().pow(2).mean()
        loss.backward()
    assert not any(module.training for module in model.modules())
    return sum(kept.values()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", models.EVERY_FAMILY)
@pytest.mark.parametrize("dropout", [False, True], ids=["still", "dropout"])
def test_layers_that_are_computed_again_give_the_same_gradients(family: str, dropout: bool) -> None:
    model = models.model(family, models.heads_of(family)[0], layers=4)
    whole, expected = kept_and_gradients(model, dropout=dropout, checkpointing=False)
    less, found = kept_and_gradients(model, dropout=dropout, checkpointing=True)
    assert expected and found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name
    assert less < 0.7 * whole


def test_nothing_is_dropped_where_dropout_is_off_and_much_where_it_is_on() -> None:
    for family in models.FAMILIES:
        model = models.model(family, "fill-mask")
        inputs = made_up(model, 2, 8)
        with training_mode(model, dropout=False, checkpointing=True):
            assert torch.equal(model(**inputs)[0], model(**inputs)[0])
        with training_mode(model, dropout=True, checkpointing=True):
            assert not torch.equal(model(**inputs)[0], model(**inputs)[0])


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_hidden_states_can_be_learnt_from_while_layers_are_computed_again(family: str) -> None:
    """Distillation watches the layers, a second time too if it was asked to."""
    task = models.heads_of(family)[0]
    teacher, student = models.model(family, task), models.model(family, task)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.1)
    batch = dict(made_up(teacher, 2, 8))
    batch["labels"] = batch["input_ids"].clone()
    distillation, found = Distillation(task, teacher), []  # type: ignore[arg-type]
    for checkpointing in (False, True):
        student.zero_grad(set_to_none=True)
        with training_mode(student, dropout=False, checkpointing=checkpointing):
            loss = distillation.loss(student, batch)
            loss.backward()
        found.append((loss.detach(), {name: p.grad for name, p in student.named_parameters() if p.grad is not None}))
    (first, expected), (second, gradients) = found
    assert torch.equal(first, second) and first > 0
    assert all(torch.equal(gradients[name], gradient) for name, gradient in expected.items())
