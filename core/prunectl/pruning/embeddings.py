"""Embeddings: the rows of a model that belong to vocabulary entries, cut and renumbered."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from prunectl.errors import UnsupportedArchitecture
from prunectl.pruning import residency
from prunectl.pruning.vocabulary import Vocabulary, config_ids

_ID_INPUTS = ("input_ids", "decoder_input_ids")


def cut_vocabulary(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Keep in ``model``, in place, the rows of ``vocabulary`` alone: embeddings, language-model head and its bias,
    and the ids and the size in its configuration. Tied tensors stay tied.

    Which tensors have a row an entry is read off the class itself: those whose shape follows ``vocab_size``. Raises
    UnsupportedArchitecture where cutting them doesn't give what the class expects.
    """
    residency.release(model)  # the rows are copied, so for a moment both are there
    sizes = _sizes(model, vocabulary)
    rows = torch.tensor(vocabulary.rows)
    numbers = vocabulary.numbers()
    cut: dict[int, Any] = {}
    for prefix, module in model.named_modules():
        own = f"{prefix}." if prefix else ""
        for held in (module._parameters, module._buffers):
            for name, tensor in list(held.items()):
                if tensor is None or sizes.get(own + name, tensor.shape) == tensor.shape:
                    continue
                if id(tensor) not in cut:
                    # The old tensor is held too: a freed one's identity could be given to another.
                    cut[id(tensor)] = (tensor, _rows_of(tensor, sizes[own + name], rows, vocabulary.total, own + name))
                held[name] = cut[id(tensor)][1]
        if isinstance(module, nn.Embedding):
            module.num_embeddings = module.weight.size(0)
            if module.padding_idx is not None and own + "weight" in sizes and module.weight.size(0) == len(rows):
                module.padding_idx = numbers.get(module.padding_idx)
        if isinstance(module, nn.Linear):
            module.out_features = module.weight.size(0)
    cut.clear()
    residency.release(model)
    for config in _configs(model):
        _renumber(config, vocabulary)
    wrong = [name for name, tensor in model.state_dict().items() if sizes.get(name) != tensor.shape]
    if wrong:
        raise UnsupportedArchitecture(f"{type(model).__name__}: {wrong[0]} doesn't follow the vocabulary's size")


def restricted_outputs(model: PreTrainedModel, vocabulary: Vocabulary, inputs: Mapping[str, Tensor]) -> Tensor:
    """What the uncut ``model`` computes for ``inputs`` in the new numbers ``[examples, tokens]``: what the cut one
    must.

    Of a language model's logits, the kept entries' alone.
    """
    kept = torch.tensor(vocabulary.kept, device=model.device)
    original = {name: kept[value] if name in _ID_INPUTS else value for name, value in inputs.items()}
    with torch.inference_mode():
        output: Tensor = model(**original)[0]
    if model.get_output_embeddings() is not None and output.size(-1) == vocabulary.total:
        output = output[..., torch.tensor(vocabulary.rows, device=output.device)]
    return output


def _sizes(model: PreTrainedModel, vocabulary: Vocabulary) -> dict[str, torch.Size]:
    """Shapes of the same class with the smaller vocabulary, built on the meta device."""
    config = copy.deepcopy(model.config)
    _renumber(config, vocabulary)
    with torch.device("meta"), no_init_weights():
        built = type(model)(config)
    return {name: tensor.shape for name, tensor in built.state_dict().items()}


def _rows_of(tensor: Tensor, wanted: torch.Size, rows: Tensor, total: int, name: str) -> Tensor:
    changed = [axis for axis, (old, new) in enumerate(zip(tensor.shape, wanted, strict=True)) if old != new]
    if len(changed) != 1 or tensor.size(changed[0]) != total:
        raise UnsupportedArchitecture(f"{name} is {list(tensor.shape)}, which has no row for each of {total} entries")
    smaller = tensor.detach().index_select(changed[0], rows.to(tensor.device))
    return nn.Parameter(smaller, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else smaller


def _configs(model: PreTrainedModel) -> list[Any]:
    """Every configuration object of the model, once: an encoder's and a decoder's can be copies of their own."""
    found = {
        id(config): config for module in model.modules() if (config := getattr(module, "config", None)) is not None
    }
    generation = getattr(model, "generation_config", None)
    return [*found.values(), *([generation] if generation is not None else [])]


def _renumber(config: Any, vocabulary: Vocabulary) -> None:
    numbers = vocabulary.numbers()
    for key, value in config_ids(config.to_dict()).items():
        several = isinstance(value, (list, tuple))
        found = [numbers[old] for old in (value if several else [value]) if old in numbers]
        setattr(config, key, found if several else found[0] if found else None)
    for key in ("vocab_size", "decoder_vocab_size"):
        if getattr(config, key, None) is not None:
            setattr(config, key, len(vocabulary.rows))
