"""Rows: what enters and leaves the output matrices of a layer while a refit runs it, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunectl.pruning.blocks import Block, linear
from prunectl.pruning.masks import Masks
from prunectl.pruning.observation import real_tokens
from prunectl.pruning.packing import Batch, examples_of
from prunectl.pruning.replay import Stopped

HELD_BACK = 8
"""One of so many examples decides whether a solution is kept and takes no part in finding it."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One output matrix: where it is, where its residual enters, which of its input columns stay."""

    output: str
    entrance: str
    """A projection whose input is the residual where norms stand after the sum."""
    before: tuple[str, ...]
    """Matrices whose output this one's input comes from."""
    kept: Tensor
    """Columns, ``[kept]``."""
    whole: bool


class Watch:
    """What passes the output matrices of a layer during one run, rows of padding dropped; a list entry a call."""

    def __init__(
        self,
        model: PreTrainedModel,
        stages: list[Stage],
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

    def __enter__(self) -> Watch:
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

    def sums(self, stage: Stage, prenorm: bool) -> list[Tensor]:
        """t of each call: residual plus output."""
        return [self._rows(self._residual(stage, prenorm, call) + y)[0] for call, y in enumerate(self._y[stage.output])]

    def inputs(self, stage: Stage, prenorm: bool) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(x of the kept columns, r, which rows are held back) of each call."""
        found = []
        for call, x in enumerate(self._x[stage.output]):
            residual, held = self._rows(self._residual(stage, prenorm, call))
            found.append((self._rows(x.index_select(-1, stage.kept.to(x.device)))[0], residual, held))
        return found

    def _residual(self, stage: Stage, prenorm: bool, call: int) -> Tensor:
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
    return torch.arange(examples_of(batch)) % HELD_BACK == 0


def stages_of(blocks: list[Block], masks: Masks) -> list[list[Stage]]:
    """The output matrices of each layer in the order in which it runs them: attention(s), then feed-forward."""
    layers: dict[tuple[str, int], tuple[list[Stage], list[Stage]]] = {}
    for row, block in enumerate(blocks):
        attentions, forwards = layers.setdefault((block.stack, block.index), ([], []))
        kept = _kept(masks.heads, row, block.heads_total).repeat_interleave(block.head_dim)
        attentions.append(_stage(block.output, (block.query, block.key, block.value), kept))
        if block.ffn_second is not None:
            forwards.append(_stage(block.ffn_second, block.ffn_first, _kept(masks.ffn, row, block.ffn_total)))
    return [attentions + forwards for attentions, forwards in layers.values()]


def reusable(stages: list[Stage]) -> list[str]:
    """The matrices of a layer that give the same in every run after the one that first gets to them: its stages are
    solved for in their order, and what feeds a stage is left alone.
    """
    inner = [path for stage in stages for path in stage.before]
    return list(dict.fromkeys([*inner, *(stage.output for stage in stages[:-1])]))


def _stage(output: str, before: tuple[str, ...], kept: Tensor) -> Stage:
    return Stage(output, before[0], before, kept.nonzero().squeeze(1), bool(kept.all()))


def _kept(mask: Tensor | None, row: int, units: int) -> Tensor:
    return torch.ones(units, dtype=torch.bool) if mask is None else mask[row, :units].bool()


def _append_input(into: list[Tensor]) -> Any:
    return lambda _module, inputs: into.append(inputs[0])


def _append_output(into: list[Tensor]) -> Any:
    return lambda _module, _inputs, output: into.append(output)


def _stop(_module: nn.Module, _inputs: Any) -> None:
    raise Stopped
