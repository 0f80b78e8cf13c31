"""``prunectl inspect``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A directory, a name in the zoo, or a Hub id.")],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a model's parameters by part, its heads and layers, and what each axis could save at most.

    Reads config.json alone; no weights.
    """
    from prunectl.cli.connection import connect
    from prunectl.cli.output import choose_format, field, print_documents

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        found = client.inspect(model)
    shown = {**found, "id": found["model"]["name"]} if format == "id" else found
    print_documents([shown], format, _page, [field(name) for name in ("family", "architecture", "parameters")])


def _page(found: Any) -> None:
    from prunectl.cli.output import print_facts, print_grid, write
    from prunectl.quantities import count

    total = found["parameters"]
    print_facts(
        [
            ("model", found["model"]["name"]),
            ("architecture", f"{found['architecture']} ({found['family']})"),
            ("parameters", f"{total:,}"),
            *((_label(stack), _shape(stack)) for stack in found["stacks"]),
        ]
    )
    write("")
    write("parts")
    rows = [(name, count(number), f"{number / total:.1%}") for name, number in found["parts"].items()]
    print_grid(("PART", "PARAMS", ""), rows, right=(1, 2))
    write("")
    write("at most")
    print_grid(
        ("AXIS", "UNITS", "SAVES", "", "NOTE"),
        [
            (s["axis"], count(s["units"]), count(s["parameters"]), f"{s['share']:.1%}", s["note"] or "")
            for s in found["savings"]
        ],
        right=(1, 2, 3),
    )


def _label(stack: Any) -> str:
    return f"{stack['stack']} layers"


def _shape(stack: Any) -> str:
    grouped = f" ({stack['kv_heads']} of keys and values)" if stack["kv_heads"] != stack["heads"] else ""
    text = f"{stack['layers']} x {stack['heads']} heads{grouped} x {stack['ffn']} neurons"
    if stack["cross_attention"]:
        text += ", with cross-attention"
    return text + (", sharing their weights" if stack["shared"] else "")
