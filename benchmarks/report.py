"""What every benchmark ends with: a table for people, and one JSON object as the last line for scripts.

A `Measurement` keeps each round of ours and, where there is one, of its peer; median and spread are worked out here, so
that no benchmark rounds or selects on its own.
"""

from __future__ import annotations

import json
import operator
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table

_OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Measurement:
    """One line of the table. ``ours`` and ``theirs`` have a number for each round, in ``unit``.

    ``target`` such as ``">= 5"`` is held against the ratio where ``target_is`` says so, else against our median.
    """

    measure: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    peer: str | None = None
    better: Literal["lower", "higher"] = "lower"
    target: str | None = None
    target_is: Literal["ours", "ratio"] = "ours"
    note: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.ours)

    @property
    def ratios(self) -> list[float]:
        """How many times better ours is, round by round where both have as many rounds."""
        if not self.theirs:
            return []
        if len(self.ours) == len(self.theirs):
            pairs = list(zip(self.ours, self.theirs, strict=True))
        else:
            pairs = [(self.median, statistics.median(self.theirs))]
        return [theirs / ours if self.better == "lower" else ours / theirs for ours, theirs in pairs]

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        sign, limit = self.target.split()
        value = statistics.median(self.ratios) if self.target_is == "ratio" else self.median
        return bool(_OPERATORS[sign](value, float(limit)))

    def as_json(self) -> dict[str, Any]:
        """As the contract of ``make bench-…`` has it; ``spread`` is the smallest and the largest round."""
        ratios = self.ratios
        rounds = ratios or list(self.ours)
        return {
            "measure": self.measure,
            "ours": self.median,
            "peer": self.peer,
            "theirs": statistics.median(self.theirs) if self.theirs else None,
            "unit": self.unit,
            "ratio": statistics.median(ratios) if ratios else None,
            "spread": [min(rounds), max(rounds)],
            "rounds": len(self.ours),
            "target": None if self.target is None else f"{self.target}{' x' if self.target_is == 'ratio' else ''}",
            "met": self.met,
            "note": self.note,
        }


@dataclass
class Report:
    """The results of one benchmark, with the machine and the versions that they hold for."""

    benchmark: str
    packages: Sequence[str] = ()
    results: list[Measurement] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def add(self, measurement: Measurement) -> None:
        self.results.append(measurement)
        print(
            f"{self.benchmark}: {measurement.measure}: {shown(measurement.median)} {measurement.unit}", file=sys.stderr
        )

    def as_json(self) -> dict[str, Any]:
        installed = {name: metadata.version(name) for name in self.packages}
        return {
            "benchmark": self.benchmark,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": {"python": platform.python_version(), **installed, **self.versions},
            "results": [result.as_json() for result in self.results],
        }

    def finish(self, output: Path | None = None) -> None:
        """Print the table and the JSON line; write the JSON to ``output`` as well where one is given."""
        document = self.as_json()
        table = Table(title=f"{self.benchmark} · {document['at']} · {document['machine']}", title_justify="left")
        for heading in ("measure", "ours", "spread", "peer", "theirs", "ratio", "target", "met"):
            table.add_column(heading, justify="left" if heading in ("measure", "peer", "target") else "right")
        for result in document["results"]:
            low, high = result["spread"]
            table.add_row(
                result["measure"] + (f"\n  {result['note']}" if result["note"] else ""),
                f"{shown(result['ours'])} {result['unit']}",
                f"{shown(low)}-{shown(high)}{' x' if result['ratio'] else ''} (n={result['rounds']})",
                result["peer"] or "",
                "" if result["theirs"] is None else f"{shown(result['theirs'])} {result['unit']}",
                "" if result["ratio"] is None else f"{shown(result['ratio'])} x",
                result["target"] or "",
                {None: "", True: "yes", False: "NO"}[result["met"]],
            )
        Console(width=None if sys.stdout.isatty() else 180).print(table)
        print("versions: " + ", ".join(f"{name} {number}" for name, number in document["versions"].items()))
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(document, indent=1) + "\n")
        print(json.dumps(document))


def machine() -> str:
    cores = len(os.sched_getaffinity(0))
    memory = psutil.virtual_memory().total / 2**30
    return f"{platform.system()} {platform.machine()}, {cores} cores, {memory:.0f} GiB, load {os.getloadavg()[0]:.1f}"


def shown(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of ``values`` lie; the nearest one that was measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
