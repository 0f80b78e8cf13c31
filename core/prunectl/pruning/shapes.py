# This file travels inside each checkpoint as modeling_prunectl.py: it may import nothing but torch and transformers.
"""Uneven heads and neurons for a stock transformers model.

``config.prunectl`` holds, by module path below the base model: ``linears`` (``[out, in]`` of each changed matrix),
``attributes`` (what its attention module says of itself) and ``empty`` (attention modules without heads, with the name
of the output matrix if that is theirs). Where the key is absent the classes made here are the stock ones.
"""

from typing import Any

import torch
import transformers
from torch import nn


def empty_attention(module: nn.Module, output: str | None) -> None:
    """Make an attention module without heads pass nothing on, so that its output matrix gives its bias alone.

    ``output`` names the output matrix where the module applies it itself (DistilBERT); None where another one does.
    """
    stock = type(module)

    def forward(self, hidden_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        batch, length = hidden_states.shape[:2]
        context = hidden_states.new_zeros((batch, length, 0))
        weights = hidden_states.new_zeros((batch, 0, length, length)) if _shows_weights(self) else None
        return (context if output is None else getattr(self, output)(context)), weights

    # A subclass, because hooks of transformers find attention modules by class.
    module.__class__ = type(stock.__name__, (stock,), {"forward": forward, "__module__": stock.__module__})


def apply_shapes(model: transformers.PreTrainedModel, shapes: dict[str, Any] | None) -> None:
    """Cut a freshly built stock model to ``shapes``; the weights are loaded afterwards."""
    if not shapes:
        return
    base = getattr(model, model.base_model_prefix, model)
    for path, (outputs, inputs) in shapes["linears"].items():
        linear: Any = base.get_submodule(path)
        with torch.no_grad():
            linear.weight = nn.Parameter(linear.weight[:outputs, :inputs].clone())
            if linear.bias is not None:
                linear.bias = nn.Parameter(linear.bias[:outputs].clone())
        linear.out_features, linear.in_features = outputs, inputs
    for path, attributes in shapes["attributes"].items():
        for name, value in attributes.items():
            setattr(base.get_submodule(path), name, value)
    for path, output in shapes["empty"].items():
        empty_attention(base.get_submodule(path), output)


def pruned_class(stock: Any) -> Any:
    """A class that is ``stock``, name included, but for the shapes that its configuration asks for."""

    def __init__(self, config, *args, **kwargs):  # type: ignore[no-untyped-def]
        stock.__init__(self, config, *args, **kwargs)
        apply_shapes(self, getattr(config, "prunectl", None))

    return type(stock.__name__, (stock,), {"__init__": __init__, "__module__": __name__})


def _shows_weights(module: nn.Module) -> bool:
    return getattr(getattr(module, "config", None), "_attn_implementation", None) == "eager"
