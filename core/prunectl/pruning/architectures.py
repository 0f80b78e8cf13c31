"""Where each family keeps its heads and neurons: a table. A new family is one entry here and its tests. No torch.

Paths are dotted module names: a stack's ``layers`` below the base model, everything else below one layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prunectl.errors import UnsupportedArchitecture, nearest

Stack = Literal["encoder", "decoder"]
Kind = Literal["self", "cross"]
Size = Literal["hidden", "embedding", "vocab", "labels", "two", "one"]
"""A width that a task head's matrices have, by name; see `ModelShape.width`."""

MAX_LAYERS = 10_000
"""More than any model has: a damaged config.json must not keep a planner or a loader busy for ever."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention block of a layer: its module, its four projections, and the attributes that count its heads."""

    module: str
    query: str
    key: str
    value: str
    output: str
    heads_attribute: str
    width_attribute: str
    """Attribute of the module that holds heads x head size; it follows the heads."""
    kind: Kind = "self"

    @property
    def inner_output(self) -> str | None:
        """The output matrix's name within ``module``, where it lives there; None where it stands beside it."""
        inside = self.module + "."
        return self.output.removeprefix(inside) if self.output.startswith(inside) else None


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The two matrices around the neurons. ``first`` has more than one path where the activation is gated."""

    first: tuple[str, ...]
    second: str


@dataclass(frozen=True, slots=True)
class Layers:
    """A stack of equal layers."""

    path: str
    attentions: tuple[Attention, ...]
    feed_forward: FeedForward
    stack: Stack = "encoder"


@dataclass(frozen=True, slots=True)
class HeadLinear:
    """A matrix of a task head, ``[outputs, inputs]``, applied to every position or to the first alone."""

    outputs: Size
    inputs: Size
    every_position: bool


@dataclass(frozen=True, slots=True)
class TaskHead:
    """What stands on top of the encoder."""

    linears: tuple[HeadLinear, ...] = ()
    norms: tuple[Size, ...] = ()
    vocabulary_projection: Size | None = None
    """Width that is projected onto the vocabulary, at every position; its matrix is the word embedding where tied."""
    separate_bias: bool = False
    """The projection's bias is a parameter of its own when untied, beside the matrix's own bias."""


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture: names in config.json, where its layers are, and what its task heads hold."""

    model_type: str
    title: str
    base_prefix: str
    class_prefix: str
    stacks: tuple[Layers, ...]
    heads: dict[str, TaskHead]
    """By class suffix: ``ForMaskedLM``, ``ForSequenceClassification``, ``Model`` …"""
    keys: dict[str, str]
    """Our word -> the configuration's: layers, heads, hidden, ffn, embedding, vocab, positions, types."""
    defaults: dict[str, int] = field(default_factory=dict)
    """What the configuration class assumes where config.json is silent, by our word."""
    in_textpruner: bool = False
    """The family stands in TextPruner's model map."""

    def head_of(self, architecture: str) -> TaskHead:
        """The task head of a class name; raises UnsupportedArchitecture, naming the classes that are known."""
        suffix = architecture.removeprefix(self.class_prefix)
        if architecture.startswith(self.class_prefix) and suffix in self.heads:
            return self.heads[suffix]
        known = ", ".join(self.class_prefix + name for name in self.heads)
        raise UnsupportedArchitecture(
            f"{architecture!r} is not a supported class of the {self.model_type} family",
            hint=f"supported: {known}",
            field="architectures",
            value=architecture,
        )


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes that a plan needs, read from config.json."""

    layers: int
    heads: int
    head_dim: int
    ffn: int
    hidden: int
    embedding: int
    vocab: int
    positions: int
    types: int
    labels: int
    tied: bool

    @property
    def heads_total(self) -> int:
        return self.layers * self.heads

    @property
    def ffn_total(self) -> int:
        return self.layers * self.ffn

    def width(self, size: Size) -> int:
        fixed = {"one": 1, "two": 2}
        return fixed[size] if size in fixed else int(getattr(self, size))


_BERT_LAYERS = Layers(
    path="encoder.layer",
    attentions=(
        Attention(
            module="attention.self",
            query="attention.self.query",
            key="attention.self.key",
            value="attention.self.value",
            output="attention.output.dense",
            heads_attribute="num_attention_heads",
            width_attribute="all_head_size",
        ),
    ),
    feed_forward=FeedForward(first=("intermediate.dense",), second="output.dense"),
)
_DISTILBERT_LAYERS = Layers(
    path="transformer.layer",
    attentions=(
        Attention(
            module="attention",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            output="attention.out_lin",
            heads_attribute="n_heads",
            width_attribute="dim",
        ),
    ),
    feed_forward=FeedForward(first=("ffn.lin1",), second="ffn.lin2"),
)
_BERT_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
}
_DISTILBERT_KEYS = {
    "layers": "n_layers",
    "heads": "n_heads",
    "hidden": "dim",
    "ffn": "hidden_dim",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
}
_BASE = {"layers": 12, "heads": 12, "hidden": 768, "ffn": 3072, "positions": 512, "types": 2}

_POOLER = HeadLinear("hidden", "hidden", every_position=False)
_TRANSFORM = HeadLinear("hidden", "hidden", every_position=True)
_LABELS = HeadLinear("labels", "hidden", every_position=False)
_CLASSIFIER = TaskHead(linears=(_POOLER, _LABELS))

_ROBERTA_HEADS = {
    "ForMaskedLM": TaskHead((_TRANSFORM,), ("hidden",), vocabulary_projection="hidden", separate_bias=True),
    "ForSequenceClassification": _CLASSIFIER,
    "Model": TaskHead(linears=(_POOLER,)),
}
_BERT_HEADS = {
    **_ROBERTA_HEADS,
    "ForPreTraining": TaskHead(
        (_POOLER, _TRANSFORM, HeadLinear("two", "hidden", every_position=False)),
        ("hidden",),
        vocabulary_projection="hidden",
        separate_bias=True,
    ),
}
_ELECTRA_HEADS = {
    "ForMaskedLM": TaskHead(
        (HeadLinear("embedding", "hidden", every_position=True),), ("embedding",), vocabulary_projection="embedding"
    ),
    "ForSequenceClassification": _CLASSIFIER,
    "ForPreTraining": TaskHead((_TRANSFORM, HeadLinear("one", "hidden", every_position=True))),
    "Model": TaskHead(),
}
_DISTILBERT_HEADS = {
    "ForMaskedLM": TaskHead((_TRANSFORM,), ("hidden",), vocabulary_projection="hidden"),
    "ForSequenceClassification": _CLASSIFIER,
    "Model": TaskHead(),
}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "bert", "BERT", "bert", "Bert", (_BERT_LAYERS,), _BERT_HEADS, _BERT_KEYS,
            defaults={**_BASE, "vocab": 30522}, in_textpruner=True,
        ),
        Family(
            "roberta", "RoBERTa", "roberta", "Roberta", (_BERT_LAYERS,), _ROBERTA_HEADS, _BERT_KEYS,
            defaults={**_BASE, "vocab": 50265}, in_textpruner=True,
        ),
        Family(
            "xlm-roberta", "XLM-R", "roberta", "XLMRoberta", (_BERT_LAYERS,), _ROBERTA_HEADS, _BERT_KEYS,
            defaults={**_BASE, "vocab": 30522}, in_textpruner=True,
        ),
        Family(
            "electra", "ELECTRA", "electra", "Electra", (_BERT_LAYERS,), _ELECTRA_HEADS,
            {**_BERT_KEYS, "embedding": "embedding_size"},
            defaults={**_BASE, "vocab": 30522, "heads": 4, "hidden": 256, "ffn": 1024, "embedding": 128},
            in_textpruner=True,
        ),
        Family(
            "distilbert", "DistilBERT", "distilbert", "DistilBert", (_DISTILBERT_LAYERS,), _DISTILBERT_HEADS,
            _DISTILBERT_KEYS, defaults={**_BASE, "vocab": 30522, "layers": 6, "types": 0},
        ),
    )
}  # fmt: skip


def textpruner_families() -> list[str]:
    """The families whose layers TextPruner knows, by model_type."""
    return [name for name, family in FAMILIES.items() if family.in_textpruner]


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a config.json. Raises UnsupportedArchitecture naming its model_type and the known ones."""
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        close = nearest(str(model_type), FAMILIES) if model_type else None
        raise UnsupportedArchitecture(
            f"model_type {model_type!r} can't be pruned" if model_type else "config.json names no model_type",
            hint=(f"did you mean {close}? " if close else "") + f"supported: {', '.join(FAMILIES)}",
            field="model",
            value=model_type,
        )
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise UnsupportedArchitecture(
                f"a {family.title} model with {key} is a decoder; only its encoder form is supported",
                field=key,
                value=True,
            )
    return family


def architecture_of(config: Mapping[str, Any]) -> str:
    """``architectures[0]``, or the family's bare encoder where config.json names none."""
    named = config.get("architectures")
    if isinstance(named, list) and named and isinstance(named[0], str):
        return str(named[0])
    return family_of(config).class_prefix + "Model"


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The sizes in config.json, with the family's defaults where it is silent.

    Raises UnsupportedArchitecture for an unknown family or sizes that no model can have.
    """
    family = family_of(config)
    sizes = {word: _size(config, family, word) for word in {*family.defaults, *family.keys}}
    layers, heads, hidden = sizes["layers"], sizes["heads"], sizes["hidden"]
    if layers > MAX_LAYERS:
        raise UnsupportedArchitecture(
            f"{layers} layers: no model has more than {MAX_LAYERS}", field=family.keys["layers"]
        )
    if hidden % heads:
        raise UnsupportedArchitecture(
            f"{family.keys['hidden']} {hidden} is not a multiple of {family.keys['heads']} {heads}",
            field=family.keys["heads"],
            value=heads,
        )
    return ModelShape(
        layers=layers,
        heads=heads,
        head_dim=hidden // heads,
        ffn=sizes["ffn"],
        hidden=hidden,
        embedding=sizes.get("embedding", hidden),
        vocab=sizes["vocab"],
        positions=sizes["positions"],
        types=sizes["types"],
        labels=_labels(config),
        tied=bool(config.get("tie_word_embeddings", True)),
    )


def _size(config: Mapping[str, Any], family: Family, word: str) -> int:
    key = family.keys.get(word)
    # DistilBERT's configuration also answers to the names that the other families use.
    names = [name for name in (key, _BERT_KEYS.get(word) if key else None) if name]
    value = next((config[name] for name in names if name in config), family.defaults.get(word))
    if not isinstance(value, int) or isinstance(value, bool) or value < (0 if word == "types" else 1):
        raise UnsupportedArchitecture(f"{key} in config.json must be a positive whole number, not {value!r}", field=key)
    return value


def _labels(config: Mapping[str, Any]) -> int:
    names = config.get("id2label")
    if isinstance(names, Mapping) and names:
        return len(names)
    count = config.get("num_labels", 2)
    return count if isinstance(count, int) and count > 0 else 2
