"""``prunectl push``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption


def command(
    id: Annotated[str, typer.Argument(metavar="ID")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="org/name; made where it isn't there.")],
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="A branch other than main.")] = None,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    message: Annotated[str | None, typer.Option("--message", "-m", help="The commit's message.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent; send nothing.")] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Upload a job's checkpoint with its model card to the Hugging Face Hub, and print the commit's address.

    Asks the Hub at HF_ENDPOINT with HF_TOKEN, or the login of `hf auth login`.
    """
    from prunectl.cli import hub_upload
    from prunectl.cli.advice import next_commands
    from prunectl.cli.connection import connect
    from prunectl.cli.download import fetch_checkpoint
    from prunectl.cli.output import Column, choose_format, print_fact, print_list
    from prunectl.quantities import data_size

    format = choose_format(output, as_json, quiet)
    upload = hub_upload.Upload(repo, revision=revision, private=private)
    with connect() as client:
        job = client.job(id)
        if dry_run:
            files = [{"id": file["path"], **file} for file in client.artifacts(job["id"])]
            columns = [
                Column("path", "FILE", lambda file: str(file["path"]), lambda file: file["path"]),
                Column("size", "SIZE", lambda file: data_size(file["size"]), lambda file: file["size"]),
            ]
            print_list(files, format, columns)
            return
        with tempfile.TemporaryDirectory(prefix="prunectl-push-") as scratch:
            directory = Path(scratch) / "checkpoint"
            fetch_checkpoint(client, job["id"], directory)
            address = upload.send(directory, message or f"Add what prunectl job {job['id']} made")
    print_fact({"id": job["id"], "repo": repo, "url": address}, format, address)
    next_commands(f"show {job['id']}")
