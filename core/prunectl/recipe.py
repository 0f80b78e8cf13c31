"""A recipe: what to remove from a model and how. A frozen value, the same in the CLI, the API, YAML and the database."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scorer = Literal["taylor", "random"]
Engine = Literal["native", "textpruner"]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, so digests can be compared."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """``sha256:<hex>`` of a JSON-serialisable value."""
    return "sha256:" + hashlib.sha256(canonical_json(value).encode()).hexdigest()


class Recipe(BaseModel):
    """What to remove and how.

    All fractions say how much is removed: ``heads=0.3`` removes floor(0.3 x all heads of the model), ranked over the
    whole model; with ``even``, floor(0.3 x the layer's) in each layer. ``min_heads`` and ``min_ffn`` are kept in each layer.
    ``iterations`` prunes in that many steps, scoring again after each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: Fraction | None = None
    ffn: Fraction | None = None
    scorer: Scorer = "taylor"
    engine: Engine = "native"
    iterations: Annotated[int, Field(ge=1, le=1000)] = 1
    even: bool = False
    multiple_of: Annotated[int, Field(ge=1, le=65536)] = 1
    min_heads: Annotated[int, Field(ge=0, le=65536)] = 0
    min_ffn: Annotated[int, Field(ge=0, le=1048576)] = 0
    refit: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @model_validator(mode="after")
    def _removes_something(self) -> Self:
        if self.heads is None and self.ffn is None:
            raise ValueError("nothing to remove: give heads or ffn (for example heads=0.3)")
        if self.refit:
            raise ValueError("refit is not available in this version; leave it out or use no-refit")
        return self

    def document(self) -> dict[str, Any]:
        """The recipe as it is stored and shown: every field that differs from its default, and the seed."""
        return {**self.model_dump(exclude_defaults=True), "seed": self.seed}

    @property
    def digest(self) -> str:
        """Digest of what differs from the defaults: a later version's new field leaves old digests as they are."""
        return digest_of(self.document())
