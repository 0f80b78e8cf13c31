"""How a model runs while it is trained: with or without dropout, and what its layers keep for the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from prunectl.pruning.layers import layer_modules


@contextmanager
def training_mode(model: PreTrainedModel, *, dropout: bool, checkpointing: bool) -> Iterator[None]:
    """Within the block ``model`` runs as it is trained; afterwards it is in eval mode.

    Without ``dropout`` all of it is off (eval mode, gradients as ever). With ``checkpointing`` a layer keeps what enters
    it alone and computes the rest again on the way back (gradient checkpointing, Chen et al. 2016): the same gradients
    for less memory and one more forward pass. Nothing is cached for generation. Raises UnsupportedArchitecture for an
    unknown family.
    """
    with ExitStack() as stack:
        stack.callback(model.eval)
        stack.enter_context(_without_cache(model))
        if checkpointing:
            stack.enter_context(_computed_again(model))
        model.train(dropout)
        yield


@contextmanager
def _without_cache(model: PreTrainedModel) -> Iterator[None]:
    """Keys and values of a decoder that are kept for a next token would be kept twice by a layer that runs twice."""
    configs: dict[int, Any] = {
        id(module.config): module.config for module in model.modules() if hasattr(module, "config")
    }
    before = [(config, config.use_cache) for config in configs.values() if hasattr(config, "use_cache")]
    try:
        for config, _ in before:
            config.use_cache = False
        yield
    finally:
        for config, used in before:
            config.use_cache = used


@contextmanager
def _computed_again(model: PreTrainedModel) -> Iterator[None]:
    layers = {id(layer): layer for layer in layer_modules(model)}.values()
    try:
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)
