"""Refit: output matrices of a masked model, solved for so that its layers give what the unpruned model's gave.

Nothing is trained. One layer after the other, the attention's output matrix and then the second feed-forward matrix,
with the inputs that the masked and already refitted model has there::

    min over W, b of  sum over tokens of v ||x W^T + b - (t - r)||^2  +  ridge * mean(diag(X^T V X)) * ||W - W_old||^2

x ``[kept columns]`` enters the matrix, t ``[hidden]`` is the unpruned model's sum of residual and output, r the masked
model's residual, v the token's weight: how much the unpruned model's loss listens to it (`token_weights`). The bias is held to
the old one by ridge times the sum of v. It is the
layer-wise reconstruction of He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (equation 1,
its least-squares step), with the masked model's own inputs and weighted rows; where Kwon et al. 2022 (section 4.3) tune
one scale a unit, the whole matrix is solved for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.errors import CorruptWeights
from prunectl.pruning import least_squares, surgery
from prunectl.pruning.blocks import find_blocks, linear
from prunectl.pruning.least_squares import Moments, solve
from prunectl.pruning.masks import Masks
from prunectl.pruning.observation import evaluating
from prunectl.pruning.packing import Batch, rows_of
from prunectl.pruning.refit_rows import Stage, Watch, held_back, reusable, stages_of
from prunectl.pruning.replay import Replay
from prunectl.pruning.scores import Loss, Progress
from prunectl.pruning.token_weights import ShareWeights, token_weights

RIDGES = (0.01, 0.1, 1.0)
"""Candidates for the ridge, in units of the mean diagonal of X^T X; held-back rows choose."""
_ROWS = 2_048
"""Rows whose products are summed at once."""
SHARED_ROUNDS = 3
"""How often layers that share their weights are solved for: each changes what later runs of the same layer are given."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One output matrix. Errors are ``||X W^T + b + r - t||^2 / ||t - r||^2`` over the held-back rows."""

    module: str
    error_before: float
    error_after: float
    """Equal to ``error_before`` where the solution was no better and the matrix stayed as it was."""
    ridge: float | None
    """What the held-back rows chose; None: the matrix stayed."""


@dataclass(frozen=True, slots=True)
class Refit:
    """What a refit did. Losses are means over held-back examples, of the masked model."""

    fits: list[Fit]
    loss_before: float
    loss_after: float
    undone: bool = False
    """The loss had risen, so all matrices are as they were."""

    @property
    def matrices(self) -> int:
        """How many matrices have new weights."""
        return 0 if self.undone else sum(fit.ridge is not None for fit in self.fits)

    def summary(self) -> dict[str, Any]:
        """For a job's conditions."""
        return {
            "matrices": self.matrices,
            "matrices_total": len(self.fits),
            "held_back_loss": {"before": self.loss_before, "after": self.loss_after},
        }


@torch.no_grad()
def refit(
    model: PreTrainedModel,
    masks: Masks,
    batches: Sequence[Batch],
    loss: Loss,
    *,
    progress: Progress | None = None,
    share: ShareWeights | None = None,
) -> Refit:
    """Refit the output matrices of ``model`` under ``masks``, in place; `prunectl.pruning.surgery.apply` comes after.

    Memory: the hidden states of all batches twice, those of one layer's targets, what one layer's matrices give for
    all batches, and matrices of ``[inputs, inputs]``
    for one output matrix at a time, summed in double precision. A matrix keeps its weights where held-back examples
    are reconstructed no better by new ones, and all do where the loss of the held-back examples would rise.
    ``share`` is asked for the token weights, which depend on the unpruned model and the batches alone; None: they are
    computed. Raises ValueError without batches, CorruptWeights where activations aren't finite, UnsupportedArchitecture.
    """
    if not batches:
        raise ValueError("a refit needs at least one batch")
    blocks = find_blocks(model)
    stages = stages_of(blocks, masks)
    originals = {
        stage.output: [tensor.detach().clone() for tensor in linear(model, stage.output).parameters()]
        for layer in stages
        for stage in layer
    }
    with evaluating(model):
        with surgery.masked(model, masks):
            before = _held_back_loss(model, batches, loss)
        compute = partial(token_weights, model, batches, loss, list(originals))
        weights = share(compute) if share is not None else compute()
        work = _Work(model, masks, batches, Replay(model, batches, loss), originals, weights)
        fits = work.all(stages, progress)
        with surgery.masked(model, masks):
            after = _held_back_loss(model, batches, loss)
    undone = not after <= before
    if undone:
        _restore(model, originals)
    return Refit(fits, before, before if undone else after, undone)


@dataclass
class _Work:
    model: PreTrainedModel
    masks: Masks
    batches: Sequence[Batch]
    replay: Replay
    originals: Mapping[str, list[Tensor]]
    weights: Mapping[str, list[list[Tensor]]]
    """Of the rows, by output matrix, batch and call."""
    drifted: bool = False
    """The masked model computes something else than the unpruned one by now."""
    _prenorm: dict[int, bool] = field(default_factory=dict)

    def all(self, stages: list[list[Stage]], progress: Progress | None) -> list[Fit]:
        fits: list[Fit] = []
        for done, layer in enumerate(stages):
            fits += self._shared(layer) if self.replay.shared else self._layer(layer)
            if progress is not None:
                progress((done + 1) / len(stages))
        return fits

    def _layer(self, stages: list[Stage]) -> list[Fit]:
        number = self.replay.number(stages[0].output)
        targets: list[dict[str, Tensor]] = []
        for index, batch in enumerate(self.batches):
            with Watch(self.model, stages, batch, self.replay.layers[number]) as watch:
                self.replay.advance("teacher", index, number)
            prenorm = self._prenorm.setdefault(self.replay.stack_of(number), watch.prenorm())
            targets.append({stage.output: watch.sums(stage, prenorm)[0] for stage in stages})
        fits = []
        for stage in stages:
            if stage.whole and not self.drifted:
                continue
            self.drifted = True
            fits.append(self._fit(stage, self._replayed(stages, stage, number, targets)))
            for found in targets:
                found.pop(stage.output)
        if not self.drifted:
            for index in range(len(self.batches)):
                self.replay.follow(index, number)
            return fits
        with surgery.masked(self.model, self.masks):
            for index in range(len(self.batches)):
                self.replay.advance("student", index, number, reusable(stages))
        return fits

    def _replayed(
        self, stages: list[Stage], stage: Stage, number: int, targets: list[dict[str, Tensor]]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(x, t - r, which rows are held back) of each batch."""
        prenorm = self._prenorm[self.replay.stack_of(number)]
        with surgery.masked(self.model, self.masks):
            for index, batch in enumerate(self.batches):
                with Watch(self.model, stages, batch, self.replay.layers[number], until=stage.output) as watch:
                    self.replay.peek("student", index, number, reusable(stages))
                x, residual, held = watch.inputs(stage, prenorm)[0]
                yield x, targets[index][stage.output] - residual, held

    def _shared(self, stages: list[Stage]) -> list[Fit]:
        """Layers that share these weights: rows of every run, one matrix after the other over the whole model."""
        fits: dict[str, Fit] = {}
        for _ in range(SHARED_ROUNDS):
            for stage in stages:
                fit = self._fit(stage, self._rerun(stages, stage))
                first = fits.setdefault(stage.output, fit)
                fits[stage.output] = replace(
                    fit, error_before=first.error_before, ridge=first.ridge if fit.ridge is None else fit.ridge
                )
        return list(fits.values())

    def _rerun(self, stages: list[Stage], stage: Stage) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        refitted = {
            name: [tensor.clone() for tensor in linear(self.model, name).parameters()] for name in self.originals
        }
        for index, batch in enumerate(self.batches):
            _restore(self.model, self.originals)
            with Watch(self.model, stages, batch, None) as watch:
                self.replay.whole(index)
            targets = watch.sums(stage, False)
            _restore(self.model, refitted)
            with surgery.masked(self.model, self.masks), Watch(self.model, stages, batch, None) as watch:
                self.replay.whole(index)
            for target, (x, residual, held) in zip(targets, watch.inputs(stage, False), strict=True):
                yield x, target - residual, held

    def _weighted(
        self, stage: Stage, rows: Iterator[tuple[Tensor, Tensor, Tensor]], bias: bool
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        weights = (weight for calls in self.weights[stage.output] for weight in calls)
        for (x, y, held), weight in zip(rows, weights, strict=True):
            if bias:
                x = torch.cat([x, x.new_ones(len(x), 1)], 1)
            root = weight.sqrt().unsqueeze(1)
            yield x * root, y * root, held

    def _fit(self, stage: Stage, rows: Iterator[tuple[Tensor, Tensor, Tensor]]) -> Fit:
        matrix = linear(self.model, stage.output)
        old = least_squares.weights_of(matrix, stage.kept)
        found, apart = (Moments.of(old.size(0), old.size(1), old.device) for _ in range(2))
        for x, y, held in least_squares.gathered(self._weighted(stage, rows, matrix.bias is not None), _ROWS):
            found.add(x[~held], y[~held])
            apart.add(x[held], y[held])
        if not (torch.isfinite(found.gram).all() and torch.isfinite(found.cross).all()):
            raise CorruptWeights(
                f"what enters {stage.output} is not finite numbers", hint="check the model's weights for NaN"
            )
        before, after = apart.errors(old, solve(found, old, matrix, RIDGES))
        errors = dict(zip(RIDGES, after, strict=True))
        best = min(errors, key=errors.__getitem__)
        size = float(apart.square) or 1.0
        if not errors[best] < before or not found.gram.any():
            return Fit(stage.output, before / size, before / size, None)
        least_squares.write(matrix, stage.kept, next(solve(found + apart, old, matrix, [best])))
        return Fit(stage.output, before / size, errors[best] / size, best)


def _held_back_loss(model: PreTrainedModel, batches: Sequence[Batch], loss: Loss) -> float:
    total, examples = 0.0, 0
    for batch in batches:
        held = held_back(batch)
        total += float(loss(model, rows_of(batch, held))) * int(held.sum())
        examples += int(held.sum())
    return total / examples


def _restore(model: PreTrainedModel, weights: Mapping[str, list[Tensor]]) -> None:
    for name, tensors in weights.items():
        for parameter, tensor in zip(linear(model, name).parameters(), tensors, strict=True):
            parameter.copy_(tensor)
