"""Families x axes: a job for each cell on a tiny seeded model; what ran stands in docs/families-table.md.

Every cell is submitted to the job service and run by the worker's pipeline (`benchmarks.local_jobs`). Its checkpoint is
then loaded in two further fresh processes, with prunectl (`load_pruned`) and without it (plain ``AutoModelFor…``, or with
the carried modelling file), and both must compute the same bits. A cell that is refused shows the refusal; one that
failed, or loads differently, is written as that.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.local_jobs import ROOT, LocalJobs, checkpoint_of
from benchmarks.reloading import Case, faults

PAGE = ROOT / "docs" / "families-table.md"
CORPUS = "the corpus"
AXES: dict[str, dict[str, Any]] = {
    "heads": {"heads": 0.5},
    "FFN": {"ffn": 0.5, "scorer": "activation"},
    "layers": {"layers": 1},
    "weights": {"weights": 0.5, "scorer": "wanda"},
    "2:4": {"weight_pattern": "2:4"},
    "vocabulary": {"vocab": CORPUS},
    "all": {"vocab": CORPUS, "layers": 1, "heads": 0.4, "ffn": 0.4, "weights": 0.3},
    "TextPruner": {"heads": 0.5, "ffn": 0.3, "engine": "textpruner"},
}
"""Column -> recipe. Models without a vocabulary leave it out of "all"."""
EVALUATION = {"max_samples": 8, "bench_seq": 16}
LAYERS = 3

PLAIN, CARRIED = "plain", "carried"
"""How a checkpoint was loaded without prunectl: by the stock class, or by the modelling file that it carries."""

_AUTO = {
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "image-classification": "AutoModelForImageClassification",
}


@dataclass(frozen=True)
class Cell:
    """One family and axis: how its job ended, and how its checkpoint loads."""

    family: str
    axis: str
    outcome: str
    """PLAIN or CARRIED where the job succeeded and loads in all its ways; else refused, failed or differs."""
    message: str = ""
    """Of a refusal or a fault."""
    parameters: tuple[int, int] | None = None
    """Before and after."""


def families() -> tuple[str, ...]:
    from support.models import EVERY_FAMILY

    return EVERY_FAMILY


def run(wanted: Sequence[str], axes: Sequence[str], home: Path, *, workers: int = 1) -> list[Cell]:
    """A job for each cell; ``home`` is an empty directory, and a process is forked for each of ``workers``."""
    from prunectl.errors import PrunectlError
    from support import pipeline
    from support.models import build, heads_of, texts

    queue = LocalJobs(home)
    # Few texts, so that even vocabularies of 400 entries have some that none needs; the corpus has the evaluated ones,
    # so that they tokenize alike.
    data = corpus = pipeline.upload(home, "\n".join(texts(14)))
    cells: dict[tuple[str, str], Cell] = {}
    jobs: dict[str, tuple[str, str]] = {}
    for family in wanted:
        model = build(home / "models" / family, family, heads_of(family)[0], layers=LAYERS)
        reads_text = family != "vit"
        for axis in axes:
            recipe = {key: corpus if value == CORPUS else value for key, value in AXES[axis].items()}
            if axis == "all" and not reads_text:
                del recipe["vocab"]
            evaluation = {**EVALUATION, **({"data": data, "max_length": 32} if reads_text else {})}
            try:
                jobs[queue.submit(model, recipe, evaluation)] = (family, axis)
            except PrunectlError as error:
                cells[family, axis] = Cell(family, axis, "refused", error.message)

    def tell(job: Any) -> None:
        print(f"{' '.join(jobs[job.id])}: {job.state}", file=sys.stderr, flush=True)

    ended = {jobs[name]: job for name, job in queue.run(workers=workers, tell=tell).items()}
    cells |= {place: _cell(*place, job) for place, job in ended.items()}
    cells |= _loaded_again({p: job for p, job in ended.items() if job.state == "succeeded"}, cells, home / "loaded")
    return [cells[family, axis] for family in wanted for axis in axes]


def outcomes(page: str) -> dict[tuple[str, str], str]:
    """(family, axis) -> plain, carried, refused, failed or differs, as a rendered page has them."""
    lines = page.split("## What each column is")[0].splitlines()
    header, _, *rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return {
        (row[0].strip("`"), axis): cell.split("<sup>")[0].split(" ")[0]
        for row in rows
        for axis, cell in zip(header[2:], row[2:], strict=True)
    }


def render(cells: Iterable[Cell], axes: Sequence[str], *, seconds: float) -> str:
    """The page: the table, then every refusal and fault in the system's own words."""
    from support.models import heads_of

    by_place = {(cell.family, cell.axis): cell for cell in cells}
    notes: dict[str, int] = {}
    lines = ["| family | task | " + " | ".join(axes) + " |", "|---" * (len(axes) + 2) + "|"]
    for family in dict.fromkeys(family for family, _ in by_place):
        shown = [_shown(by_place[family, axis], notes) for axis in axes]
        lines.append(f"| `{family}` | `{heads_of(family)[0]}` | " + " | ".join(shown) + " |")
    versions = ", ".join(f"{name} {version(name)}" for name in ("prunectl", "torch", "transformers", "textpruner"))
    return _PAGE.format(
        table="\n".join(lines),
        recipes="\n".join(f"| {axis} | `{_flags(AXES[axis])}` |" for axis in axes),
        refusals="\n".join(f"{number}. {message}" for message, number in notes.items()) or "None.",
        ran=sum(cell.outcome in (PLAIN, CARRIED) for cell in by_place.values()),
        cells=len(by_place),
        refused=sum(cell.outcome == "refused" for cell in by_place.values()),
        layers=LAYERS,
        date=datetime.date.today().isoformat(),
        versions=f"Python {sys.version.split()[0]}, {versions}",
        minutes=f"{seconds / 60:.0f}",
    )


def _cell(family: str, axis: str, job: Any) -> Cell:
    if job.state != "succeeded":
        assert job.failure is not None
        return Cell(family, axis, "failed", f"{job.failure.code}: {job.failure.message}")
    counts = job.result["metrics"]["parameters"]
    carried = "auto_map" in json.loads((checkpoint_of(job) / "config.json").read_text())
    return Cell(family, axis, CARRIED if carried else PLAIN, parameters=(counts["before"], counts["after"]))


def _loaded_again(
    jobs: Mapping[tuple[str, str], Any], cells: Mapping[tuple[str, str], Cell], work: Path
) -> dict[tuple[str, str], Cell]:
    """The cells of ``jobs``; those that don't load with and without prunectl to the same bits say so."""
    from safetensors.torch import save_file

    from prunectl.checkpoints import load_pruned
    from support.models import heads_of
    from support.pruning import batches

    work.mkdir()
    cases = []
    for number, (place, job) in enumerate(jobs.items()):
        inputs = work / f"{number}.safetensors"
        save_file(batches(load_pruned(checkpoint_of(job)), 1)[0], inputs)
        auto = _AUTO[heads_of(place[0])[0]]
        cases.append(Case(str(checkpoint_of(job)), auto, cells[place].outcome == CARRIED, str(inputs)))
    return {
        place: cells[place] if fault is None else replace(cells[place], outcome="differs", message=fault)
        for place, fault in zip(jobs, faults(cases, work), strict=True)
    }


def _shown(cell: Cell, notes: dict[str, int]) -> str:
    if cell.outcome in (PLAIN, CARRIED):
        assert cell.parameters is not None
        before, after = cell.parameters
        return f"{cell.outcome} {after / before - 1:+.0%}" if after != before else cell.outcome
    number = notes.setdefault(cell.message, len(notes) + 1)
    return f"{cell.outcome}<sup>{number}</sup>"


def _flags(recipe: Mapping[str, Any]) -> str:
    return " ".join(
        f"--{name.replace('_', '-')} {'corpus.txt' if value == CORPUS else value}" for name, value in recipe.items()
    )


_PAGE = """\
# Families and axes, as they ran

Made by `make table` (`python -m benchmarks.families`), not by hand. Each cell is a job: submitted to the job service and run by
the worker's pipeline to its end, on an untrained seeded model of the family with {layers} layers and a tokenizer of the family's kind.

**plain** and **carried** say that the job `succeeded`, its own reload stage included, and that its checkpoint then loaded in two
more fresh processes that computed the same bits: one by `load_pruned`, one that can't import prunectl

- **plain**: by the stock `AutoModelFor…`,
- **carried**: by `AutoModelFor…` with `trust_remote_code=True` and the modelling file that the checkpoint carries.

The percentage is the change in parameters; weights that are set to zero keep their place. {ran} of {cells} cells ran, {refused} are
refused at submission, in the words below the table.

{table}

## What each column is

| column | recipe |
|---|---|
{recipes}

`all` leaves the vocabulary out where there is none (`vit`).

## Refused or failed

{refusals}

{date}; {versions}; {minutes} min.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__.split("\n")[0])
    parser.add_argument("--families", default="", help="these only, comma-separated")
    parser.add_argument("--axes", default="", help="these columns only, comma-separated")
    parser.add_argument("--workers", type=int, default=2, help="jobs at a time")
    parser.add_argument(
        "--output",
        type=Path,
        help="a file for the page; by default docs/families-table.md for a whole table, else stdout",
    )
    given = parser.parse_args(arguments)
    wanted = [name for name in families() if not given.families or name in given.families.split(",")]
    axes = [axis for axis in AXES if not given.axes or axis in given.axes.split(",")]
    whole = len(wanted) == len(families()) and len(axes) == len(AXES)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="prunectl-families-") as home:
        cells = run(wanted, axes, Path(home), workers=given.workers)
    page = render(cells, axes, seconds=time.monotonic() - started)
    output = given.output or (PAGE if whole else None)
    if output is None:
        print(page)
    else:
        output.write_text(page)
    bad = [cell for cell in cells if cell.outcome not in (PLAIN, CARRIED, "refused")]
    for cell in bad:
        print(f"{cell.family}, {cell.axis}: {cell.outcome}: {cell.message}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
