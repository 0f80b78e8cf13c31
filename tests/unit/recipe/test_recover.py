"""``recover`` and what goes with it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from prunectl.recipe import Recipe


def test_nothing_is_recovered_unless_asked_and_the_digest_stays() -> None:
    assert Recipe(heads=0.3).recover == "none"
    assert (
        Recipe(heads=0.3).digest
        == Recipe(heads=0.3, recover="none").digest
        != Recipe(heads=0.3, recover="distill").digest
    )


def test_checkpointing_that_is_off_is_no_part_of_a_jobs_row() -> None:
    off = Recipe.model_validate({"heads": 0.3, "recover": "distill", "gradient_checkpointing": False})
    assert "gradient_checkpointing" not in off.model_dump(exclude_none=True)
    assert (
        off == Recipe(heads=0.3, recover="distill") != Recipe(heads=0.3, recover="distill", gradient_checkpointing=True)
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"recover": "tune"},
        {"recover": "distill", "recover_epochs": 0},
        {"recover": "distill", "recover_rate": 0},
        {"recover_data": "builtin:python-docs"},
        {"recover_rate": 1e-4},
        {"gradient_checkpointing": True},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="recover"):
        Recipe.model_validate({"heads": 0.3, **fields})
