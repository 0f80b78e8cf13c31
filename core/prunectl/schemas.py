"""The wire types: what the HTTP API takes and gives, and what ``-f recipe.yaml`` holds. No I/O, no torch, no SQL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from prunectl.conditions import QUALITY_METRICS, parse_gate
from prunectl.recipe import Recipe, canonical_json, sha256_of

SCHEMA_VERSION = 1

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Device = Literal["auto", "cpu", "gpu"]
TaskName = Literal[
    "auto",
    "fill-mask",
    "text-classification",
    "token-classification",
    "question-answering",
    "text-generation",
    "text2text-generation",
    "image-classification",
    "feature-extraction",
]
StageName = Literal[
    "fetch", "baseline", "score", "prune", "recover", "save", "reload", "evaluate", "benchmark", "export"
]
ACTIVE_STATES: tuple[State, ...] = ("queued", "running")
TERMINAL_STATES: tuple[State, ...] = ("succeeded", "failed", "cancelled")

BUILTIN_TEXT = "builtin:python-docs"
ColumnName = Literal[
    "text",
    "text_pair",
    "label",
    "tokens",
    "tags",
    "question",
    "context",
    "answers",
    "query",
    "anchor",
    "positive",
    "image",
]
"""What columns of data are called, unless --column says otherwise."""
STORED = {"stored": True}
"""The context that a job's row is validated in, which was accepted when it was queued."""
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|w)?\s*$")
_SECONDS = {None: 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TAG_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")


def parse_duration(text: str | float) -> float:
    """Seconds of ``"90"``, ``"90s"``, ``"10m"``, ``"2h"``, ``"2d"`` or ``"1w"``; raises ValueError otherwise."""
    if isinstance(text, (int, float)):
        return float(text)
    match = _DURATION.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write a number and s, m, h, d or w, such as 90s, 10m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


class Wire(BaseModel):
    """Base of every body that comes in: an unknown field is an error, not a surprise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def column_names(columns: Iterable[str]) -> dict[str, str]:
    """``text=sentence`` and its like as {our name of a column: the files'}."""
    return dict(pair.split("=", 1) for pair in columns)


class Evaluation(Wire):
    """On what the model is scored and measured, before and after.

    ``data`` and ``calibration`` are a local file's ``upload:sha256:<hex>/<name>`` reference, a Hub data set id, or
    ``builtin:python-docs``. ``max_samples`` counts evaluation examples; calibration takes as many again, never the same.
    """

    data: str | None = None
    calibration: str | None = None
    columns: tuple[Annotated[str, Field(max_length=300)], ...] | None = None
    """What columns of the data files are called where it is something else: ``text=sentence``; or a mapping."""
    task: TaskName = "auto"
    metric: Annotated[str, Field(json_schema_extra={"enum": list(QUALITY_METRICS)})] | None = None
    max_samples: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_length: Annotated[int, Field(ge=4, le=131072)] | None = None
    max_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    min_speedup: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    gate: tuple[str, ...] = ()
    """Further conditions such as ``eval_f1>=0.9``; each is decided by its confidence bound."""
    selection: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] | None = None
    """Share of the training examples that a greedy search chooses its layers by; None: 0.15, as published."""
    bench_batch: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = (1,)
    bench_seq: Annotated[int, Field(ge=4, le=131072)] | None = None
    """Tokens of a timed text; None: 128, or as many as the model takes."""

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str | None, info: ValidationInfo) -> str | None:
        """``f1`` is ``eval_f1``. A row that was queued before a name was refused can still be read: see `STORED`."""
        if value is None or value in QUALITY_METRICS:
            return value
        if f"eval_{value}" in QUALITY_METRICS:
            return f"eval_{value}"
        if info.context != STORED:
            raise PydanticCustomError("literal_error", "Input should be a metric of quality")
        return value

    @field_validator("gate", mode="before")
    @classmethod
    def _split_conditions(cls, value: Any) -> Any:
        texts = (value,) if isinstance(value, str) else tuple(value or ())
        return tuple(str(wanted) for text in texts for wanted in parse_gate(str(text)))

    @field_validator("columns", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return tuple(f"{ours}={theirs}" for ours, theirs in sorted(value.items()))
        return (value,) if isinstance(value, str) else value

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for pair in value or ():
            ours, _, theirs = pair.partition("=")
            if ours not in get_args(ColumnName) or not theirs:
                raise ValueError(
                    f"{pair!r} names no column: write OURS=NAME, where OURS is {', '.join(get_args(ColumnName))}"
                )
        return value

    @property
    def column_names(self) -> dict[str, str]:
        """Our name of a column -> the files'."""
        return column_names(self.columns or ())

    @field_validator("bench_batch", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(","))
        return (value,) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _some_batch(self) -> Self:
        if not self.bench_batch:
            raise ValueError("bench_batch needs at least one batch size")
        return self


class Environment(Wire):
    """The submitting command's surroundings; honoured by the embedded stack only, where submitter and worker are one user.

    Paths here are absolute. The Hub token is never part of it: it travels in a header and stays in a 0600 file.
    """

    cwd: str
    model_path: tuple[str, ...] = ()
    hf_home: str | None = None
    hf_endpoint: str | None = None
    hf_hub_offline: bool = False


class JobCreate(Wire):
    """The body of ``POST /v1/jobs`` and of ``POST /v1/jobs:plan``."""

    model: Annotated[str, Field(min_length=1, max_length=4096)]
    recipe: Recipe
    evaluation: Evaluation = Evaluation()
    device: Device = "auto"
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher runs first; 0 is usual."""
    name: Annotated[str, Field(max_length=200)] | None = None
    tags: dict[str, Annotated[str, Field(max_length=200)]] = {}
    timeout_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    force: bool = False
    """Queue a new job even where an identical one is queued, running or succeeded."""
    environment: Environment | None = None

    @model_validator(mode="after")
    def _selects(self) -> Self:
        searched = self.recipe.greedy or isinstance(self.recipe.layers, tuple)
        if self.evaluation.selection is not None and not searched:
            raise ValueError("selection is what a greedy search chooses layers by: it goes with greedy_layers=N")
        return self

    @field_validator("tags")
    @classmethod
    def _tag_keys(cls, tags: dict[str, str]) -> dict[str, str]:
        if len(tags) > 64:
            raise ValueError("at most 64 tags")
        for key in tags:
            if not _TAG_KEY.match(key):
                raise ValueError(f"{key!r} is not a tag name: letters, digits, '.', '_', '/' and '-', at most 63")
        return tags

    @field_validator("timeout_seconds", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value


SPEC_FIELDS: dict[str, tuple[str, ...]] = {
    # Where each name of a flat recipe file (the names of the flags) lives in a JobCreate.
    "recipe": tuple(Recipe.model_fields),
    "evaluation": tuple(Evaluation.model_fields),
    "job": ("model", "device", "priority", "name", "tags", "timeout_seconds", "retries"),
}


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """A flat recipe file (``model: …, heads: 0.3, data: …``) as the nested body of ``POST /v1/jobs``.

    ``timeout`` stands for ``timeout_seconds``, ``tag`` for ``tags`` and dashes for underscores. Unknown names are kept at the top, where
    validation refuses them by name.
    """
    body: dict[str, Any] = {"recipe": {}, "evaluation": {}}
    for raw, value in flat.items():
        name = raw.replace("-", "_")
        name = {"timeout": "timeout_seconds", "tag": "tags", "column": "columns"}.get(name, name)
        if name == "no_refit":
            name, value = "refit", not value
        if name in SPEC_FIELDS["recipe"]:
            body["recipe"][name] = value
        elif name in SPEC_FIELDS["evaluation"]:
            body["evaluation"][name] = value
        else:
            body[name] = value
    return body


def spec_of(job: JobCreate) -> dict[str, Any]:
    """What a job's row keeps of its body.

    What is unset stays out: an older worker knows no fields that came later, and refuses them.
    """
    return job.model_dump(mode="json", exclude_none=True, exclude={"force"})


def flatten(job: JobCreate) -> dict[str, Any]:
    """The inverse of `nest`: the flat form that ``prunectl spec`` prints, defaults left out."""
    flat: dict[str, Any] = {"model": job.model, **job.recipe.document()}
    flat |= job.evaluation.model_dump(mode="json", exclude_defaults=True)
    flat |= job.model_dump(
        mode="json", exclude_defaults=True, include={"device", "priority", "name", "tags", "retries"}
    )
    if job.timeout_seconds is not None:
        flat["timeout"] = f"{Decimal(str(job.timeout_seconds)).normalize():f}s"
    return flat


class Measure(BaseModel):
    """One metric before and after; what is estimated also has its standard error and the number of examples.

    ``stderr`` is that of ``after``; ``difference_stderr`` that of ``after - before`` where both were measured on the
    same examples, which is smaller as most of what varies from text to text varies alike in both.
    """

    before: int | float | None = None
    after: int | float | None = None
    stderr: float | None = None
    n: int | None = None
    difference_stderr: float | None = None


class ErrorView(BaseModel):
    code: str
    message: str
    hint: str | None = None
    retryable: bool = False


class ModelRef(BaseModel):
    name: str
    digest: str | None = None


class Condition(BaseModel):
    """``bound`` is the one-sided confidence bound of ``value`` that the limit was held against; None: it is exact."""

    metric: str
    op: str
    limit: float
    value: float | None
    passed: bool
    bound: float | None = None
    confidence: float | None = None


class Gate(BaseModel):
    passed: bool
    conditions: list[Condition]


class StageRecord(BaseModel):
    name: StageName
    seconds: float
    reused: bool = False


class BlockStructure(BaseModel):
    """What one block kept. ``heads_kept`` and ``ffn_kept`` are of the original model's numbering and count.

    A decoder layer with cross-attention is two blocks; its feed-forward stands in the first, and the cross-attention's
    ``ffn_kept`` and ``ffn_total`` are 0. Layers that share their weights are one block.
    """

    stack: Literal["encoder", "decoder"] = "encoder"
    index: int
    attention: Literal["self", "cross"] = "self"
    heads_kept: list[int]
    heads_total: int
    ffn_kept: int
    ffn_total: int
    head_scores: list[float] | None = None
    """Importance of each of ``heads_total``, as first ranked: before anything of this block went. None: not ranked."""
    ffn_scores: list[float] | None = None
    """The same of the neurons: least, lower quartile, median, upper quartile, most."""


class Structure(BaseModel):
    """What is left. ``layers`` has the blocks of the layers that stayed, by the original model's numbers."""

    layers: list[BlockStructure]
    removed_layers: list[int] = []
    """Numbers of the layers that are gone, counted through the stacks: an encoder's first, then the decoder's."""
    vocabulary_kept: int | None = None
    vocabulary_total: int | None = None
    weights_zeroed: int | None = None
    weights_total: int | None = None
    """Weights that could have been zeroed: those of the attention and feed-forward matrices."""


class LedgerRow(BaseModel):
    """Size and quality after one step of a recipe; the first row, ``original``, is the unpruned model."""

    step: Literal["original", "vocabulary", "layers", "heads+ffn", "weights", "recover", "quantize"]
    parameters: int
    nonzero_parameters: int
    model_bytes: int
    """Measured of the first and the last row's files, else the size of the tensors."""
    metric: str
    value: float | None
    stderr: float | None = None
    n: int | None = None


class CurvePoint(BaseModel):
    """One epoch of a learning curve; epoch 0 is before any training."""

    epoch: int
    training_loss: float | None = None
    validation_loss: float


class CandidateRow(BaseModel):
    """One candidate of a greedy step: the job that tried it, and how good it was on the examples that are chosen by."""

    layer: int
    job_id: str
    value: float
    stderr: float | None = None
    n: int | None = None
    curve: list[CurvePoint] = []
    cpu_seconds: float | None = None


class GreedyStep(BaseModel):
    """One step of a greedy search: the layer that it dropped, and every layer that it tried.

    ``selection`` is what it was chosen by, ``held_out`` the metric on examples that nothing was chosen by, ``kept`` the
    share of the unpruned model's that this is.
    """

    step: int
    layer: int
    removed: list[int]
    job_id: str
    selection: Measure
    held_out: Measure
    kept: float
    accepted: bool
    """False: the first step that fell below ``keep_performance``; the result is the step before it."""
    candidates: list[CandidateRow]


class SearchRecord(BaseModel):
    """A greedy search of layers. ``sweep_id`` holds its candidates; layers are numbered as in the original model."""

    metric: str
    sweep_id: str | None = None
    steps: list[GreedyStep]
    removed: list[int]
    """The layers that the result lacks."""
    trainings: int
    """Candidates that were looked at; those that another search had trained before are among them."""
    cpu_seconds: float
    """Of all candidates together."""


class Result(BaseModel):
    """What a runner hands to the supervisor when every stage is done."""

    model_digest: str
    metrics: dict[str, Measure]
    stages: list[StageRecord]
    structure: Structure
    artifacts: dict[str, str]
    gate: Gate | None = None
    ledger: list[LedgerRow] = []
    selection: dict[str, Measure] = {}
    """Of a greedy search's candidate: its metrics on the examples that are chosen by."""
    search: SearchRecord | None = None
    """Of a greedy search: step by step."""
    labels: Literal["data", "model", "text"] | None = None
    """Where the loss's labels came from: the data, the unpruned model's own argmax, or the text itself (masked words)."""
    conditions: dict[str, Any] = {}
    """The measurement's circumstances: batch, length, threads, device name, library versions, task, data digest, seed."""


class JobView(BaseModel):
    """A job as JSON; ``docs/`` and the contract of the command line describe each field."""

    schema_version: int = SCHEMA_VERSION
    id: str
    state: State
    stage: StageName | None = None
    progress: float = 0.0
    name: str | None = None
    sweep_id: str | None = None
    owner: str
    tags: dict[str, str] = {}
    model: ModelRef
    recipe: dict[str, Any]
    recipe_digest: str
    attention: dict[str, Any] | None = None
    """Of a job that draws another's attention: ``of``, ``text``, ``layers``. Model and recipe are then the other's."""
    evaluation: dict[str, Any]
    queue: str
    priority: int
    attempt: int
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    worker: str | None = None
    device: str
    cancel_requested: bool = False
    error: ErrorView | None = None
    gate: Gate | None = None
    ledger: list[LedgerRow] = []
    waits_for: str | None = None
    """The sweep whose jobs must end before this one goes on: a greedy search and its candidates."""
    selection: dict[str, dict[str, float | int | None]] = {}
    search: SearchRecord | None = None
    labels: str | None = None
    metrics: dict[str, dict[str, float | int | None]] = {}
    stages: list[StageRecord] = []
    structure: Structure | None = None
    artifacts: dict[str, str] = {}
    conditions: dict[str, Any] = {}


class JobPage(BaseModel):
    schema_version: int = SCHEMA_VERSION
    items: list[JobView]
    next_cursor: str | None = None


class Plan(BaseModel):
    """What a job would do, from ``config.json`` alone. Counts of units and parameters; MACs at batch 1 x ``bench_seq``."""

    schema_version: int = SCHEMA_VERSION
    model: ModelRef
    family: str
    task: str
    recipe: dict[str, Any]
    recipe_digest: str
    heads_total: int
    heads_removed: int
    ffn_total: int
    ffn_removed: int
    layers_total: int = 0
    layers_removed: int = 0
    weights_total: int = 0
    """Weights that can be zeroed, of what the other axes leave."""
    weights_zeroed: int = 0
    parameters: Measure
    macs: Measure
    queue: str
    identical_job: str | None = None
    notes: list[str] = []


class InspectedStack(BaseModel):
    """One stack of layers, all alike. ``kv_heads`` are fewer than ``heads`` where several query heads share a key."""

    stack: Literal["encoder", "decoder"]
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    cross_attention: bool
    shared: bool
    """The layers are one set of weights, applied again and again."""


class Saving(BaseModel):
    """What an axis could take at most: all of its units, or all layers but one of each stack."""

    axis: str
    units: int
    """How many there are."""
    parameters: int
    """How many parameters go with them; for weights, how many can be zero."""
    share: float
    """Of all parameters of the model."""
    note: str | None = None


class Inspection(BaseModel):
    """What a model is made of, from ``config.json`` alone. Counts of parameters, tied weights once."""

    schema_version: int = SCHEMA_VERSION
    model: ModelRef
    family: str
    architecture: str
    stacks: list[InspectedStack]
    parameters: int
    parts: dict[str, int]
    """embeddings, attention, ffn, norms (of the layers), head (what stands on top; without what is tied)."""
    savings: list[Saving]


class ModelInspect(Wire):
    """The body of ``POST /v1/models:inspect``."""

    model: Annotated[str, Field(min_length=1, max_length=4096)]
    environment: Environment | None = None


class WorkerView(BaseModel):
    name: str
    host: str
    pid: int
    queues: list[str]
    slots: int
    device: str
    version: str
    started_at: str
    seen_at: str
    alive: bool
    running: list[str] = []


class QueueView(BaseModel):
    name: str
    queued: int
    running: int
    workers: int
    slots: int


class ModelView(BaseModel):
    schema_version: int = SCHEMA_VERSION
    name: str
    path: str | None = None
    family: str | None = None
    architecture: str | None = None
    task: str | None = None
    layers: int | None = None
    heads: int | None = None
    ffn: int | None = None
    parameters: int | None = None
    model_bytes: int | None = None
    prunable: bool
    reason: str | None = None


class ProblemView(BaseModel):
    """An RFC 9457 problem document, with our extension members."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
    code: str
    hint: str | None = None
    errors: list[dict[str, Any]] = []


def job_digest(owner: str, model_identity: str, body: JobCreate) -> str:
    """What makes two jobs identical: owner, exact model, recipe, evaluation and device; not name, tags or priority."""
    # Canonical JSON of an object with these keys, put together of parts: thousands of a sweep's jobs share the evaluation,
    # and a recipe has encoded itself for its own digest.
    device, model, recipe = canonical_json(body.device), canonical_json(model_identity), body.recipe.canonical
    evaluation = f'"evaluation":{_canonical_evaluation(body.evaluation)}'
    return sha256_of(
        f'{{"device":{device},{evaluation},"model":{model},"owner":{canonical_json(owner)},"recipe":{recipe}}}'
    )


@lru_cache(maxsize=64)
def _canonical_evaluation(evaluation: Evaluation) -> str:
    return canonical_json(evaluation.model_dump(mode="json", exclude_defaults=True))
