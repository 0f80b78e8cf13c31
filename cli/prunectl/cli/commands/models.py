"""``prunectl models``."""

from __future__ import annotations

from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@app.callback()
def models(
    context: typer.Context, output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """List the models in the zoo (the directories of PRUNECTL_MODEL_PATH), or show one."""
    if context.invoked_subcommand is None:
        _list(output, as_json, quiet)


@app.command("list")
def list_(output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List the models in the zoo, and whether each can be pruned."""
    _list(output, as_json, quiet)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show one model."""
    from prunectl.cli.connection import connect
    from prunectl.cli.output import choose_format, field, print_documents, print_facts

    format = choose_format(output, as_json, quiet)
    with connect() as client:
        model = client.model(name)
    model["id"] = model["name"]

    def page(item: object) -> None:
        shown = [(key, str(value)) for key, value in model.items() if value is not None]
        print_facts([(key, value) for key, value in shown if key not in ("id", "schema_version")])

    if format == "id":
        print_documents([model], format, page, [])
    else:
        model.pop("id")
        print_documents([model], format, page, [field(key) for key in model if key != "schema_version"])


def _list(output: str | None, as_json: bool, quiet: bool) -> None:
    from prunectl.cli.connection import connect
    from prunectl.cli.failures import say
    from prunectl.cli.output import Column, choose_format, field, print_list
    from prunectl.quantities import quantity

    def amount(name: str, header: str) -> Column:
        return Column(name, header, lambda item: quantity(name, item.get(name)), lambda item: item.get(name))

    columns = [
        field("name"), field("family"), field("task"), field("layers"), field("heads"), field("ffn"),
        amount("parameters", "PARAMS"), amount("model_bytes", "SIZE"), field("prunable"), field("reason"),
    ]  # fmt: skip
    format = choose_format(output, as_json, quiet)
    with connect() as client:
        found = client.models()
    print_list(found, format, columns, wide=[field("architecture"), field("path")], id_of=lambda item: item["name"])
    if not found:
        say(
            "no models: PRUNECTL_MODEL_PATH names the directories that hold them; --model also takes a path or a Hub id"
        )
