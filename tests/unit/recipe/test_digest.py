"""The digest that makes two jobs identical is that of one document: it stays what it was, or old jobs are queued again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunectl.recipe import digest_of
from prunectl.schemas import JobCreate, job_digest

BODIES: tuple[dict[str, Any], ...] = (
    {"recipe": {"heads": 0.3}},
    {"recipe": {"layers": [0, 3], "seed": 7}, "device": "gpu"},
    {"recipe": {"speedup": 2}, "evaluation": {"max_samples": 9, "max_drop": 0.01, "columns": ["text=s\u00e4tze"]}},
)


@given(st.sampled_from(BODIES), st.text(max_size=20), st.text(max_size=20))
def test_a_jobs_digest_is_that_of_the_canonical_document(body: dict[str, Any], owner: str, identity: str) -> None:
    job = JobCreate(model="m", **body)
    whole = {
        "owner": owner,
        "model": identity,
        "recipe": job.recipe.document(),
        "evaluation": job.evaluation.model_dump(mode="json", exclude_defaults=True),
        "device": job.device,
    }
    assert job_digest(owner, identity, job) == digest_of(whole)


@pytest.mark.parametrize(
    ("body", "digest"),
    [
        (BODIES[0], "sha256:368f134277dd64ca9e64cd414afab5fae1f7682c82cb35f9284efb89683d0cf5"),
        (BODIES[1], "sha256:89d4582bd466f06c91bb7b96d541f0e346c608fcf13448754ce16ccd46c77c02"),
    ],
)
def test_digests_are_those_of_jobs_already_stored(body: dict[str, Any], digest: str) -> None:
    assert job_digest("ada", "directory:1", JobCreate(model="m", **body)) == digest
