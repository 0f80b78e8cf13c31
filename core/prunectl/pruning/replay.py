"""Replay: a model run layer by layer over the same batches, without computing again what came before.

Layers that are done hand on what they gave, and the run ends behind the one that is asked for. The model's own forward
leads, so attention masks, position biases and what a decoder reads of the encoder are as in any other run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from prunectl.pruning import depth
from prunectl.pruning.blocks import base_path, described
from prunectl.pruning.packing import Batch
from prunectl.pruning.scores import Loss

Side = Literal["teacher", "student"]
"""Whose states: the unpruned model's, or the masked one's."""


class Stopped(Exception):
    """Ends a run whose rest isn't needed; raised by hooks, and caught by whoever started the run."""


def layer_of(model: PreTrainedModel, path: str) -> str:
    """The path of the layer that has the module at ``path``."""
    for stack in depth.stacks_of(described(model)):
        start = f"{base_path(model)}{stack.path}."
        if path.startswith(start):
            return start + path.removeprefix(start).partition(".")[0]
    raise ValueError(f"{path} is in no layer")


class Replay:
    """``layers`` are the model's, an encoder's first; a state a side, a batch and a stack is held: one layer's output."""

    def __init__(self, model: PreTrainedModel, batches: Sequence[Batch], loss: Loss) -> None:
        self._model, self._batches, self._loss = model, batches, loss
        self.layers: list[nn.Module] = []
        self._paths: list[str] = []
        self._stacks: list[int] = []
        self.shared = False
        """Layers share their weights, so a run can't start at one of them."""
        for place, stack in enumerate(depth.stacks_of(described(model))):
            self.shared = self.shared or stack.shared
            path = base_path(model) + stack.path
            for index, layer in enumerate(model.get_submodule(path).children()):
                self.layers.append(layer)
                self._paths.append(f"{path}.{index}.")
                self._stacks.append(place)
        self._states: dict[tuple[Side, int, int], Any] = {}
        self._outputs: dict[tuple[int, str], list[torch.Tensor]] = {}

    def number(self, path: str) -> int:
        """Of the layer that has the module at ``path``."""
        return next(index for index, start in enumerate(self._paths) if path.startswith(start))

    def stack_of(self, number: int) -> int:
        return self._stacks[number]

    def advance(self, side: Side, batch: int, number: int, reuse: Sequence[str] = ()) -> None:
        """Run layer ``number`` and hold what it gives. ``reuse`` is that of `peek`; what it held is let go."""

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._states[side, batch, self._stacks[number]] = output
            raise Stopped

        hook = self.layers[number].register_forward_hook(keep)
        try:
            self.peek(side, batch, number, reuse)
        finally:
            hook.remove()
            for path in reuse:
                self._outputs.pop((batch, path), None)

    def follow(self, batch: int, number: int) -> None:
        """Take the teacher's state for the student's: no unit was removed so far."""
        stack = self._stacks[number]
        self._states["student", batch, stack] = self._states["teacher", batch, stack]

    def peek(self, side: Side, batch: int, number: int, reuse: Sequence[str] = ()) -> None:
        """Run as far as a hook lets it, layers before ``number`` handing on what is held.

        ``reuse`` are modules of layer ``number`` whose weights, and those before them, stay as they are from the first
        run that gets to them until the layer is advanced: what they gave then is held, and not computed again.
        """
        with self._handing_on(side, batch, number), self._reusing(batch, reuse):
            self.whole(batch)

    @torch.no_grad()
    def whole(self, batch: int) -> None:
        """Run the model, until a hook stops it or the loss is there."""
        try:
            self._loss(self._model, self._batches[batch])
        except Stopped:
            pass

    @contextmanager
    def _handing_on(self, side: Side, batch: int, number: int) -> Iterator[None]:
        before = self.layers[:number]
        for index, layer in enumerate(before):
            layer.forward = self._stand_in(side, batch, self._stacks[index])
        try:
            yield
        finally:
            for layer in before:
                del layer.forward

    @contextmanager
    def _reusing(self, batch: int, paths: Sequence[str]) -> Iterator[None]:
        modules = {path: self._model.get_submodule(path) for path in paths}
        for path, module in modules.items():
            held = self._outputs.get((batch, path))
            if held is None:
                held = self._outputs[batch, path] = []
                module.forward = _holding(module.forward, held)
            else:
                module.forward = _giving(held)
        try:
            yield
        finally:
            for path, module in modules.items():
                del module.forward
                if not self._outputs[batch, path]:  # the run ended before it
                    del self._outputs[batch, path]

    def _stand_in(self, side: Side, batch: int, stack: int) -> Callable[..., Any]:
        return lambda *_arguments, **_named: self._states[side, batch, stack]


def _holding(forward: Callable[..., torch.Tensor], into: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    def call(*arguments: Any, **named: Any) -> torch.Tensor:
        into.append(forward(*arguments, **named))
        return into[-1]

    return call


def _giving(held: Sequence[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """What was held, call by call."""
    left = iter(held)
    return lambda *_arguments, **_named: next(left)
