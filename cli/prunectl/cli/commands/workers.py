"""``prunectl workers``."""

from __future__ import annotations

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """List the workers: who is alive, which queues they serve, what they run."""
    from prunectl.cli.connection import connect
    from prunectl.cli.failures import say
    from prunectl.cli.output import Column, choose_format, field, print_list
    from prunectl.quantities import age

    columns = [
        field("name"), field("alive"), field("queues"), field("slots"), field("device"), field("running"),
        Column("seen_at", "SEEN", lambda item: f"{age(item['seen_at'])} ago", lambda item: item["seen_at"]),
    ]  # fmt: skip
    wide = [field("host"), field("pid"), field("version"), field("started_at", "STARTED")]
    format = choose_format(output, as_json, quiet)
    with connect() as client:
        found = client.workers()
    print_list(found, format, columns, wide=wide, id_of=lambda item: item["name"])
    if not found:
        say("no workers; prunectl worker starts one, the embedded stack brings its own")
