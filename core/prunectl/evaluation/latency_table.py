"""Latency tables: how long a layer takes with fewer heads and with fewer neurons, measured on the device at hand.

One layer of each stack is timed with the arguments that a forward pass gives it, at each number of heads and at some
numbers of neurons; the uncut layer is timed in turns with each, so that a busy machine slows both alike.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from prunectl.evaluation.inputs import made_up
from prunectl.evaluation.latency import device_name
from prunectl.pruning import surgery
from prunectl.pruning.architectures import shape_of
from prunectl.pruning.blocks import Block, described, find_blocks
from prunectl.pruning.levels import LevelCosts
from prunectl.pruning.replay import Stopped, layer_of

FFN_LEVELS = 16
ROUNDS = 7
"""Timed calls of each level; the median counts."""


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
    model: PreTrainedModel, *, batch: int, seq: int, threads: int | None, multiple_of: int
) -> dict[str, Any]:
    """What a table depends on: equal conditions make one table serve."""
    ignored = ("_name_or_path", "id2label", "label2id", "transformers_version")
    return {
        "model": {key: value for key, value in described(model).items() if key not in ignored},
        "batch": batch,
        "seq": seq,
        "threads": threads or torch.get_num_threads(),
        "multiple_of": multiple_of,
        "device": device_name(model.device),
        "dtype": str(model.dtype),
        "runtime": f"torch {torch.__version__}",
    }


@torch.inference_mode()
def measure(
    model: PreTrainedModel, *, batch: int = 1, seq: int = 128, threads: int | None = None, multiple_of: int = 1
) -> LatencyTable:
    """The table of ``model`` for random inputs ``[batch, seq]`` without padding, through torch.

    Blocks of a stack are alike, so its first layer stands for all. ``model`` is left as it is; layers are copied.
    Raises UnsupportedArchitecture for an unknown family.
    """
    usual = torch.get_num_threads()
    torch.set_num_threads(threads or usual)
    try:
        return _measure(model, batch, seq, multiple_of)
    finally:
        torch.set_num_threads(usual)


def _measure(model: PreTrainedModel, batch: int, seq: int, multiple_of: int) -> LatencyTable:
    blocks = find_blocks(model)
    runs = [block.runs for block in shape_of(described(model)).blocks]
    inputs = made_up(model, batch, seq)
    whole = statistics.median(_seconds(model, partial(model, **inputs)) for _ in range(ROUNDS))
    measured: dict[tuple[str, str, str], tuple[list[int], list[float]]] = {}
    layers: dict[str, float] = {}
    for row, block in enumerate(blocks):
        for unit in ("heads", "ffn") if block.ffn_total else ("heads",):
            key = (block.stack, block.attention, unit)
            if key in measured:
                continue
            levels, seconds, uncut = _levels(model, inputs, row, unit, multiple_of)
            layers.setdefault(block.stack, uncut)
            measured[key] = (levels, [value - uncut for value in seconds])
    firsts = [row for row, block in enumerate(blocks) if block.ffn_total]
    # An axis counts what it takes away from the uncut model; noise must not let layers take away more than there is.
    scale = min(1.0, whole / sum(layers[blocks[row].stack] * runs[row] for row in firsts))
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
    model: PreTrainedModel, inputs: Mapping[str, Any], row: int, unit: str, multiple_of: int
) -> tuple[list[int], list[float], float]:
    """(numbers of groups that stay, seconds of the layer with them, seconds of the uncut layer)."""
    block = find_blocks(model)[row]
    path = layer_of(model, block.output)
    arguments, named = _arguments(model, model.get_submodule(path), inputs)
    uncut = model.get_submodule(path)
    if unit == "heads":
        total, size = block.heads_total // block.group, block.group
        levels = list(range(total + 1))
    else:
        total, size = block.ffn_total // multiple_of, multiple_of
        levels = sorted({total * level // FFN_LEVELS for level in range(FFN_LEVELS + 1)})
    ratios, references = [1.0], []
    for level in reversed(levels[:-1]):
        layer = _cut(model, path, block, unit, level * size)
        cut, whole = [], []
        for _ in range(ROUNDS):
            whole.append(_seconds(model, partial(uncut, *arguments, **named)))
            cut.append(_seconds(model, partial(layer, *arguments, **named)))
        ratios.append(statistics.median(cut) / statistics.median(whole))
        references += whole
    reference = statistics.median(references)
    return levels, [ratio * reference for ratio in reversed(ratios)], reference


def _cut(model: PreTrainedModel, path: str, block: Block, unit: str, number: int) -> nn.Module:
    """The layer at ``path`` with so many heads or neurons; the copy shares all other weights with the model."""
    own = {id(tensor) for tensor in model.get_submodule(path).parameters()}
    smaller = copy.deepcopy(model, {id(tensor): tensor for tensor in model.parameters() if id(tensor) not in own})
    if unit == "heads":
        surgery.cut_heads(smaller, block, torch.arange(block.heads_total) < number)
    else:
        surgery.cut_neurons(smaller, block, torch.arange(block.ffn_total) < number)
    return smaller.get_submodule(path)


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
