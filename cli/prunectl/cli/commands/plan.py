"""``prunectl plan``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    id: Annotated[str, typer.Argument(metavar="ID", help="A succeeded job with a target: --target-macs and its like.")],
    curve: Annotated[bool, typer.Option("--curve", help="What each budget would keep.")] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what the solver would keep at each budget, from the scores that a job has computed.

    For what a single recipe would remove, before any job: prunectl submit --dry-run.
    """
    import json

    from prunectl.cli.connection import connect
    from prunectl.cli.output import Column, choose_format, print_list
    from prunectl.errors import InvalidInput, NotFound

    if not curve:
        raise InvalidInput(
            "plan needs --curve", field="curve", hint="what one recipe would remove: prunectl submit --dry-run"
        )
    format = choose_format(output, as_json, quiet)
    with connect() as client:
        job = client.job(id)
        if "curve" not in (job.get("artifacts") or {}):
            raise NotFound(
                f"job {job['id']} has no curve: only jobs with a target that succeeded do",
                hint=f"submit --model {job['model']['name']} --target-macs 0.5 --wait, then ask for that job's",
                value=id,
            )
        found = json.loads(b"".join(client.download(job["id"], "curve.json")))
    points = found["points"]

    def share(point: Any) -> str:
        return f"{point['macs'] / point['macs_total']:.1%}"

    def counts(name: str) -> Any:
        return lambda point: " ".join(str(count) for count in point[name])

    columns = [
        Column("target_macs", "TARGET", lambda p: f"{p['target_macs']:.2f}", lambda p: p["target_macs"]),
        Column("macs", "MACS", share, lambda p: p["macs"]),
        Column(
            "importance_kept", "IMPORTANCE", lambda p: f"{p['importance_kept']:.1%}", lambda p: p["importance_kept"]
        ),
        Column("heads_kept", "HEADS", counts("heads_kept"), counts("heads_kept")),
        Column("ffn_kept", "NEURONS", counts("ffn_kept"), counts("ffn_kept")),
    ]
    print_list(points, format, columns, id_of=lambda point: point["target_macs"])
