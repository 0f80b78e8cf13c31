"""Attention pictures: what is asked for, how it is queued, and what is found. Wire types; no I/O, no torch.

A picture of a job that has ended is a job of its own, since only a worker has the checkpoint and what can run it. Its
row holds an `AttentionJob` where others hold a `prunectl.schemas.JobCreate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from prunectl.recipe import MAX_LAYERS, digest_of
from prunectl.schemas import STORED, Environment, JobCreate, Wire

TAG = "attention-of"
"""The tag of a picture's job; its value is the id of the job that was pictured."""
PAGE = "attention.html"
MAX_TEXT = 2000
PRIORITY = 100
"""Before what is usual: somebody waits for it, and it takes seconds."""
Part = Literal["encoder", "decoder", "cross"]
PARTS: tuple[Part, ...] = ("encoder", "decoder", "cross")


class AttentionRequest(Wire):
    """The body of ``POST /v1/jobs/{ref}/attention``. ``layers``: numbers in the original model; None: all."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    layers: Annotated[tuple[Annotated[int, Field(ge=0, lt=MAX_LAYERS)], ...], Field(min_length=1)] | None = None
    environment: Environment | None = None

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("a text of spaces alone shows nothing")
        return text


class Pictured(Wire):
    """The job that is pictured: its id, the name of its checkpoint in shared storage and its model's digest."""

    job: str
    checkpoint: str
    model_digest: str
    text: str
    layers: tuple[int, ...] | None = None


class AttentionJob(JobCreate):
    """What a worker is asked to draw. Never part of a request, which could name anybody's checkpoint."""

    attention: Pictured

    def digest_for(self, owner: str) -> str:
        """What makes two pictures identical: owner, job, text and layers."""
        return digest_of({"owner": owner, "attention": self.attention.model_dump(mode="json")})


def read_spec(spec: Mapping[str, Any]) -> JobCreate:
    """A job's row, read as what it is."""
    kind = AttentionJob if "attention" in spec else JobCreate
    return kind.model_validate(spec, context=STORED)


class AttentionLayer(BaseModel):
    """One layer of a part.

    ``index`` and ``heads`` are the original model's numbers; ``heads`` names those that are there, and ``weights``
    ``[heads, queries, keys]`` has theirs, in this order.
    """

    index: int
    heads: list[int]
    heads_total: int
    weights: list[list[list[float]]]


class AttentionPart(BaseModel):
    """The self-attention of a stack, or the cross-attention of a decoder. Rows are queries, columns are keys."""

    part: Part
    queries: list[str]
    keys: list[str]
    layers: list[AttentionLayer]


class AttentionFound(BaseModel):
    """One model reading one text; ``cut`` says that the text had more tokens than are shown."""

    parts: list[AttentionPart]
    cut: bool = False
