# This file travels inside each checkpoint as modeling_prunectl.py: it may import nothing but torch and transformers.
"""Uneven heads and neurons for a stock transformers model.

``config.prunectl`` holds, by module path below the base model: ``linears`` (the weight's shape of each changed matrix),
``attributes`` (what its attention module says of itself), ``empty`` (attention modules without heads, with the name of
the output matrix if that is theirs) and ``biased`` (the heads that stayed, where a position bias with an entry a head
is shared by all layers). Where the key is absent the classes made here are the stock ones.
"""

from typing import Any

import torch
import transformers
from torch import nn


def empty_attention(module: nn.Module, output: str | None) -> None:
    """Make an attention module without heads pass nothing on, so that its output matrix gives its bias alone.

    ``output`` names the output matrix where the module applies it itself; None where another one does.
    """

    def forward(self, hidden_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        batch, length = hidden_states.shape[:2]
        # Computed before the cache grows, as the stock module does.
        bias = _shared_bias(self, hidden_states, kwargs) if hasattr(self, "compute_bias") else None
        keys = _remember_nothing(self, hidden_states, kwargs)
        context = hidden_states.new_zeros((batch, length, 0))
        if output is not None:
            context = getattr(self, output)(context)
        if hasattr(self, "LayerNorm"):  # ALBERT's attention adds its residual itself
            context = self.LayerNorm(hidden_states + context)
        weights = hidden_states.new_zeros((batch, 0, length, keys)) if _shows_weights(self) else None
        return (context, bias, weights) if hasattr(self, "compute_bias") else (context, weights)

    _become(module, forward=forward)


def biased_attention(module: nn.Module, heads: list[int]) -> None:
    """Make an attention module that kept ``heads`` take these alone of the position bias that all layers share.

    In MPNet the bias is an argument; in T5 the first layer computes it and each layer hands it on, whole.
    """
    stock, returned = type(module), hasattr(module, "compute_bias")
    module.kept_heads = heads  # type: ignore[assignment]

    def forward(self, hidden_states, attention_mask=None, *args, **kwargs):  # type: ignore[no-untyped-def]
        if not returned:  # MPNet hands it over as the third argument
            bias, args = (args[0], args[1:]) if args else (kwargs.pop("position_bias"), args)
            return stock.forward(self, hidden_states, attention_mask, bias[:, heads], *args, **kwargs)
        bias = _shared_bias(self, hidden_states, kwargs)
        mine = None if bias is None else bias[:, heads]
        named = {**kwargs, "position_bias": mine}
        if attention_mask is not None:
            named["mask"] = attention_mask
        context, _, weights = stock.forward(self, hidden_states, *args, **named)
        return context, bias, weights

    _become(module, forward=forward)


def empty_matrix(module: nn.Module) -> None:
    """Make a Conv1D without inputs give its bias: its own reshape can't tell how many rows nothing has."""

    def forward(self, x):  # type: ignore[no-untyped-def]
        return x.new_zeros((*x.shape[:-1], self.nf)) + self.bias

    _become(module, forward=forward)


def apply_shapes(model: transformers.PreTrainedModel, shapes: dict[str, Any] | None) -> None:
    """Cut a freshly built stock model to ``shapes``; the weights are loaded afterwards."""
    if not shapes:
        return
    base = getattr(model, model.base_model_prefix, model)
    for path, (rows, columns) in shapes["linears"].items():
        linear: Any = base.get_submodule(path)
        outputs = columns if hasattr(linear, "nf") else rows
        with torch.no_grad():
            linear.weight = nn.Parameter(linear.weight[:rows, :columns].clone())
            if linear.bias is not None:
                linear.bias = nn.Parameter(linear.bias[:outputs].clone())
        state_size(linear)
    for path, attributes in shapes["attributes"].items():
        for name, value in attributes.items():
            setattr(base.get_submodule(path), name, value)
    for path, output in shapes["empty"].items():
        empty_attention(base.get_submodule(path), output)
    for path, heads in shapes.get("biased", {}).items():
        biased_attention(base.get_submodule(path), heads)


def state_size(linear: Any) -> None:
    """Make a linear layer say the size that its weight now has."""
    if hasattr(linear, "nf"):
        linear.nx, linear.nf = linear.weight.shape
        if linear.nx == 0:
            empty_matrix(linear)
    else:
        linear.out_features, linear.in_features = linear.weight.shape


def pruned_class(stock: Any) -> Any:
    """A class that is ``stock``, name included, but for the shapes that its configuration asks for."""

    def __init__(self, config, *args, **kwargs):  # type: ignore[no-untyped-def]
        stock.__init__(self, config, *args, **kwargs)
        apply_shapes(self, getattr(config, "prunectl", None))

    return type(stock.__name__, (stock,), {"__init__": __init__, "__module__": __name__})


def _become(module: nn.Module, **methods: Any) -> None:
    """Change methods of one module by a subclass, because hooks of transformers find modules by class."""
    stock = type(module)
    module.__class__ = type(stock.__name__, (stock,), {**methods, "__module__": stock.__module__})


def _shared_bias(module: Any, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """T5's position bias for all heads ``[1, heads, queries, keys]``; None where a module has none to add."""
    if kwargs.get("key_value_states") is not None:
        return None  # cross-attention adds zeros, which each layer makes for itself
    bias, cache = kwargs.get("position_bias"), _cache_of(kwargs)
    if bias is not None or not module.has_relative_attention_bias:
        return bias
    length = hidden_states.shape[1]
    keys: Any = length
    past: Any = 0
    if cache is not None:
        past = cache.get_seq_length(module.layer_idx)
        past = past.clone() if isinstance(past, torch.Tensor) else past
        keys = cache.get_mask_sizes(length, module.layer_idx)[0]
    return module.compute_bias(length, keys, device=hidden_states.device, past_seen_tokens=past)


def _cache_of(kwargs: dict[str, Any]) -> Any:
    """What an attention module is given to remember keys and values in: its name changed in transformers 5.24."""
    return kwargs["cache"] if kwargs.get("cache") is not None else kwargs.get("past_key_values")


def _remember_nothing(module: Any, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> int:
    """Let a cache count the tokens that an empty attention has seen: models ask layer 0 for the length.

    Gives the number of keys that it would attend to.
    """
    cache, other = _cache_of(kwargs), kwargs.get("key_value_states")
    batch, length = hidden_states.shape[:2]
    if other is not None:
        return other.shape[1]
    if cache is None:
        return length
    cache = getattr(cache, "self_attention_cache", cache)
    keys = cache.get_mask_sizes(length, module.layer_idx)[0]
    nothing = hidden_states.new_zeros((batch, 1, length, 1))  # one number a token, since no number at all isn't counted
    cache.update(nothing, nothing, module.layer_idx)
    return keys


def _shows_weights(module: nn.Module) -> bool:
    """Modules without a choice of implementation compute attention the plain way."""
    config = getattr(module, "config", None)
    return config is None or getattr(config, "_attn_implementation", None) == "eager"
