"""Layers: how much each one changes what passes through it, and models with fewer."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from prunectl.errors import CorruptWeights
from prunectl.pruning import depth, residency
from prunectl.pruning.blocks import base_path, described
from prunectl.pruning.engine import Pruned
from prunectl.pruning.observation import evaluating, real_tokens
from prunectl.pruning.packing import Batch
from prunectl.pruning.scores import Loss, Progress

Seen = Callable[[int, Any, Any, Any], Any]
"""(layer's number, positional arguments, keyword arguments, output) -> another output, or None."""


def block_influence(
    model: PreTrainedModel, batches: Sequence[Batch], loss: Loss, *, progress: Progress | None = None
) -> list[float]:
    """Block influence of each layer, ``[layers]``: 1 - mean over tokens of cos(x_l, x_l+1), x_l being what enters
    layer l and x_l+1 what leaves it (ShortGPT, Men et al. 2024, equation 1). Padding is not counted.

    Raises UnsupportedArchitecture for an unknown family, CorruptWeights where hidden states aren't finite.
    """
    total = sum(stack.layers for stack in depth.stacks_of(described(model)))
    likeness, tokens = torch.zeros(total, dtype=torch.float64), torch.zeros(total, dtype=torch.float64)
    current: Batch = {}

    def see(number: int, arguments: Any, named: Any, output: Any) -> None:
        entered, left = _hidden(arguments, named), _first(output)
        rows = real_tokens(entered, current)
        cosine = cosine_similarity(entered[rows].double(), left[rows].double(), dim=-1)
        likeness[number] += cosine.sum().cpu()
        tokens[number] += cosine.numel()

    with evaluating(model), ExitStack() as stack:
        restart = _watch(model, see, stack)
        for number, batch in enumerate(batches):
            current = batch
            restart()
            loss(model, batch)
            if progress is not None:
                progress((number + 1) / len(batches))
    if not tokens.all():
        raise ValueError("block influence needs at least one batch with a token that isn't padding")
    influence = 1 - likeness / tokens
    if not torch.isfinite(influence).all():
        raise CorruptWeights("hidden states are not finite numbers", hint="check the model's weights for NaN")
    return [float(value) for value in influence]


@contextmanager
def skipped(model: PreTrainedModel, removed: Collection[int]) -> Iterator[None]:
    """Within the block, the layers of these numbers pass on what they were given: what the smaller model must compute.

    Holds for one forward pass.
    """

    def replace(number: int, arguments: Any, named: Any, output: Any) -> Any:
        if number not in removed:
            return None
        hidden = _hidden(arguments, named)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    with ExitStack() as stack:
        _watch(model, replace, stack)
        yield


def remove(model: PreTrainedModel, removed: Sequence[int]) -> None:
    """Take the layers of these numbers out of ``model``, in place, and count the rest in its configuration.

    Layers that share their weights (ALBERT) are applied less often; which ones makes no difference there.
    Raises UnsupportedArchitecture for an unknown family.
    """
    document = described(model)
    for (path, modules), stack in zip(_lists(model), depth.stacks_of(document), strict=True):
        kept = depth.kept_of(stack, removed)
        if stack.shared or len(kept) == stack.layers:
            continue
        stay = nn.ModuleList(modules[index] for index in kept)
        if kept[0] != 0:
            _hand_over(modules[0], stay[0])
        for index, layer in enumerate(stay):
            _renumber(layer, index)
        model.set_submodule(path, stay)
    residency.release(model)
    changed = depth.without(document, removed)
    for config in {
        id(config): config for module in model.modules() if (config := getattr(module, "config", None))
    }.values():
        _update(config, document, changed)


def in_original(pruned: Pruned, config: Mapping[str, Any], removed: Sequence[int]) -> Pruned:
    """``pruned``, found in the model without the layers ``removed``, in the numbers of the original with ``config``."""
    stacks = [stack for stack in depth.stacks_of(config) if not stack.shared]
    kept = [dict(entry) for entry in pruned.kept]
    layers = list(pruned.structure.layers)
    for stack in stacks:
        stay = depth.kept_of(stack, removed)
        place = re.compile(rf"(?<![^.]){re.escape(stack.path)}\.(\d+)(?=\.)")
        for entry in kept:
            entry["module"] = place.sub(lambda at, s=stack, k=stay: f"{s.path}.{k[int(at[1])]}", entry["module"])  # type: ignore[misc]
        layers = [
            block.model_copy(update={"index": stay[block.index]}) if block.stack == stack.name else block
            for block in layers
        ]
    structure = pruned.structure.model_copy(update={"layers": layers, "removed_layers": list(removed)})
    return replace(pruned, kept=kept, structure=structure)


def layer_modules(model: PreTrainedModel) -> list[nn.Module]:
    """The layers in the order of their numbers; of layers that share their weights, each group once.

    Raises UnsupportedArchitecture for an unknown family.
    """
    return [layer for _, modules in _lists(model) for layer in modules]


def _update(config: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Write what changed to one configuration object."""
    for key, value in after.items():
        if value != before.get(key):
            setattr(config, key, value)
    if getattr(config, "is_decoder", False) and not before.get("is_decoder") and "num_decoder_layers" in after:
        config.num_layers = after["num_decoder_layers"]  # T5's decoder counts its layers in a copy of its own


def _lists(model: PreTrainedModel) -> list[tuple[str, nn.ModuleList]]:
    """Path and list of layers of each stack."""
    paths = [base_path(model) + stack.path for stack in depth.stacks_of(described(model))]
    return [(path, cast(nn.ModuleList, model.get_submodule(path))) for path in paths]


def _watch(model: PreTrainedModel, seen: Seen, stack: ExitStack) -> Callable[[], None]:
    """Call ``seen`` after each layer; layers are numbered by the order in which a forward pass calls them.

    Gives a function that starts the numbering again, to be called before each forward pass.
    """
    stacks = depth.stacks_of(described(model))
    numbers = [part.first for part in stacks]

    def hook(place: int) -> Callable[..., Any]:
        def call(_module: nn.Module, arguments: Any, named: Any, output: Any) -> Any:
            number, numbers[place] = numbers[place], numbers[place] + 1
            return seen(number, arguments, named, output)

        return call

    for place, (_, modules) in enumerate(_lists(model)):
        for layer in modules:
            stack.enter_context(layer.register_forward_hook(hook(place), with_kwargs=True))

    def restart() -> None:
        numbers[:] = [part.first for part in stacks]

    return restart


def _hidden(arguments: Any, named: Any) -> Tensor:
    found = arguments[0] if arguments else named["hidden_states"]
    assert isinstance(found, Tensor)
    return found


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _renumber(layer: nn.Module, index: int) -> None:
    """A decoder's caches find their layer by its number."""
    for module in layer.modules():
        if isinstance(getattr(module, "layer_idx", None), int):
            module.layer_idx = index  # type: ignore[assignment]


def _hand_over(old: nn.Module, new: nn.Module) -> None:
    """T5 keeps the relative positions of a whole stack in its first layer's attention: they move to the new first
    one.
    """
    for path, module in old.named_modules():
        if getattr(module, "has_relative_attention_bias", False):
            heir: Any = new.get_submodule(path)
            heir.has_relative_attention_bias = True
            heir.relative_attention_bias = module.relative_attention_bias
