"""A recipe: what to remove from a model and how. A frozen value, the same in the CLI, the API, YAML and the
database.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

Scorer = Literal["taylor", "fisher", "activation", "magnitude", "wanda", "random"]
LayerChoice = Literal["influence", "top", "bottom", "alternate", "random"]
Granularity = Literal["element", "matrix", "tensor"]
Pattern = Literal["2:4", "4:8"]
Engine = Literal["native", "textpruner"]
Recover = Literal["none", "finetune", "distill"]
Quantize = Literal["int8", "int8-static"]
"""Whether activations get their scales as the file runs (dynamic), or once from calibration texts (static)."""
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
AttentionKind = Literal["encoder", "decoder", "cross"]
"""Self-attention of the encoder, masked self-attention of the decoder, attention of the decoder to the encoder."""


def parse_fractions(value: Any) -> Any:
    """``"encoder=0.3,cross=0.5"`` as ``{"encoder": "0.3", "cross": "0.5"}``; anything else as it is."""
    if not isinstance(value, str) or "=" not in value:
        return value
    parts = [part.partition("=") for part in value.split(",")]
    names = [name.strip() for name, _, _ in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"{value!r} names a kind of attention twice")
    unknown = [name for name in names if name not in get_args(AttentionKind)]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is no kind of attention: there are {', '.join(get_args(AttentionKind))}, "
            "as in encoder=0.3,cross=0.5"
        )
    return {name: fraction.strip() for name, (_, _, fraction) in zip(names, parts, strict=True)}


HeadFractions = Annotated[
    Annotated[Fraction, Tag("all")] | Annotated[dict[AttentionKind, Fraction], Field(min_length=1), Tag("by kind")],
    Discriminator(lambda value: "by kind" if isinstance(value, dict) else "all"),
    BeforeValidator(parse_fractions),
]
"""One fraction for all heads of the model, or one for each kind of attention; kinds that aren't named stay whole."""

MAX_LAYERS = 10_000
"""More than any model has."""
BUDGETS = ("target_macs", "target_latency", "speedup")
"""The fields that leave the choice of heads and neurons to the solver."""
GREEDY = ("greedy_layers", "keep_performance")
"""The fields that ask for a greedy search of the layers that go; either is enough."""
AXES = ("vocab", "layers", *GREEDY, "heads", "ffn", *BUDGETS, "weights")
"""The fields that remove something, in the order in which they do."""
SCORERS: dict[str, tuple[Scorer, ...]] = {
    # By axis, the default first. Layers and vocabulary have ways of their own: layer_choice, and the corpus.
    "heads": ("taylor", "fisher", "activation", "magnitude", "random"),
    "ffn": ("taylor", "fisher", "activation", "magnitude", "random"),
    **dict.fromkeys(BUDGETS, ("fisher", "taylor")),
    "weights": ("magnitude", "wanda", "random"),
}
PATTERNS: dict[Pattern, tuple[int, int]] = {"2:4": (2, 4), "4:8": (4, 8)}
"""Pattern -> (weights that stay, of so many consecutive ones)."""


def _layers(value: Any) -> Any:
    """``2`` and ``"2"`` are a count; ``"0,3"``, ``"3,"`` and ``[3]`` are indices."""
    given = value
    if isinstance(value, str) and "," in value:
        value = value.removesuffix(",").split(",")
    if isinstance(value, (list, tuple)) and value:
        found = [_whole(part) for part in value]
        if None not in found:
            return tuple(sorted({index for index in found if index is not None}))
    elif (count := _whole(value)) is not None:
        return count
    raise ValueError(f"{given!r} is neither a number of layers nor indices such as 0,3 (one index: 3,)")


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}\s*", value, re.ASCII):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_LAYERS else None


Layers = Annotated[int | tuple[int, ...], BeforeValidator(_layers)]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, so digests can be compared."""
    return _CANONICAL.encode(value)


def sha256_of(text: str) -> str:
    """``sha256:<hex>`` of a text's UTF-8 bytes."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def digest_of(value: Any) -> str:
    """``sha256:<hex>`` of a JSON-serialisable value."""
    return sha256_of(canonical_json(value))


class Recipe(BaseModel):
    """What to remove and how, in this order: vocabulary, layers, heads and FFN neurons, weights.

    Instead of ``heads`` and ``ffn`` a budget may be given: ``target_macs``, ``target_latency`` or ``speedup``; then the
    solver chooses both.

    All fractions say how much is removed, of what the steps before have left: ``heads=0.3`` removes floor(0.3 x all
    heads of the model), ranked over the whole model; with ``even``, floor(0.3 x the layer's) in each layer.
    ``min_heads`` and ``min_ffn`` are kept in each layer. ``iterations`` prunes heads and neurons in that many steps,
    scoring again after each. ``layers`` is a count (which ones, ``layer_choice`` says) or the indices themselves.
    ``greedy_layers`` instead searches for the layers: step by step the one goes without which the model, recovered, is
    best, until so many are gone or the next one would leave less than ``keep_performance`` of the unpruned model's
    quality. ``candidates`` trains that many a step only, those of the least block influence.
    ``vocab`` names a corpus: what it doesn't need leaves the vocabulary. ``scorer`` goes to every axis that can use
    it; the others take their default (`SCORERS`). None: each axis its default.

    ``recover`` trains what is left: ``finetune`` on labels, ``distill`` on what the unpruned model says, for
    ``recover_epochs`` at most, with AdamW's ``recover_rate`` (None: the method's usual one), on ``recover_data`` (None:
    what evaluation leaves of the data); ``gradient_checkpointing`` trades its time for memory. ``export`` writes ONNX
    files of the pruned model; ``quantize`` is the last step, an int8 file beside them, whose activations are quantized
    as it runs (``int8``) or by scales that calibration examples gave (``int8-static``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: HeadFractions | None = None
    ffn: Fraction | None = None
    target_macs: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    """Multiply-adds that stay, as a share of the unpruned model's: a budget, never exceeded."""
    target_latency: Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)] | None = None
    """Milliseconds that a forward pass may take on the machine that runs the job."""
    speedup: Annotated[float, Field(gt=1, le=1000, allow_inf_nan=False)] | None = None
    """How many times as fast as the unpruned model, on the machine that runs the job."""
    layers: Layers | None = None
    layer_choice: LayerChoice = "influence"
    greedy_layers: Annotated[int, Field(ge=1, lt=MAX_LAYERS)] | None = None
    keep_performance: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """Share of the unpruned model's quality, on examples that the search doesn't choose by."""
    candidates: Annotated[int, Field(ge=1, lt=MAX_LAYERS)] | None = None
    """How many layers a step of the search tries. None: all."""
    weights: Fraction | None = None
    weight_granularity: Granularity = "element"
    weight_pattern: Pattern | None = None
    vocab: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    scorer: Scorer | None = None
    engine: Engine = "native"
    iterations: Annotated[int, Field(ge=1, le=1000)] = 1
    even: bool = False
    multiple_of: Annotated[int, Field(ge=1, le=65536)] = 1
    min_heads: Annotated[int, Field(ge=0, le=65536)] = 0
    min_ffn: Annotated[int, Field(ge=0, le=1048576)] = 0
    refit: bool = False
    """Whether output matrices are refitted after heads and neurons went. Left out: where the native engine does that."""
    recover: Recover = "none"
    recover_data: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    recover_epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    recover_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    gradient_checkpointing: bool | None = None
    """Whether training computes what is inside of a layer again on the way back, instead of keeping it. False is as None,
    which stays out of a job's row: workers that came before this field go on with jobs that don't use it.
    """
    quantize: Quantize | None = None
    export: Literal["onnx"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """A pattern implies its fraction; a scorer left out is the default of the first axis that has scorers, and a
        refit left out is done where there is something to refit.
        """
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("weights") is None and values.get("weight_pattern") in PATTERNS:
            stay, of = PATTERNS[values["weight_pattern"]]
            values["weights"] = 1 - stay / of
        if values.get("refit") is None:
            values["refit"] = values.get("engine", "native") == "native" and any(
                values.get(axis) is not None for axis in ("heads", "ffn", *BUDGETS)
            )
        if values.get("quantize") is not None and values.get("export") is None:
            values["export"] = "onnx"  # where quantized weights are kept
        if values.get("gradient_checkpointing") is False:
            del values["gradient_checkpointing"]
        if values.get("recover") is None:
            searches = any(values.get(name) is not None for name in GREEDY)
            values["recover"] = "distill" if searches else "none"
        if values.get("scorer") is None:
            values["scorer"] = next((s[0] for axis, s in SCORERS.items() if values.get(axis) is not None), None)
        return values

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not self.axes:
            raise ValueError(
                "nothing to remove: give heads, ffn, layers, greedy_layers, weights, vocab or a target (for example heads=0.3)"
            )
        if self.refit and not self._refits:
            why = f"engine {self.engine} has none" if self.engine != "native" else "it follows heads and ffn alone"
            raise ValueError(f"refit can't be used by {' or '.join(self.axes)} here: {why}; leave it out")
        self._check_scorer()
        self._check_choices()
        return self

    def _check_scorer(self) -> None:
        usable = [axis for axis, scorers in SCORERS.items() if axis in self.axes and self.scorer in scorers]
        if self.scorer is None or usable:
            return
        can = {axis: scorers for axis, scorers in SCORERS.items() if axis in self.axes}
        listed = "; ".join(f"{axis} takes {', '.join(scorers)}" for axis, scorers in can.items())
        raise ValueError(
            f"scorer={self.scorer} can't be used by {' or '.join(self.axes)}: "
            + (listed or "layers are chosen by layer_choice, and vocabulary by its corpus")
        )

    def _check_choices(self) -> None:
        self._check_budget()
        self._check_greedy()
        if self.layer_choice != "influence" and not isinstance(self.layers, int):
            raise ValueError(f"layer_choice={self.layer_choice} chooses a number of layers: give layers=N")
        if self.weights is None and self.weight_granularity != "element":
            raise ValueError(f"weight_granularity={self.weight_granularity} needs weights=F")
        if self.weight_pattern is not None:
            stay, of = PATTERNS[self.weight_pattern]
            if self.weights != 1 - stay / of:
                raise ValueError(
                    f"weight_pattern={self.weight_pattern} removes weights={1 - stay / of:g}, no other share"
                )
            if self.weight_granularity != "element":
                raise ValueError(f"weight_pattern={self.weight_pattern} goes with weight_granularity=element only")
        if self.recover == "none" and (self.recover_data is not None or self.recover_rate is not None):
            raise ValueError("recover_data and recover_rate need recover=finetune or recover=distill")
        if self.recover == "none" and self.gradient_checkpointing:
            raise ValueError("gradient_checkpointing needs recover=finetune or recover=distill")
        if self.engine == "textpruner":
            foreign = [axis for axis in self.axes if axis in ("layers", "weights")]
            if foreign:
                raise ValueError(f"engine textpruner has no pruner for {' or '.join(foreign)}: leave the engine out")
            if self.scorer not in (None, "taylor", "random"):
                raise ValueError(f"engine textpruner scores by taylor or random, not by {self.scorer}")

    def _check_greedy(self) -> None:
        if not self.greedy:
            if self.candidates is not None:
                raise ValueError("candidates goes with greedy_layers=N or keep_performance=F")
            return
        name = next(name for name in GREEDY if getattr(self, name) is not None)
        foreign = [axis for axis in self.axes if axis not in GREEDY]
        if foreign:
            why = "are two ways to choose layers: give one" if foreign[0] == "layers" else "don't go together yet"
            hint = "" if foreign[0] == "layers" else f": prune the search's checkpoint by {foreign[0]} in a second job"
            raise ValueError(f"{name} and {foreign[0]} {why}{hint}")
        if self.engine != "native":
            raise ValueError(f"engine {self.engine} has no greedy search: leave the engine out")
        if self.even or self.iterations > 1:
            raise ValueError(f"{'even' if self.even else 'iterations'} goes with heads and ffn, not with {name}")

    def _check_budget(self) -> None:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if not given:
            return
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} are two budgets: give one")
        foreign = [name for name in ("heads", "ffn") if getattr(self, name) is not None]
        if foreign:
            raise ValueError(f"{given[0]} leaves the choice of heads and neurons to the solver: leave {foreign[0]} out")
        if self.engine != "native":
            raise ValueError(f"engine {self.engine} has no solver for {given[0]}: leave the engine out")
        if self.even or self.iterations > 1:
            wrong = "even" if self.even else "iterations"
            raise ValueError(f"{wrong} goes with heads and ffn, not with {given[0]}")

    @property
    def _refits(self) -> bool:
        """What ``refit`` is where the recipe doesn't say."""
        return self.engine == "native" and self.prunes_units

    @property
    def budget(self) -> str | None:
        """The field that says what the model may cost, where the solver chooses heads and neurons."""
        return next((name for name in BUDGETS if getattr(self, name) is not None), None)

    @property
    def greedy(self) -> bool:
        """Whether a greedy search chooses the layers."""
        return any(getattr(self, name) is not None for name in GREEDY)

    def without_layers(self, removed: Sequence[int]) -> Recipe:
        """The recipe of a candidate of this greedy search: these layers go, and the rest is recovered as here."""
        kept = {"recover", "recover_data", "recover_epochs", "recover_rate", "gradient_checkpointing", "seed"}
        return Recipe(layers=tuple(removed), **self.model_dump(include=kept))

    @property
    def prunes_units(self) -> bool:
        """Whether heads or neurons go."""
        return self.heads is not None or self.ffn is not None or self.budget is not None

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """The axes that the recipe prunes, in the order in which it does."""
        return tuple(axis for axis in AXES if getattr(self, axis) is not None)

    def scorer_of(self, axis: str) -> Scorer:
        """The recipe's scorer where ``axis`` (heads, ffn or weights) can use it, the axis's default elsewhere."""
        allowed = SCORERS[axis]
        return self.scorer if self.scorer in allowed else allowed[0]

    def document(self) -> dict[str, Any]:
        """The recipe as it is stored and shown: every field that differs from its default, and the seed."""
        return dict(self._document)

    @cached_property
    def _document(self) -> dict[str, Any]:
        document = self.model_dump(mode="json", exclude_defaults=True)
        if self.scorer == next((scorers[0] for axis, scorers in SCORERS.items() if axis in self.axes), None):
            document.pop("scorer", None)
        document.pop("refit", None)
        if self.refit != self._refits:
            document["refit"] = self.refit
        if self.greedy and self.recover == "none":
            document["recover"] = "none"
        return {**document, "seed": self.seed}

    @cached_property
    def canonical(self) -> str:
        """`document` as canonical JSON."""
        return canonical_json(self._document)

    @cached_property
    def digest(self) -> str:
        """Digest of what differs from the defaults: a later version's new field leaves old digests as they are."""
        return sha256_of(self.canonical)
