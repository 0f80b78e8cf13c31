"""``prunectl quotas``."""

from __future__ import annotations

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(output: OutputOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Show how many jobs you may have running at once, and have; with an admin's token, every owner's."""
    from prunectl.cli.connection import connect
    from prunectl.cli.output import choose_format, field, print_list

    columns = [field("owner"), field("running"), field("queued"), field("max_running"), field("origin")]
    format = choose_format(output, as_json, quiet)
    with connect() as client:
        found = client.quotas()
    print_list(found, format, columns, id_of=lambda item: item["owner"])
