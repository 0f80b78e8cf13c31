"""Latency tables: how long a layer takes with fewer heads and with fewer neurons, measured on the device at hand.

One layer of each stack is timed at some numbers of heads and of neurons: by torch with the arguments that a forward pass
gives it, or as a model of one layer in the runtime that will serve. The uncut layer is timed in turns with each, so that
a busy machine slows both alike.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from prunectl.evaluation.inputs import made_up
from prunectl.evaluation.latency import device_name
from prunectl.pruning import depth, layers, surgery
from prunectl.pruning.architectures import shape_of
from prunectl.pruning.blocks import Block, base_of, described, find_blocks
from prunectl.pruning.levels import LevelCosts
from prunectl.pruning.replay import Stopped, layer_of

FFN_LEVELS = 16
SERVED_LEVELS = 6
"""Of heads and of neurons, where each level costs an export."""
ROUNDS = 7
"""Timed calls of each level; the median counts."""
SMALL_VOCABULARY = 64
"""Entries of the models of one layer that another runtime times."""

Call = Callable[[], Any]
Serving = Callable[[PreTrainedModel], Callable[..., Any]]
"""A model in the runtime that will serve it: to be called with its inputs by name."""


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """``costs`` has the axes of `prunectl.pruning.budgets.least_units`; ``whole_seconds`` is the uncut model's."""

    costs: LevelCosts
    whole_seconds: float

    def to_json(self) -> bytes:
        costs = self.costs
        document = {
            "fixed": costs.fixed, "levels": costs.levels, "seconds": costs.seconds, "whole_seconds": self.whole_seconds
        }  # fmt: skip
        return json.dumps(document).encode()

    @classmethod
    def from_json(cls, data: bytes) -> LatencyTable:
        """Raises KeyError or ValueError where ``data`` isn't what `to_json` wrote."""
        found = json.loads(data)
        return cls(LevelCosts(found["fixed"], found["levels"], found["seconds"]), found["whole_seconds"])


def conditions(
    model: PreTrainedModel, *, batch: int, seq: int, threads: int | None, multiple_of: int, runtime: str | None = None
) -> dict[str, Any]:
    """What a table depends on: equal conditions make one table serve. ``runtime`` is torch unless it is given."""
    ignored = ("_name_or_path", "id2label", "label2id", "transformers_version")
    return {
        "model": {key: value for key, value in described(model).items() if key not in ignored},
        "batch": batch,
        "seq": seq,
        "threads": threads or torch.get_num_threads(),
        "multiple_of": multiple_of,
        "device": device_name(model.device),
        "dtype": str(model.dtype),
        "runtime": runtime or f"torch {torch.__version__}",
    }


@torch.inference_mode()
def measure(
    model: PreTrainedModel,
    *,
    batch: int = 1,
    seq: int = 128,
    threads: int | None = None,
    multiple_of: int = 1,
    serving: Serving | None = None,
) -> LatencyTable:
    """The table of ``model`` for random inputs ``[batch, seq]`` without padding, by torch or by what ``serving`` gives.

    Blocks of a stack are alike, so its first layer stands for all. ``model`` is left as it is; layers are copied.
    Raises UnsupportedArchitecture for an unknown family, and what ``serving`` raises.
    """
    usual = torch.get_num_threads()
    torch.set_num_threads(threads or usual)
    try:
        timed = ByTorch(model, batch, seq) if serving is None else Served(model, batch, seq, serving)
        return _measure(model, timed, multiple_of)
    finally:
        torch.set_num_threads(usual)


class Timed(Protocol):
    """What is timed of a model; every call must leave the model as it is."""

    every_head: bool
    """Whether each number of heads is a level."""
    ffn_levels: int

    def whole(self) -> Call:
        """The uncut model."""
        ...

    def layer(self, row: int, unit: str, number: int | None) -> Call:
        """The layer of block ``row`` with so many heads or neurons; None: uncut."""
        ...


class ByTorch:
    """Layers in torch, with the arguments that a forward pass gives them."""

    every_head = True
    ffn_levels = FFN_LEVELS

    def __init__(self, model: PreTrainedModel, batch: int, seq: int) -> None:
        self._model = model
        self._inputs = made_up(model, batch, seq)

    def whole(self) -> Call:
        return partial(self._model, **self._inputs)

    def layer(self, row: int, unit: str, number: int | None) -> Call:
        block = find_blocks(self._model)[row]
        path = layer_of(self._model, block.output)
        model = self._model if number is None else _cut(self._model, path, block, unit, number)
        arguments, named = _arguments(self._model, self._model.get_submodule(path), self._inputs)
        return partial(model.get_submodule(path), *arguments, **named)


class Served:
    """Models of one layer and a small vocabulary in another runtime: what they take beside the layer is the same cut and
    uncut, and so is no part of the difference.
    """

    every_head = False
    ffn_levels = SERVED_LEVELS

    def __init__(self, model: PreTrainedModel, batch: int, seq: int, serving: Serving) -> None:
        self._model, self._batch, self._seq, self._serving = model, batch, seq, serving

    def whole(self) -> Call:
        return partial(self._serving(self._model), **made_up(self._model, self._batch, self._seq))

    def layer(self, row: int, unit: str, number: int | None) -> Call:
        model, block = _alone(self._model, find_blocks(self._model)[row])
        if number is not None:
            model = _cut(model, layer_of(model, block.output), block, unit, number)
        inputs = made_up(model, self._batch, self._seq, vocabulary=SMALL_VOCABULARY)
        return partial(self._serving(model), **inputs)


def _measure(model: PreTrainedModel, timed: Timed, multiple_of: int) -> LatencyTable:
    blocks = find_blocks(model)
    runs = [block.runs for block in shape_of(described(model)).blocks]
    call = timed.whole()
    call()
    whole = statistics.median(_seconds(model, call) for _ in range(ROUNDS))
    del call
    measured: dict[tuple[str, str, str], tuple[list[int], list[float]]] = {}
    alone: dict[str, float] = {}
    for row, block in enumerate(blocks):
        for unit in ("heads", "ffn") if block.ffn_total else ("heads",):
            key = (block.stack, block.attention, unit)
            if key in measured:
                continue
            levels, seconds, uncut = _levels(model, timed, row, unit, multiple_of)
            alone.setdefault(block.stack, uncut)
            measured[key] = (levels, [value - uncut for value in seconds])
    firsts = [row for row, block in enumerate(blocks) if block.ffn_total]
    # An axis counts what it takes away from the uncut model; noise must not let layers take away more than there is.
    scale = min(1.0, whole / sum(alone[blocks[row].stack] * runs[row] for row in firsts))
    found = [(row, block, "heads") for row, block in enumerate(blocks)]
    found += [(row, block, "ffn") for row, block in enumerate(blocks) if block.ffn_total]
    axes = [(*measured[block.stack, block.attention, unit], runs[row]) for row, block, unit in found]
    costs = LevelCosts(
        whole,
        [levels for levels, _, _ in axes],
        [[value * times * scale for value in seconds] for _, seconds, times in axes],
    )
    return LatencyTable(costs, whole)


def _levels(
    model: PreTrainedModel, timed: Timed, row: int, unit: str, multiple_of: int
) -> tuple[list[int], list[float], float]:
    """(numbers of groups that stay, seconds of the layer with them, seconds of the uncut layer)."""
    block = find_blocks(model)[row]
    if unit == "heads":
        total, size = block.heads_total // block.group, block.group
        steps = total if timed.every_head else min(total, timed.ffn_levels)
    else:
        total, size, steps = block.ffn_total // multiple_of, multiple_of, timed.ffn_levels
    levels = sorted({total * level // steps for level in range(steps + 1)})
    uncut = timed.layer(row, unit, None)
    ratios, references = [1.0], []
    for level in reversed(levels[:-1]):
        layer = timed.layer(row, unit, level * size)
        cut, whole = [], []
        for _ in range(ROUNDS):
            whole.append(_seconds(model, uncut))
            cut.append(_seconds(model, layer))
        ratios.append(statistics.median(cut) / statistics.median(whole))
        references += whole
    reference = statistics.median(references)
    return levels, [ratio * reference for ratio in reversed(ratios)], reference


def _alone(model: PreTrainedModel, block: Block) -> tuple[PreTrainedModel, Block]:
    """(the model below the task head with this block's layer alone and few entries, the block there)."""
    base = base_of(model)
    taken: Any = base.get_input_embeddings()
    small = nn.Embedding(SMALL_VOCABULARY, taken.weight.size(1), device=taken.weight.device, dtype=taken.weight.dtype)
    alone: PreTrainedModel = copy.deepcopy(
        base, {id(tensor): tensor for tensor in base.parameters()} | {id(taken): small}
    )
    numbers = range(sum(stack.layers for stack in depth.stacks_of(described(alone))))
    layers.remove(alone, [number for number in numbers if number != block.index])
    return alone, next(found for found in find_blocks(alone) if found.attention == block.attention)


def _cut(model: PreTrainedModel, path: str, block: Block, unit: str, number: int) -> PreTrainedModel:
    """The model whose layer at ``path`` has so many heads or neurons; all other weights are shared."""
    own = {id(tensor) for tensor in model.get_submodule(path).parameters()}
    smaller = copy.deepcopy(model, {id(tensor): tensor for tensor in model.parameters() if id(tensor) not in own})
    if unit == "heads":
        surgery.cut_heads(smaller, block, torch.arange(block.heads_total) < number)
    else:
        surgery.cut_neurons(smaller, block, torch.arange(block.ffn_total) < number)
    return smaller


def _arguments(model: PreTrainedModel, layer: nn.Module, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
    """What a forward pass calls the layer with."""
    seen: list[tuple[Any, Any]] = []

    def see(_module: nn.Module, arguments: Any, named: Any) -> None:
        seen.append((tuple(map(_uncached, arguments)), {name: _uncached(value) for name, value in named.items()}))
        raise Stopped

    hook = layer.register_forward_pre_hook(see, with_kwargs=True)
    try:
        model(**inputs)
    except Stopped:
        pass
    finally:
        hook.remove()
    return seen[0]


def _uncached(argument: Any) -> Any:
    """A decoder's cache would grow with each timed call."""
    return None if isinstance(argument, Cache) else argument


def _seconds(model: PreTrainedModel, call: Callable[[], Any]) -> float:
    cuda = model.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(model.device)
    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - start
