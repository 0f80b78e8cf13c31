"""``show``: one job as a page of sections."""

from __future__ import annotations

import sys
from typing import Any

from prunectl.cli.job_columns import no_real_difference, recipe_text, stage_text, state_text
from prunectl.cli.output import Item, print_facts, print_grid, write
from prunectl.pace import pace
from prunectl.quantities import DASH, age, quantity, relative, seconds


def print_page(job: Item) -> None:
    """Everything about ``job`` that a person asks for: what, how far, how good, what is left of it, where it is."""
    _facts(job)
    _error(job)
    _metrics(job)
    _ledger(job)
    _search(job)
    _gate(job)
    _pace(job)
    _structure(job)
    _stages(job)
    _artifacts(job)


def _facts(job: Item) -> None:
    evaluation = {key: value for key, value in job.get("evaluation", {}).items() if value not in (None, [])}
    facts = [
        ("id", job["id"]),
        ("name", job.get("name")),
        ("model", job["model"]["name"]),
        ("digest", job["model"].get("digest")),
        ("recipe", recipe_text(job)),
        ("evaluation", " ".join(f"{key}={_short(value)}" for key, value in evaluation.items())),
        ("state", state_text(job) + (f" ({stage_text(job)})" if job["state"] == "running" else "")),
        ("attempt", str(job["attempt"]) if job.get("attempt") else None),
        ("device", job.get("device")),
        ("worker", job.get("worker")),
        ("tags", ",".join(f"{key}={value}" for key, value in job.get("tags", {}).items())),
        ("created", f"{job['created_at']} ({age(job['created_at'])} ago)"),
        ("started", job.get("started_at")),
        ("finished", _finished(job)),
    ]
    print_facts([(name, str(value)) for name, value in facts if value])


def _finished(job: Item) -> str | None:
    if not job.get("finished_at"):
        return None
    return f"{job['finished_at']}" + (
        f" (ran {age(job['started_at'], job['finished_at'])})" if job.get("started_at") else ""
    )


def _error(job: Item) -> None:
    error = job.get("error")
    if not error:
        return
    _section("error")
    rows = [("code", error["code"]), ("message", error["message"]), ("hint", error.get("hint"))]
    print_facts([(name, value) for name, value in rows if value])


def _metrics(job: Item) -> None:
    metrics = job.get("metrics") or {}
    if not metrics:
        return
    _section("metrics")
    rows = []
    for name, values in metrics.items():
        before, after = values.get("before"), values.get("after")
        rows.append(
            (
                name,
                quantity(name, before),
                quantity(name, after),
                ("~" if no_real_difference(job, name) else "") + _difference(name, before, after),
                _number(values.get("stderr")),
                _number(values.get("n")),
            )
        )
    print_grid(("METRIC", "BEFORE", "AFTER", "Δ", "STDERR", "N"), rows, right=range(1, 6))


def _difference(name: str, before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return DASH
    # Quality reads as a difference, cost as a share.
    return f"{after - before:+.4f}" if name.startswith("eval_") else relative(before, after).strip(" ()")


def _ledger(job: Item) -> None:
    rows = job.get("ledger") or []
    if len(rows) < 3:  # before and after stand among the metrics
        return
    _section("step by step")
    print_grid(
        ("AFTER", "PARAMS", "NOT ZERO", "SIZE", rows[0]["metric"].upper(), "STDERR", "N"),
        [
            (
                row["step"],
                quantity("parameters", row["parameters"]),
                quantity("nonzero_parameters", row["nonzero_parameters"]),
                quantity("model_bytes", row["model_bytes"]),
                _number(row["value"]),
                _number(row.get("stderr")),
                _number(row.get("n")),
            )
            for row in rows
        ],
        right=range(1, 7),
    )


def _search(job: Item) -> None:
    search = job.get("search")
    if not search:
        if job.get("waits_for"):
            _section("greedy search")
            write(f"waits for its candidates: prunectl list --sweep {job['waits_for']}")
        return
    _section(f"greedy search by {search['metric']}")
    rows = []
    for step in search["steps"]:
        chosen_by, held_out = step["selection"], step["held_out"]
        rows.append(
            (
                str(step["step"]),
                str(step["layer"]) + ("" if step["accepted"] else " (kept)"),
                _with_error(chosen_by),
                _with_error(held_out),
                f"{step['kept']:.4f}",
                " ".join(f"{row['layer']}:{row['value']:.4f}" for row in step["candidates"]),
            )
        )
    print_grid(("STEP", "LAYER", "CHOSEN BY", "HELD OUT", "KEEPS", "CANDIDATES"), rows)
    where = f"; prunectl list --sweep {search['sweep_id']}" if search.get("sweep_id") else ""
    write(f"{search['trainings']} candidates, {search['cpu_seconds']:.0f} CPU seconds{where}")


def _with_error(measure: Item) -> str:
    return _number(measure["after"]) + (f" ± {_number(measure['stderr'])}" if measure.get("stderr") is not None else "")


def _gate(job: Item) -> None:
    gate = job.get("gate")
    if not gate:
        return
    _section("gate: " + ("passed" if gate["passed"] else "failed"))
    rows = [
        (
            c["metric"],
            f"{c['op']} {c['limit']:g}",
            _number(c["value"]),
            _number(c.get("bound")),
            "passed" if c["passed"] else "FAILED",
        )
        for c in gate["conditions"]
    ]
    print_grid(("METRIC", "LIMIT", "VALUE", "95% BOUND", "VERDICT"), rows)


def _pace(job: Item) -> None:
    said = pace(job.get("metrics") or {}, job.get("gate"))
    if said:
        write("")
        write(said)


def _structure(job: Item) -> None:
    structure = job.get("structure") or {}
    layers = structure.get("layers")
    if not layers:
        return
    _section("kept")
    _axes(structure)
    kept, removed = ("▮", "▯") if (sys.stdout.encoding or "").lower().startswith("utf") else ("#", ".")
    rows = []
    for layer in layers:
        heads = set(layer["heads_kept"])
        label = str(layer["index"])
        if layer.get("stack") == "decoder" or layer.get("attention") == "cross":
            label = f"{layer.get('stack')} {layer['index']} {layer.get('attention')}"
        grid = "".join(kept if head in heads else removed for head in range(layer["heads_total"]))
        rows.append((label, grid, f"{len(heads)}/{layer['heads_total']}", f"{layer['ffn_kept']}/{layer['ffn_total']}"))
    print_grid(("LAYER", "HEADS", "", "FFN"), rows, right=(3,))


def _axes(structure: Item) -> None:
    if structure.get("vocabulary_kept") is not None:
        write(f"vocabulary {structure['vocabulary_kept']} of {structure['vocabulary_total']} entries")
    if structure.get("removed_layers"):
        write("without layers " + ", ".join(map(str, structure["removed_layers"])))
    if structure.get("weights_zeroed") is not None:
        write(f"zero {structure['weights_zeroed']} of {structure['weights_total']} weights")


def _stages(job: Item) -> None:
    stages = job.get("stages") or []
    if stages:
        _section("stages")
        print_grid(
            ("STAGE", "TIME", ""), [(s["name"], seconds(s["seconds"]), "reused" if s["reused"] else "") for s in stages]
        )


def _artifacts(job: Item) -> None:
    artifacts = job.get("artifacts") or {}
    if artifacts:
        _section("artifacts")
        print_facts(list(artifacts.items()))


def _section(title: str) -> None:
    write("")
    write(title)


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    text = str(value)
    # An uploaded file reads better by its name than by its digest.
    return text.rsplit("/", 1)[-1] if text.startswith("upload:") else text


def _number(value: Any) -> str:
    if value is None:
        return DASH
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
