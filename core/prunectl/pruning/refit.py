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
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from prunectl.errors import CorruptWeights
from prunectl.pruning import surgery
from prunectl.pruning.blocks import Block, Matrix, find_blocks, linear
from prunectl.pruning.masks import Masks
from prunectl.pruning.observation import evaluating, real_tokens
from prunectl.pruning.replay import Replay, Stopped
from prunectl.pruning.scores import Batch, Loss, Progress
from prunectl.pruning.token_weights import ShareWeights, token_weights

RIDGES = (0.01, 0.1, 1.0)
"""Candidates for the ridge, in units of the mean diagonal of X^T X; held-back rows choose."""
SHARED_ROUNDS = 3
"""How often layers that share their weights are solved for: each changes what later runs of the same layer are given."""
HELD_BACK = 8
"""One of so many examples decides whether a solution is kept and takes no part in finding it."""


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

    Memory: the hidden states of all batches twice, those of one layer's targets, and matrices of ``[inputs, inputs]``
    for one output matrix at a time, summed in double precision. A matrix keeps its weights where held-back examples
    are reconstructed no better by new ones, and all do where the loss of the held-back examples would rise.
    ``share`` is asked for the token weights, which depend on the unpruned model and the batches alone; None: they are
    computed. Raises ValueError without batches, CorruptWeights where activations aren't finite, UnsupportedArchitecture.
    """
    if not batches:
        raise ValueError("a refit needs at least one batch")
    blocks = find_blocks(model)
    stages = _stages(blocks, masks)
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


@dataclass(frozen=True, slots=True)
class _Stage:
    """One output matrix: where it is, where its residual enters, which of its input columns stay."""

    output: str
    entrance: str
    """A projection whose input is the residual where norms stand after the sum."""
    kept: Tensor
    """Columns, ``[kept]``."""
    whole: bool


@dataclass(slots=True)
class _Moments:
    """Sums over rows x ``[inputs (+ 1)]`` and y ``[hidden]``: x x^T, x y^T, y y; in double precision."""

    gram: Tensor
    cross: Tensor
    square: Tensor

    @classmethod
    def of(cls, inputs: int, outputs: int, device: torch.device) -> _Moments:
        kind: Any = {"dtype": torch.float64, "device": device}
        return cls(torch.zeros(inputs, inputs, **kind), torch.zeros(inputs, outputs, **kind), torch.zeros((), **kind))

    def add(self, x: Tensor, y: Tensor) -> None:
        self.gram += (x.T @ x).double()
        self.cross += (x.T @ y).double()
        self.square += y.double().square().sum()

    def error(self, weights: Tensor) -> float:
        """``sum ||y - x weights||^2`` for ``weights`` ``[inputs (+ 1), hidden]``."""
        return float(self.square - 2 * (weights * self.cross).sum() + (weights * (self.gram @ weights)).sum())

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(self.gram + other.gram, self.cross + other.cross, self.square + other.square)


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

    def all(self, stages: list[list[_Stage]], progress: Progress | None) -> list[Fit]:
        fits: list[Fit] = []
        for done, layer in enumerate(stages):
            fits += self._shared(layer) if self.replay.shared else self._layer(layer)
            if progress is not None:
                progress((done + 1) / len(stages))
        return fits

    def _layer(self, stages: list[_Stage]) -> list[Fit]:
        number = self.replay.number(stages[0].output)
        targets: list[dict[str, Tensor]] = []
        for index, batch in enumerate(self.batches):
            with _Watch(self.model, stages, batch, self.replay.layers[number]) as watch:
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
        for index in range(len(self.batches)):
            if self.drifted:
                with surgery.masked(self.model, self.masks):
                    self.replay.advance("student", index, number)
            else:
                self.replay.follow(index, number)
        return fits

    def _replayed(
        self, stages: list[_Stage], stage: _Stage, number: int, targets: list[dict[str, Tensor]]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(x, t - r, which rows are held back) of each batch."""
        prenorm = self._prenorm[self.replay.stack_of(number)]
        for index, batch in enumerate(self.batches):
            watch = _Watch(self.model, stages, batch, self.replay.layers[number], until=stage.output)
            with surgery.masked(self.model, self.masks), watch:
                self.replay.peek("student", index, number)
            x, residual, held = watch.inputs(stage, prenorm)[0]
            yield x, targets[index][stage.output] - residual, held

    def _shared(self, stages: list[_Stage]) -> list[Fit]:
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

    def _rerun(self, stages: list[_Stage], stage: _Stage) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        refitted = {
            name: [tensor.clone() for tensor in linear(self.model, name).parameters()] for name in self.originals
        }
        for index, batch in enumerate(self.batches):
            _restore(self.model, self.originals)
            with _Watch(self.model, stages, batch, None) as watch:
                self.replay.whole(index)
            targets = watch.sums(stage, False)
            _restore(self.model, refitted)
            with surgery.masked(self.model, self.masks), _Watch(self.model, stages, batch, None) as watch:
                self.replay.whole(index)
            for target, (x, residual, held) in zip(targets, watch.inputs(stage, False), strict=True):
                yield x, target - residual, held

    def _weighted(
        self, stage: _Stage, rows: Iterator[tuple[Tensor, Tensor, Tensor]], bias: bool
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        weights = (weight for calls in self.weights[stage.output] for weight in calls)
        for (x, y, held), weight in zip(rows, weights, strict=True):
            if bias:
                x = torch.cat([x, x.new_ones(len(x), 1)], 1)
            root = weight.sqrt().unsqueeze(1)
            yield x * root, y * root, held

    def _fit(self, stage: _Stage, rows: Iterator[tuple[Tensor, Tensor, Tensor]]) -> Fit:
        matrix = linear(self.model, stage.output)
        old = _weights(matrix, stage.kept)
        found, held_back = (_Moments.of(old.size(0), old.size(1), old.device) for _ in range(2))
        for x, y, held in self._weighted(stage, rows, matrix.bias is not None):
            found.add(x[~held], y[~held])
            held_back.add(x[held], y[held])
        if not (torch.isfinite(found.gram).all() and torch.isfinite(found.cross).all()):
            raise CorruptWeights(
                f"what enters {stage.output} is not finite numbers", hint="check the model's weights for NaN"
            )
        before = held_back.error(old)
        errors = {ridge: held_back.error(_solve(found, old, matrix, ridge)) for ridge in RIDGES}
        best = min(errors, key=errors.__getitem__)
        size = float(held_back.square) or 1.0
        if not errors[best] < before or not found.gram.any():
            return Fit(stage.output, before / size, before / size, None)
        _write(matrix, stage.kept, _solve(found + held_back, old, matrix, best))
        return Fit(stage.output, before / size, errors[best] / size, best)


class _Watch:
    """What passes the output matrices of a layer during one run, rows of padding dropped; a list entry a call."""

    def __init__(
        self,
        model: PreTrainedModel,
        stages: list[_Stage],
        batch: Batch,
        layer: nn.Module | None,
        until: str | None = None,
    ) -> None:
        self._model, self._stages, self._batch, self._layer, self._until = model, stages, batch, layer, until
        self._x: dict[str, list[Tensor]] = {stage.output: [] for stage in stages}
        self._y: dict[str, list[Tensor]] = {stage.output: [] for stage in stages}
        self._entered: dict[str, list[Tensor]] = {stage.entrance: [] for stage in stages}
        self._through: list[tuple[Tensor, Tensor]] = []
        self._into: list[Tensor] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> _Watch:
        hooks = self._hooks
        for stage in self._stages:
            matrix, entrance = linear(self._model, stage.output), linear(self._model, stage.entrance)
            hooks.append(entrance.register_forward_pre_hook(_append_input(self._entered[stage.entrance])))
            hooks.append(matrix.register_forward_pre_hook(_append_input(self._x[stage.output])))
            if stage.output == self._until:
                hooks.append(matrix.register_forward_pre_hook(_stop))
            hooks.append(matrix.register_forward_hook(_append_output(self._y[stage.output])))
        if self._layer is not None:
            hooks.append(self._layer.register_forward_pre_hook(self._enter_layer, with_kwargs=True))
            hooks.append(self._layer.register_forward_hook(self._leave_layer))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def prenorm(self) -> bool:
        """Whether the layer gives its input plus what its matrices gave: then norms stand before the matrices."""
        if not self._through:
            return False
        entered, left = self._through[0]
        total = entered + sum(self._y[stage.output][0].view_as(entered) for stage in self._stages)
        return bool((total - left).norm() <= 1e-3 * left.norm())

    def sums(self, stage: _Stage, prenorm: bool) -> list[Tensor]:
        """t of each call: residual plus output."""
        return [self._rows(self._residual(stage, prenorm, call) + y)[0] for call, y in enumerate(self._y[stage.output])]

    def inputs(self, stage: _Stage, prenorm: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(x of the kept columns, r, which rows are held back) of each call."""
        found = []
        for call, x in enumerate(self._x[stage.output]):
            residual, held = self._rows(self._residual(stage, prenorm, call))
            found.append((self._rows(x.index_select(-1, stage.kept.to(x.device)))[0], residual, held))
        return found

    def _residual(self, stage: _Stage, prenorm: bool, call: int) -> Tensor:
        if not prenorm:
            return self._entered[stage.entrance][call]
        before = self._stages[: [other.output for other in self._stages].index(stage.output)]
        total = self._into[call]
        for other in before:
            total = total + self._y[other.output][call]
        return total

    def _rows(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(``[tokens, width]``, which of them are held back)."""
        real = real_tokens(hidden, self._batch)
        held = held_back(self._batch).to(hidden.device)
        owner = held.repeat_interleave(real.numel() // len(held)).view(real.shape)
        return hidden[real].float(), owner[real]

    def _enter_layer(self, _module: nn.Module, arguments: Any, named: Any) -> None:
        self._into.append(arguments[0] if arguments else named["hidden_states"])

    def _leave_layer(self, _module: nn.Module, _arguments: Any, output: Any) -> None:
        self._through.append((self._into[-1], output[0] if isinstance(output, tuple) else output))


def held_back(batch: Batch) -> Tensor:
    """Which examples of a batch are held back, bool ``[examples]``: one in `HELD_BACK`, the first included."""
    examples = len(next(iter(batch.values())))
    return torch.arange(examples) % HELD_BACK == 0


def _held_back_loss(model: PreTrainedModel, batches: Sequence[Batch], loss: Loss) -> float:
    total, examples = 0.0, 0
    for batch in batches:
        held = held_back(batch)
        part = {name: value[held] if isinstance(value, Tensor) else value for name, value in batch.items()}
        total += float(loss(model, part)) * int(held.sum())
        examples += int(held.sum())
    return total / examples


def _stages(blocks: list[Block], masks: Masks) -> list[list[_Stage]]:
    """The output matrices of each layer in the order in which it runs them: attention(s), then feed-forward."""
    layers: dict[tuple[str, int], tuple[list[_Stage], list[_Stage]]] = {}
    for row, block in enumerate(blocks):
        attentions, forwards = layers.setdefault((block.stack, block.index), ([], []))
        kept = _kept(masks.heads, row, block.heads_total).repeat_interleave(block.head_dim)
        attentions.append(_stage(block.output, block.query, kept))
        if block.ffn_second is not None:
            forwards.append(_stage(block.ffn_second, block.ffn_first[0], _kept(masks.ffn, row, block.ffn_total)))
    return [attentions + forwards for attentions, forwards in layers.values()]


def _stage(output: str, entrance: str, kept: Tensor) -> _Stage:
    return _Stage(output, entrance, kept.nonzero().squeeze(1), bool(kept.all()))


def _kept(mask: Tensor | None, row: int, units: int) -> Tensor:
    return torch.ones(units, dtype=torch.bool) if mask is None else mask[row, :units].bool()


def _weights(matrix: Matrix, kept: Tensor) -> Tensor:
    """Kept columns of the matrix, transposed, with the bias as a last row where there is one: double ``[inputs (+ 1),
    hidden]``.
    """
    weight = matrix.weight if isinstance(matrix, Conv1D) else matrix.weight.T
    rows = weight.detach()[kept.to(weight.device)]
    if matrix.bias is not None:
        rows = torch.cat([rows, matrix.bias.detach().unsqueeze(0)])
    return rows.double()


def _write(matrix: Matrix, kept: Tensor, weights: Tensor) -> None:
    weight = matrix.weight if isinstance(matrix, Conv1D) else matrix.weight.T
    weight[kept.to(weight.device)] = weights[: len(kept)].to(weight.dtype)
    if matrix.bias is not None:
        matrix.bias.copy_(weights[-1])


def _solve(moments: _Moments, old: Tensor, matrix: Matrix, ridge: float) -> Tensor:
    sizes = moments.gram.diagonal()
    inputs = sizes[:-1] if matrix.bias is not None else sizes
    penalty = torch.zeros_like(sizes)
    penalty[: len(inputs)] = ridge * (float(inputs.mean()) or 1.0) if len(inputs) else 0.0
    # The bias is held back in its own unit: free, it grows against columns that are nearly constant, until float32
    # can't tell their sum.
    penalty[len(inputs) :] = ridge * sizes[len(inputs) :]
    factor = torch.linalg.cholesky(moments.gram + torch.diag(penalty))
    return old + torch.cholesky_solve(moments.cross - moments.gram @ old, factor)


def _restore(model: PreTrainedModel, weights: Mapping[str, list[Tensor]]) -> None:
    for name, tensors in weights.items():
        for parameter, tensor in zip(linear(model, name).parameters(), tensors, strict=True):
            parameter.copy_(tensor)


def _append_input(into: list[Tensor]) -> Any:
    return lambda _module, inputs: into.append(inputs[0])


def _append_output(into: list[Tensor]) -> Any:
    return lambda _module, _inputs, output: into.append(output)


def _stop(_module: nn.Module, _inputs: Any) -> None:
    raise Stopped
