"""Sizes: the words of a family's entry, looked up in config.json. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunectl.errors import UnsupportedArchitecture
from prunectl.pruning.family import Attention, Family, Kind, Layers, Stack, Tensor, Words

MAX_LAYERS = 10_000
"""More than any model has: a damaged config.json must not keep a planner or a loader busy for ever."""
_COMMON_NAMES = {
    # Configuration classes with names of their own answer to these too.
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
}
_MAY_BE_ZERO = ("types",)
_OPTIONAL = ("head_dim",)
"""Computed from other sizes where the configuration is silent and the family has no default."""


@dataclass(frozen=True, slots=True)
class BlockShape:
    """The sizes of one block of the unpruned model, and the entry that says what it is made of."""

    stack: Stack
    index: int
    attention: Kind
    path: str
    """Of its layer, below the base model."""
    heads_total: int
    head_dim: int
    group: int
    """Query heads that share a key and a value; 1: each has its own."""
    ffn_total: int
    """0 where another block of the layer has the feed-forward: that of a layer stands with its first attention."""
    runs: int
    """How often one forward pass runs it: more than once where layers share their weights."""
    entry: Attention
    layers: Layers


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that a plan needs, from config.json. ``layers``, ``heads`` and ``ffn`` are those of the first stack."""

    layers: int
    heads: int
    head_dim: int
    ffn: int
    hidden: int
    vocab: int
    labels: int
    tied: bool
    blocks: tuple[BlockShape, ...]
    words: Words

    @property
    def heads_total(self) -> int:
        return sum(block.heads_total for block in self.blocks)

    @property
    def ffn_total(self) -> int:
        return sum(block.ffn_total for block in self.blocks)

    def width(self, size: str) -> int:
        return self.words[size]

    def numel(self, tensor: Tensor) -> int:
        """Elements of a tensor whose sizes are words."""
        total = 1
        for size in tensor:
            total *= self.words[size]
        return total


def read(config: Mapping[str, Any], family: Family, architecture: str) -> ModelShape:
    """The sizes in config.json, with the family's defaults where it is silent.

    Raises UnsupportedArchitecture for sizes that no model can have.
    """
    words: Words = {"one": 1, "two": 2, "zero": 0}
    for word in {**family.keys, **family.defaults}:
        if word in family.defaults or word not in _OPTIONAL or config.get(family.keys[word]) is not None:
            words[word] = _size(config, family, word)
    if "head_dim" in family.keys and "head_dim" not in words and words["hidden"] % words["heads"] == 0:
        words["head_dim"] = words["hidden"] // words["heads"]
    words.setdefault("embedding", words["hidden"])
    words |= {word: int(bool(config.get(key, usual))) for word, (key, usual) in family.flags.items()}
    words.setdefault("tied", int(bool(config.get("tie_word_embeddings", True))))
    words |= {"untied": 1 - words["tied"], "labels": _labels(config, family)}
    words["projected"] = int(words["embedding"] != words["hidden"])
    if family.derive is not None:
        words |= family.derive(config, words)
    stacks = family.stacks_for(config, architecture)
    for layers in stacks:
        _check_stack(family, layers, words)
    blocks = [block for layers in stacks for block in _blocks(layers, words)]
    return ModelShape(
        layers=words["layers"],
        heads=words["heads"],
        head_dim=blocks[0].head_dim,
        ffn=words["ffn"],
        hidden=words["hidden"],
        vocab=words.get("vocab", 0),
        labels=words["labels"],
        tied=bool(words["tied"]),
        blocks=tuple(blocks),
        words=words,
    )


def _check_stack(family: Family, layers: Layers, words: Words) -> None:
    heads, hidden = words[layers.prefix + "heads"], words["hidden"]
    number, names = words[layers.prefix + "layers"], family.keys
    if number > MAX_LAYERS:
        raise UnsupportedArchitecture(
            f"{number} layers: no model has more than {MAX_LAYERS}", field=names[layers.prefix + "layers"]
        )
    if "head_dim" not in words and hidden % heads:
        raise UnsupportedArchitecture(
            f"{names['hidden']} {hidden} is not a multiple of {names[layers.prefix + 'heads']} {heads}",
            field=names[layers.prefix + "heads"],
            value=heads,
        )
    if any(entry.group_attribute for entry in layers.attentions) and heads % words["kv_heads"]:
        raise UnsupportedArchitecture(
            f"{names['heads']} {heads} is not a multiple of {names['kv_heads']} {words['kv_heads']}",
            field=names["kv_heads"],
            value=words["kv_heads"],
        )


def _blocks(layers: Layers, words: Words) -> list[BlockShape]:
    heads = words[layers.prefix + "heads"]
    return [
        BlockShape(
            stack=layers.stack,
            index=index,
            attention=entry.kind,
            path=path,
            heads_total=heads,
            head_dim=words.get("head_dim", words["hidden"] // heads),
            group=heads // words["kv_heads"] if entry.group_attribute else 1,
            ffn_total=words[layers.prefix + "ffn"] if place == 0 else 0,
            runs=runs,
            entry=entry,
            layers=layers,
        )
        for index, (path, runs) in enumerate(_layer_paths(layers, words))
        for place, entry in enumerate(layers.attentions)
    ]


def _layer_paths(layers: Layers, words: Words) -> list[tuple[str, int]]:
    """Path below the base model and number of runs, of each layer that has weights of its own."""
    number = words[layers.prefix + "layers"]
    if layers.inner is None:
        return [(f"{layers.path}.{index}", 1) for index in range(number)]
    groups, each = words["groups"], words["inner_layers"]
    runs = [0] * groups
    for index in range(number):
        runs[int(index / (number / groups))] += 1  # as transformers finds a layer's group
    return [
        (f"{layers.path}.{group}.{layers.inner}.{inner}", runs[group])
        for group in range(groups)
        for inner in range(each)
    ]


def _size(config: Mapping[str, Any], family: Family, word: str) -> int:
    key = family.keys.get(word)
    names = [name for name in (key, _COMMON_NAMES.get(word) if key else None) if name]
    value = next((config[name] for name in names if config.get(name) is not None), None)
    if value is None:
        default = family.defaults.get(word)
        times, other = default if isinstance(default, tuple) else (1, default)
        value = times * _size(config, family, other) if isinstance(other, str) else other
    if not isinstance(value, int) or isinstance(value, bool) or value < (0 if word in _MAY_BE_ZERO else 1):
        raise UnsupportedArchitecture(f"{key} in config.json must be a positive whole number, not {value!r}", field=key)
    return value


def _labels(config: Mapping[str, Any], family: Family) -> int:
    names = config.get("id2label")
    if isinstance(names, Mapping) and names:
        return len(names)
    count = config.get("num_labels", family.usual.get("num_labels", 2))
    return count if isinstance(count, int) and count > 0 else 2
