"""What an entry of the table of families says: where units are, and what else a model holds. No torch.

Sizes are words, such as ``hidden`` or ``vocab``, that `prunectl.pruning.sizes` looks up in config.json; a tensor is the
tuple of its sizes. A word that is 0 or 1 says whether something is there: ``("has_positions", "positions", "hidden")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prunectl.errors import UnsupportedArchitecture

Stack = Literal["encoder", "decoder"]
Kind = Literal["self", "cross"]
Size = str
Tensor = tuple[Size, ...]
Words = dict[str, int]


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention block of a layer: its module, its projections, and the attributes that count its heads.

    Where one matrix holds query, key and value beside each other, the three paths are equal.
    """

    module: str
    query: str
    key: str
    value: str
    output: str
    heads_attribute: str | None = None
    width_attribute: str | None = None
    """Attribute of the module that holds heads x head size; it follows the heads. None: the module doesn't count."""
    kind: Kind = "self"
    head_size_attribute: str = "head_dim"
    group_attribute: str | None = None
    """Attribute that says how many query heads share a key and a value (grouped queries); None: each has its own."""
    position_projections: tuple[str, ...] = ()
    """Projections of relative positions, cut as query and key are, in the models that have them."""
    shared_bias: bool = False
    """Scores get a position bias with an entry a head that is computed once for all layers."""
    input_bias: Size = "one"
    output_bias: Size = "one"
    norms: tuple[Size, ...] = ()

    @property
    def inner_output(self) -> str | None:
        """The output matrix's name within ``module``, where it lives there; None where it stands beside it."""
        inside = self.module + "."
        return self.output.removeprefix(inside) if self.output.startswith(inside) else None


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The matrices around the neurons. ``first`` has more than one path where the activation is gated."""

    first: tuple[str, ...]
    second: str
    gated_first: tuple[str, ...] = ()
    """Stands in for ``first`` where the configuration's ``feed_forward_proj`` is a gated one."""
    first_bias: Size = "one"
    second_bias: Size = "one"


@dataclass(frozen=True, slots=True)
class Layers:
    """A stack of equal layers. Paths are dotted module names: ``path`` below the base model, others below a layer."""

    path: str
    attentions: tuple[Attention, ...]
    feed_forward: FeedForward
    stack: Stack = "encoder"
    prefix: str = ""
    """Before the words layers, heads and ffn of this stack: ``decoder_`` for the second one of a model."""
    inner: str | None = None
    """List of layers within each entry of ``path``, where entries are groups that are run more than once (ALBERT)."""
    norms: tuple[Size, ...] = ("hidden",) * 4
    """Vectors of one layer: a LayerNorm is two."""
    tensors: tuple[Tensor, ...] = ()
    """What the stack holds once."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix ``[outputs, inputs]`` outside the layers, applied at ``positions`` places: seq, one, patches."""

    outputs: Size
    inputs: Size
    positions: Size = "seq"
    bias: Size = "one"
    present: Size = "one"


@dataclass(frozen=True, slots=True)
class TaskHead:
    """What stands on top of the layers."""

    linears: tuple[Linear, ...] = ()
    norms: tuple[Size, ...] = ()
    vocabulary_projection: Size | None = None
    """Width that is projected onto the vocabulary, at every position; its matrix is the word embedding where tied."""
    vocabulary_bias: bool = True
    separate_bias: bool = False
    """The projection's bias is a parameter of its own when untied, beside the matrix's own bias."""
    stacks: tuple[Stack, ...] | None = None
    """The stacks that this class has, where it hasn't all of its family's."""


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture: names in config.json, where its layers are, and what else it holds."""

    model_type: str
    title: str
    base_prefix: str
    class_prefix: str
    stacks: tuple[Layers, ...]
    heads: dict[str, TaskHead]
    """By class suffix: ``ForMaskedLM``, ``ForSequenceClassification``, ``Model`` …"""
    keys: dict[str, str]
    """Our word -> the configuration's: layers, heads, hidden, ffn, embedding, vocab, positions, types."""
    defaults: Mapping[str, int | str | tuple[int, str]] = field(default_factory=dict)
    """What the configuration class assumes where config.json is silent, by our word: a number, another word, or a
    multiple of one."""
    tensors: tuple[Tensor, ...] = ()
    """Parameters outside the layers: embeddings, norms."""
    linears: tuple[Linear, ...] = ()
    """Matrices outside the layers, such as the projection of embeddings."""
    flags: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    """Our word -> (the configuration's switch, its default)."""
    derive: Callable[[Mapping[str, Any], Words], Words] | None = None
    """Further words from the configuration and the words so far."""
    requires: Mapping[str, Any] = field(default_factory=dict)
    """Settings without which the model is another one than this entry describes, where config.json has them."""
    usual: Mapping[str, Any] = field(default_factory=dict)
    """Further settings that the configuration class assumes, by its own key."""
    input_name: str = "input_ids"
    in_textpruner: bool = False
    """TextPruner's structural pruner knows the family's layers."""

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

    def stacks_for(self, config: Mapping[str, Any], architecture: str) -> tuple[Layers, ...]:
        """The stacks of this class with this configuration, their feed-forward gated or not."""
        suffix = architecture.removeprefix(self.class_prefix)
        head = self.heads.get(suffix)
        present = [layers for layers in self.stacks if head is None or layers.stack in (head.stacks or (layers.stack,))]
        gated = str(config.get("feed_forward_proj", self.usual.get("feed_forward_proj", ""))).startswith("gated")
        return tuple(
            replace(layers, feed_forward=replace(layers.feed_forward, first=layers.feed_forward.gated_first))
            if gated and layers.feed_forward.gated_first
            else layers
            for layers in present
        )
