"""docs/families-table.md says what runs: no family is missing, refusals are today's, and cells that run again agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import families
from benchmarks.families import AXES, CARRIED, CORPUS, PLAIN

from prunectl.errors import InvalidInput
from prunectl.pruning import axes, planning
from prunectl.pruning.architectures import FAMILIES
from prunectl.recipe import Recipe
from support.models import EVERY_FAMILY, config, heads_of

KEEPS_SHAPES = ("layers", "weights", "2:4", "vocabulary")


@pytest.fixture(scope="module")
def kept() -> dict[tuple[str, str], str]:
    return families.outcomes(families.PAGE.read_text(encoding="utf-8"))


def refused(family: str, axis: str) -> bool:
    recipe = dict(AXES[axis])
    if recipe.get("vocab") == CORPUS:
        recipe["vocab"] = "builtin:python-docs"
        if family == "vit" and axis == "all":
            del recipe["vocab"]
    described = json.loads(config(family, heads_of(family)[0], layers=families.LAYERS).to_json_string())
    try:
        planning.check_engine(family, Recipe(**recipe))
        axes.check_vocabulary(described, Recipe(**recipe))
        axes.plan(described, Recipe(**recipe))
    except InvalidInput:
        return True
    return False


def test_every_family_and_axis_has_a_cell(kept: dict[tuple[str, str], str]) -> None:
    assert set(FAMILIES) == set(EVERY_FAMILY)
    assert set(kept) == {(family, axis) for family in FAMILIES for axis in AXES}


def test_what_is_refused_is_refused_today_and_all_else_ran(kept: dict[tuple[str, str], str]) -> None:
    expected = {
        (family, axis): "refused" if refused(family, axis) else PLAIN if axis in KEEPS_SHAPES else CARRIED
        for family, axis in kept
    }
    assert kept == expected


@pytest.mark.slow
def test_cells_that_run_again_agree(kept: dict[tuple[str, str], str], tmp_path: Path) -> None:
    wanted, columns = ("deberta-v2", "t5", "vit"), ("FFN", "layers", "vocabulary", "all", "TextPruner")
    cells = families.run(wanted, columns, tmp_path, workers=2)
    assert {(cell.family, cell.axis): cell.outcome for cell in cells} == {
        place: outcome for place, outcome in kept.items() if place[0] in wanted and place[1] in columns
    }
