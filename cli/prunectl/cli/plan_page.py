"""``submit --dry-run``: what a job would do, as a page."""

from __future__ import annotations

from prunectl.cli.job_columns import recipe_text
from prunectl.cli.output import Column, Item, print_facts
from prunectl.quantities import count, relative

COLUMNS = [
    Column(name, name.upper(), lambda item, name=name: str(item[name]), lambda item, name=name: item[name])  # type: ignore[misc]
    for name in ("family", "task", "heads_removed", "heads_total", "ffn_removed", "ffn_total", "queue", "identical_job")
]


def print_plan(plan: Item) -> None:
    parameters, macs = plan["parameters"], plan["macs"]
    axes = [
        (name, f"{verb} {plan[field]} of {plan[of]}")
        for name, verb, field, of in (
            ("layers", "remove", "layers_removed", "layers_total"),
            ("weights", "zero", "weights_zeroed", "weights_total"),
        )
        if plan.get(field)
    ]
    rows = [
        ("model", f"{plan['model']['name']}  ({plan['family']}, {plan['task']})"),
        ("recipe", recipe_text(plan)),
        ("heads", f"remove {plan['heads_removed']} of {plan['heads_total']}"),
        ("neurons", f"remove {plan['ffn_removed']} of {plan['ffn_total']}"),
        *axes,
        ("parameters", _change(parameters)),
        ("macs", _change(macs)),
        ("queue", plan["queue"]),
        ("identical job", plan["identical_job"] or "none"),
        *(("note", note) for note in plan["notes"]),
    ]
    print_facts(rows)


def _change(measure: Item) -> str:
    before, after = measure["before"], measure["after"]
    return f"{count(before)} -> {count(after)}{relative(before, after)}"
