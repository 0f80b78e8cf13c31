"""How data reaches stdout: table, wide, json, jsonl, yaml, csv or ids. Nothing else is ever written there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

import typer

from prunectl.errors import InvalidInput, nearest

SCHEMA_VERSION = 1
SHRINKING = frozenset({"MODEL", "NAME", "TAGS", "WORKER", "PATH", "REASON", "DETAIL", "HINT", "VALUE"})
SHRUNK = 12
"""To so many characters a column of `SHRINKING` may be cut."""
GAP = 2
Item = Mapping[str, Any]


class Format(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    JSONL = "jsonl"
    YAML = "yaml"
    CSV = "csv"
    ID = "id"


OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="|".join(Format), help="The output's format.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as -o json.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print ids only: the same as -o id.")]


@dataclass(frozen=True)
class Column:
    """One column: ``text`` for people, ``raw`` (base units) for CSV."""

    name: str
    header: str
    text: Callable[[Item], str]
    raw: Callable[[Item], Any]


def field(name: str, header: str | None = None) -> Column:
    """A column that shows one field as it is."""

    def raw(item: Item) -> Any:
        return item.get(name)

    def text(item: Item) -> str:
        value = item.get(name)
        if isinstance(value, (list, tuple)):
            return ",".join(map(str, value)) or "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return "-" if value is None else str(value)

    return Column(name, header or name.upper().replace("_", " "), text, raw)


def choose_format(output: str | None, as_json: bool, quiet: bool, default: Format = Format.TABLE) -> Format:
    """The one format that the three flags name; raises InvalidInput for an unknown one, or where they disagree."""
    named = {format for format, given in ((Format.JSON, as_json), (Format.ID, quiet)) if given}
    if output is not None:
        if output not in list(Format):
            near = nearest(output, Format)
            raise InvalidInput(
                f"output: {output!r} is not valid; allowed is {', '.join(Format)}",
                field="output",
                value=output,
                hint=f"did you mean {near}?" if near else None,
            )
        named.add(Format(output))
    if len(named) > 1:
        raise InvalidInput(f"output: {' and '.join(sorted(named))} can't both be printed", field="output")
    return named.pop() if named else default


def print_list(
    items: Sequence[Item],
    format: Format,
    columns: Sequence[Column],
    *,
    wide: Sequence[Column] = (),
    next_cursor: str | None = None,
    id_of: Callable[[Item], Any] = lambda item: item["id"],
) -> None:
    """Print ``items`` as a list: in JSON and YAML inside the envelope that names the schema's version."""
    envelope = {"schema_version": SCHEMA_VERSION, "items": list(items), "next_cursor": next_cursor}
    match format:
        case Format.JSON:
            write(to_json(envelope))
        case Format.YAML:
            write(to_yaml(envelope))
        case Format.JSONL:
            for item in items:
                write(json.dumps(item, ensure_ascii=False))
        case Format.ID:
            for item in items:
                write(str(id_of(item)))
        case Format.CSV:
            print_csv(items, [*columns, *wide])
        case _:
            print_table(items, [*columns, *(wide if format is Format.WIDE else ())])


def print_documents(
    items: Sequence[Item], format: Format, page: Callable[[Item], None], columns: Sequence[Column]
) -> None:
    """Print one object as itself, or several as a list; tables are replaced by a ``page`` for each."""
    if format in (Format.TABLE, Format.WIDE):
        for index, item in enumerate(items):
            if index:
                write("")
            page(item)
    elif len(items) == 1 and format in (Format.JSON, Format.YAML):
        write(to_json(items[0]) if format is Format.JSON else to_yaml(items[0]))
    else:
        print_list(items, format, columns)


def print_fact(document: Item, format: Format, text: str | None) -> None:
    """What a command has to say: to people ``text`` alone (None: nothing), else ``document``, whose ``id`` it is called by."""
    if format in (Format.TABLE, Format.WIDE):
        if text is not None:
            write(text)
    else:
        shown = {"schema_version": SCHEMA_VERSION, **document}
        print_documents([shown], format, lambda item: None, [field(name) for name in document])


def to_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def to_yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n")


def print_csv(items: Iterable[Item], columns: Sequence[Column]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    for item in items:
        writer.writerow([_csv_cell(column.raw(item)) for column in columns])
    sys.stdout.flush()


def print_table(items: Iterable[Item], columns: Sequence[Column]) -> None:
    """A table that fits the terminal; whole and without colour where stdout is none."""
    print_grid([column.header for column in columns], [[column.text(item) for column in columns] for item in items])


def print_grid(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    """Rows of cells below a header; columns in ``right`` are aligned to the right.

    On a narrow terminal the columns of `SHRINKING` give way; where that is not enough the terminal wraps the lines,
    since figures that are cut say nothing.
    """
    from rich.cells import cell_len

    rows = list(rows)
    widths = [max(cell_len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    least = [min(width, SHRUNK) if name in SHRINKING else width for name, width in zip(header, widths, strict=True)]
    _print(header, rows, least, right=frozenset(right), long_cells="ellipsis")


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line; a long value goes on below itself."""
    facts = list(facts)
    _print(("", ""), facts, [max((len(name) for name, _ in facts), default=0), 0], long_cells="fold")


def _print(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    least: Sequence[int],
    *,
    right: frozenset[int] = frozenset(),
    long_cells: Literal["ellipsis", "fold"],
) -> None:
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    # Rich leaves bold type alone where NO_COLOR is set.
    styled = terminal and not os.environ.get("NO_COLOR")
    table = Table(box=None, pad_edge=False, show_header=any(header), header_style="bold" if styled else "")
    for index, name in enumerate(header):
        table.add_column(
            Text(name),
            no_wrap=long_cells == "ellipsis",
            overflow=long_cells,
            justify="right" if index in right else "left",
            min_width=least[index],
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # Off a terminal nothing may be cut: the page is as wide as it needs to be.
    needed = sum(least) + GAP * len(least)
    page = console(width=max(console().width, needed) if terminal else 100_000)
    if terminal:
        page.print(table, crop=False)
        return
    with page.capture() as captured:
        page.print(table)
    # Rich pads each line to the last column's width; readers of a pipe need no padding.
    write("\n".join(line.rstrip() for line in captured.get().splitlines()))


def console(width: int | None = None) -> Any:
    """A rich console on stdout. Rich itself honours ``NO_COLOR`` and turns colour off where there is no terminal."""
    from rich.console import Console

    return Console(file=sys.stdout, width=width, highlight=False, markup=False, soft_wrap=False)


def write(line: str) -> None:
    """A line of data on stdout, at once: readers of a pipe wait for it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value
