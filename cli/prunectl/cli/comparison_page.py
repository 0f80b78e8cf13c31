"""``compare``: a row a job, and above them what each set out from."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from prunectl.cli.job_columns import SHORT_ID, recipe_text, state_text
from prunectl.cli.output import Column, Format, Item, print_grid, print_list, to_json, to_yaml, write
from prunectl.quantities import DASH, quantity


def print_comparison(comparison: Item, format: Format) -> None:
    match format:
        case Format.JSON:
            write(to_json(comparison))
        case Format.YAML:
            write(to_yaml(comparison))
        case Format.TABLE | Format.WIDE:
            _print_table(comparison)
        case _:
            columns = [column for name in comparison["metrics"] for column in _csv_columns(name)]
            fixed = [_plain("id"), _plain("model", lambda item: item["model"]["name"]), _plain("recipe", recipe_text)]
            print_list(comparison["items"], format, [*fixed, _plain("state"), *columns, _plain("front")])


def _plain(name: str, value: Any = None) -> Column:
    get = value or (lambda item: item[name])
    return Column(name, name.upper(), lambda item: str(get(item)), get)


def _csv_columns(metric: str) -> list[Column]:
    def part(name: str) -> Any:
        return lambda item: item["metrics"].get(metric, {}).get(name)

    def within(item: Item) -> Any:
        return item["differences"].get(metric, {}).get("within_error")

    parts = [_plain(f"{metric}.{name}", part(name)) for name in ("before", "after", "stderr", "n")]
    return [*parts, _plain(f"{metric}.within_error", within)]


def _print_table(comparison: Item) -> None:
    metrics = comparison["metrics"]
    names = [item["model"]["name"] for item in comparison["items"]]
    several = len(set(names)) > 1
    rows, bases = [], set()
    for item in comparison["items"]:
        # One row for what jobs of one model and one evaluation set out from: the first one's measurements of it.
        base = json.dumps([item["model"], item["evaluation"]], sort_keys=True)
        if base not in bases and item["metrics"]:
            bases.add(base)
            cells = [_before(item["metrics"].get(name, {}), name) for name in metrics]
            rows.append(["base", *([item["model"]["name"]] if several else []), DASH, *cells, DASH])
        cells = [_after(item, name) for name in metrics]
        mark = "* " if item["front"] else ""
        rows.append(
            [mark + _id(item), *([item["model"]["name"]] if several else []), recipe_text(item), *cells, _verdict(item)]
        )
    header = ["ID", *(["MODEL"] if several else []), "RECIPE", *(name.upper() for name in metrics), "GATE"]
    print_grid(header, rows)


def _id(item: Item) -> str:
    return str(item["id"])[-SHORT_ID:] if sys.stdout.isatty() else str(item["id"])


def _before(measure: Mapping[str, Any], name: str) -> str:
    return quantity(name, measure.get("before"))


def _after(item: Item, name: str) -> str:
    measure, difference = item["metrics"].get(name, {}), item["differences"].get(name)
    text = quantity(name, measure.get("after"))
    if measure.get("stderr") is not None:
        text += f" ±{measure['stderr']:.2g}"
    if difference is None or text == DASH:
        return text
    if difference["within_error"]:
        return f"{text} ~"
    if name.startswith("eval_"):
        return f"{text} ({difference['delta']:+.3f})"
    return text if difference["relative"] is None else f"{text} ({difference['relative']:+.0%})"


def _verdict(item: Item) -> str:
    gate = item.get("gate")
    if gate:
        return "passed" if gate["passed"] else "FAILED"
    return DASH if item["state"] == "succeeded" else state_text(item)
