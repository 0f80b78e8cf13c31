"""Training: epochs of AdamW over a loss, stopped early, the best epoch kept, able to go on after a kill."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import BaseModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.errors import CorruptWeights
from prunectl.recovery.mode import training_mode

logger = logging.getLogger(__name__)

Batch = Mapping[str, Tensor]
Loss = Callable[[PreTrainedModel, Batch], Tensor]

BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.999), 0.01, 1.0
WARM_UP = 0.1
"""Share of all steps in which the rate rises; then it falls to nothing in a straight line."""
PATIENCE = 2
"""Epochs, or half of all where that is more, without a better validation loss than the best trained one before training
stops. A refitted model is near its best: while the rate is high it may well get worse, and better than it was only as the
rate falls, towards the end. So epoch 0 doesn't count.
"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """``rate`` is AdamW's at its highest; ``seed`` draws dropout, and the caller the batches. `training_mode` has the
    other two.
    """

    epochs: int
    rate: float
    seed: int
    dropout: bool = True
    checkpointing: bool = False


class Point(BaseModel):
    """One epoch of a learning curve; epoch 0 is the model as it was pruned, before any training."""

    epoch: int
    training_loss: float | None
    validation_loss: float


class Course(BaseModel):
    """What a training did. ``best`` is the epoch whose weights the model has now."""

    points: list[Point]
    best: int = 0
    resumed: int = 0
    """Epochs that an earlier attempt had done."""


class Keeper(Protocol):
    """Where a training's state survives the process: one file, replaced whole."""

    def load(self, directory: Path) -> Path | None:
        """A local copy of the last state, in ``directory``; None where there is none."""
        ...

    def save(self, file: Path) -> None: ...


def train(
    model: PreTrainedModel,
    loss: Loss,
    *,
    batches: Callable[[int], Sequence[Batch]],
    validation: Sequence[Batch],
    schedule: Schedule,
    zeros: Mapping[str, Tensor] | None = None,
    keeper: Keeper | None = None,
    workspace: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> Course:
    """Train ``model`` in place and leave it, in eval mode, as it was after the epoch with the best validation loss.

    ``batches(epoch)`` are those of an epoch, counted from 1, the same number in each; ``zeros`` names parameters that
    a mask (True: stays zero) holds down. With a ``keeper`` the state is saved after each epoch in ``workspace`` and
    handed over; a later call with the same arguments goes on from there and ends with the same weights on the same
    machine. AdamW (Loshchilov and Hutter 2019) with a linear schedule; bf16 autocast on GPUs that compute in it.
    Raises CorruptWeights where the loss is no number.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters.values(), lr=schedule.rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
    course = Course(points=[Point(epoch=0, training_loss=None, validation_loss=_mean_loss(model, loss, validation))])
    best = _copy(parameters)
    start = _fingerprint(parameters)
    if keeper is not None and workspace is not None and (file := keeper.load(workspace)) is not None:
        restored = _restore(file, start, parameters, optimiser)
        if restored is not None:
            course, best = restored
            logger.info("training goes on after epoch %d", course.resumed)
    patience = max(PATIENCE, schedule.epochs // 2)
    for epoch in range(course.points[-1].epoch + 1, schedule.epochs + 1):
        if epoch - _best_trained(course) > patience:
            logger.info("no better validation loss for %d epochs: stopping", patience)
            break
        torch.manual_seed(schedule.seed * 10_000 + epoch)  # dropout, so that an epoch is the same when it is redone
        with training_mode(model, dropout=schedule.dropout, checkpointing=schedule.checkpointing):
            said = _epoch(model, loss, batches(epoch), optimiser, parameters, zeros or {}, schedule, epoch, progress)
        point = Point(epoch=epoch, training_loss=said, validation_loss=_mean_loss(model, loss, validation))
        logger.info("epoch %d: training loss %.4f, validation loss %.4f", epoch, said, point.validation_loss)
        if point.validation_loss < course.points[course.best].validation_loss:
            course.best, best = epoch, _copy(parameters)
        course.points.append(point)
        if keeper is not None and workspace is not None:
            keeper.save(_store(workspace / "training.safetensors", start, course, parameters, optimiser, best))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(best[name])
    model.zero_grad(set_to_none=True)
    model.eval()
    return course


def rate_at(step: int, steps: int) -> float:
    """Share of the highest rate at ``step`` of ``steps``, both counted from 0: up in a straight line, then down."""
    rising = max(1, round(steps * WARM_UP))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


def _best_trained(course: Course) -> int:
    """The best epoch of those that trained; 0 before any has."""
    trained = course.points[1:]
    return min(trained, key=lambda point: point.validation_loss).epoch if trained else 0


def _epoch(
    model: PreTrainedModel,
    loss: Loss,
    batches: Sequence[Batch],
    optimiser: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    zeros: Mapping[str, Tensor],
    schedule: Schedule,
    epoch: int,
    progress: Callable[[float], None] | None,
) -> float:
    """One pass over the batches; the mean loss."""
    total, steps = 0.0, len(batches)
    for number, batch in enumerate(batches):
        step = (epoch - 1) * steps + number
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate * rate_at(step, steps * schedule.epochs)
        optimiser.zero_grad(set_to_none=True)
        with _precision(model):
            value = loss(model, batch)
        said = float(value.detach())
        if not math.isfinite(said):
            raise CorruptWeights(f"the training loss is {said} in epoch {epoch}", hint="try a lower --recover-rate")
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimiser.step()
        with torch.no_grad():
            for name, mask in zeros.items():
                parameters[name].masked_fill_(mask, 0)
        total += said
        if progress is not None:
            progress(((epoch - 1) + (number + 1) / steps) / schedule.epochs)
    return total / steps


@torch.no_grad()
def _mean_loss(model: PreTrainedModel, loss: Loss, batches: Sequence[Batch]) -> float:
    model.eval()
    sizes = [len(next(iter(batch.values()))) for batch in batches]
    return sum(float(loss(model, batch)) * size for batch, size in zip(batches, sizes, strict=True)) / sum(sizes)


def _precision(model: PreTrainedModel) -> Any:
    if model.device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def _copy(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def _fingerprint(parameters: Mapping[str, Tensor]) -> str:
    """Of the model before training: only a state that began with the same one may be gone on with."""
    digest = hashlib.sha256()
    for name, parameter in parameters.items():
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _store(
    file: Path,
    start: str,
    course: Course,
    parameters: Mapping[str, torch.nn.Parameter],
    optimiser: torch.optim.Optimizer,
    best: Mapping[str, Tensor],
) -> Path:
    tensors = {f"now.{name}": parameter.detach().contiguous() for name, parameter in parameters.items()}
    tensors |= {f"best.{name}": tensor.contiguous() for name, tensor in best.items()}
    for name, parameter in parameters.items():
        for part, tensor in optimiser.state[parameter].items():
            tensors[f"adam.{part}.{name}"] = tensor.detach().contiguous()
    save_file(tensors, file, metadata={"course": course.model_dump_json(), "start": start})
    return file


def _restore(
    file: Path, start: str, parameters: Mapping[str, torch.nn.Parameter], optimiser: torch.optim.Optimizer
) -> tuple[Course, dict[str, Tensor]] | None:
    """None where the state is of a training that began with another model."""
    with safe_open(file, "pt") as stored:
        if stored.metadata()["start"] != start:
            logger.warning("the kept training state is of another model: starting over")
            return None
        course = Course.model_validate_json(stored.metadata()["course"])
        best: dict[str, Tensor] = {}
        with torch.no_grad():
            for name in stored.keys():  # noqa: SIM118 - not a mapping
                kind, _, rest = name.partition(".")
                tensor = stored.get_tensor(name)
                match kind:
                    case "now":
                        parameters[rest].copy_(tensor)
                    case "best":
                        best[rest] = tensor.to(parameters[rest].device)
                    case _:
                        part, _, parameter = rest.partition(".")
                        at = parameters[parameter]
                        optimiser.state[at][part] = tensor if part == "step" else tensor.to(at.device)
    return course.model_copy(update={"resumed": course.points[-1].epoch}), best


def zeros_of(model: PreTrainedModel, modules: Sequence[str]) -> dict[str, Tensor]:
    """Masks of what is zero now in the weights of ``modules``, for `train` to hold down."""
    return {f"{path}.weight": model.get_parameter(f"{path}.weight").detach() == 0 for path in modules}
