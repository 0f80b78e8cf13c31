"""Heads of different kinds of attention at different fractions, in every form that a recipe is written in."""

from __future__ import annotations

from typing import Any

import pytest

from prunectl.errors import InvalidInput
from prunectl.recipe import Recipe
from prunectl.schemas import flatten, nest
from prunectl.validation import parse_job

KINDS = {"encoder": 0.3, "cross": 0.5}


@pytest.mark.parametrize("given", [KINDS, "encoder=0.3,cross=0.5", " cross = 0.5 , encoder=0.30"])
def test_the_flag_the_file_and_the_body_mean_the_same(given: Any) -> None:
    recipe = Recipe(heads=given)
    assert recipe.heads == KINDS
    assert recipe.digest == Recipe(heads=KINDS).digest == Recipe(**recipe.document()).digest


def test_a_plain_fraction_is_what_it_was() -> None:
    assert Recipe(heads="0.3").heads == 0.3 and Recipe(heads="0.3").digest == Recipe(heads=0.3).digest
    assert Recipe(heads={"encoder": 0.3}).digest != Recipe(heads=0.3).digest


def test_a_flat_file_goes_there_and_back() -> None:
    job = parse_job(nest({"model": "m", "heads": "encoder=0.3,cross=0.5"}))
    assert parse_job(nest(flatten(job))) == job and flatten(job)["heads"] == KINDS


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("encoder=1.5", "a number >= 0 and < 1"),
        ("encoder=x", "a number >= 0 and < 1"),
        ("middle=0.3", "'middle' is no kind of attention: there are encoder, decoder, cross"),
        ("encoder=0.1,encoder=0.2", "names a kind of attention twice"),
        ("encoder", "a number >= 0 and < 1"),
        ({}, "heads"),
        ({"encoder": 30}, "a number >= 0 and < 1"),
    ],
)
def test_what_is_wrong_is_named(given: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_job({"model": "m", "recipe": {"heads": given}})
    assert caught.value.field == "heads" and says in caught.value.message
