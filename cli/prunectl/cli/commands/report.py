"""``prunectl report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...")] = None,
    sweep: Annotated[str | None, typer.Option(metavar="ID", help="Report on this sweep.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the report goes (report-ID.html).")
    ] = None,
    heat_map: Annotated[
        Path | None,
        typer.Option(
            "--heat-map", metavar="FILE", help="Write the importance of one job's heads, as .svg or .png, instead."
        ),
    ] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the report of a job, of several side by side, or of a sweep; prints its path.

    One HTML file that loads nothing: measurements before and after with their errors, what was removed, where it all
    comes from; for several jobs, quality against cost with the Pareto front.
    """
    from prunectl.cli.actions import check_ids_or_sweep
    from prunectl.cli.connection import connect
    from prunectl.cli.download import write_file
    from prunectl.cli.output import choose_format, print_fact

    check_ids_or_sweep(ids, sweep)
    format = choose_format(output, as_json, quiet)
    refs = list(dict.fromkeys(ids or ()))
    if heat_map is not None:
        _check_heat_map(heat_map, refs, out)
    with connect() as client:
        refs = [client.job(ref)["id"] for ref in refs]
        of = client.sweep(sweep)["id"] if sweep else "-".join(refs[:1] if len(refs) == 1 else [refs[0], str(len(refs))])
        if heat_map is not None:
            path = heat_map
            write_file(path, [client.importance(refs[0], path.suffix[1:].lower())], option="heat-map")
        else:
            path = out or Path(f"report-{of}.html")
            write_file(path, [client.report(refs, of if sweep else None)], option="out")
    print_fact({"id": of, "jobs": refs, "path": str(path)}, format, str(path))


def _check_heat_map(path: Path, ids: list[str], out: Path | None) -> None:
    from prunectl.errors import InvalidInput

    if len(ids) != 1 or out is not None:
        raise InvalidInput(
            "heat-map: goes with the id of one job, and without --out", field="heat-map", value=str(path)
        )
    if path.suffix.lower() not in (".svg", ".png"):
        raise InvalidInput(
            f"heat-map: {str(path)!r} ends neither in .svg nor in .png",
            field="heat-map",
            value=str(path),
            hint=f"such as {path.with_suffix('.svg').name}",
        )
