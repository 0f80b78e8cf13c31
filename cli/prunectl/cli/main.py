"""The command line's entry: a lazily loaded group of commands, and the one place where errors become exit codes.

A command's module is imported when the command runs. ``--help`` and ``--version`` import none, so they stay quick.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup


class Entry(NamedTuple):
    """Where a command lives, and its line in ``--help``."""

    module: str
    summary: str
    section: str


JOBS, RESULTS, HERE, SERVICE = "Jobs", "Results and models", "This machine", "A service's own machines"

COMMANDS: dict[str, Entry] = {
    "submit": Entry("submit", "Queue a job: one model, one recipe, one evaluation.", JOBS),
    "sweep": Entry("sweep", "Queue a grid of jobs: models x recipes.", JOBS),
    "sweeps": Entry("sweeps", "List the sweeps, or show one.", JOBS),
    "list": Entry("list", "List jobs (also: ls, ps).", JOBS),
    "show": Entry("show", "Show jobs in full.", JOBS),
    "wait": Entry("wait", "Wait until jobs have ended; exit with their outcome.", JOBS),
    "why": Entry("why", "Say why jobs wait, or how they ended.", JOBS),
    "logs": Entry("logs", "Print or follow what jobs wrote.", JOBS),
    "cancel": Entry("cancel", "Cancel queued or running jobs.", JOBS),
    "retry": Entry("retry", "Queue failed or cancelled jobs again.", JOBS),
    "rm": Entry("rm", "Delete ended jobs with what they left.", JOBS),
    "spec": Entry("spec", "Print the recipe file that submits a job again.", JOBS),
    "compare": Entry("compare", "Show jobs side by side, before and after.", RESULTS),
    "pull": Entry("pull", "Download a job's checkpoint and verify it.", RESULTS),
    "card": Entry("card", "Print a job's model card.", RESULTS),
    "push": Entry("push", "Upload a job's checkpoint to the Hugging Face Hub.", RESULTS),
    "plan": Entry("plan", "Show what each budget would keep, from one job's scores.", RESULTS),
    "attention": Entry("attention", "Draw where a job's heads look, before and after.", RESULTS),
    "report": Entry("report", "Write a job's or a sweep's report, one HTML file.", RESULTS),
    "inspect": Entry("inspect", "Show what a model is made of, and what pruning could save.", RESULTS),
    "models": Entry("models", "List the models in the zoo, or show one.", RESULTS),
    "workers": Entry("workers", "List the workers.", RESULTS),
    "quotas": Entry("quotas", "Show how many jobs an owner may have running.", RESULTS),
    "config": Entry("config", "Show each setting and where it came from.", HERE),
    "doctor": Entry("doctor", "Find out what is wrong.", HERE),
    "up": Entry("up", "Start the embedded stack (submit does, too).", HERE),
    "down": Entry("down", "Stop the embedded stack.", HERE),
    "status": Entry("status", "Say whether the embedded stack runs.", HERE),
    "migrate": Entry("migrate", "Bring the database to this version.", SERVICE),
    "api": Entry("api", "Run the HTTP service.", SERVICE),
    "worker": Entry("worker", "Run a worker.", SERVICE),
    "tokens": Entry("tokens", "Create, list and revoke API tokens.", SERVICE),
}
ALIASES = {"ls": "list", "ps": "list"}

EXIT_CODES = """Exit codes: 0 done; 1 the job failed, or another error; 2 wrong usage; 3 service unreachable;
4 not authorised; 5 not found; 6 job succeeded, gate failed; 7 job cancelled; 8 still pending when the wait timed out;
130 interrupted."""


class LazyGroup(TyperGroup):
    """Knows its commands by name; builds one when it is asked for."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        # Names alone, for typer's "did you mean"; `get_command` does the building.
        self.commands = dict.fromkeys((*COMMANDS, *ALIASES))  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        return None if entry is None else load(entry, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl([(name, e.summary) for name, e in COMMANDS.items() if e.section == section])


@cache
def load(entry: Entry, name: str) -> Any:
    """The command of a module: its ``app`` where it is a group of its own, its ``command`` function elsewhere."""
    module = import_module(f"prunectl.cli.commands.{entry.module}")
    group: typer.Typer | None = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False, rich_markup_mode=None)
        group.command(name, help=module.command.__doc__ or entry.summary)(module.command)
    built = typer.main.get_command(group)
    built.name = name
    return built


app = typer.Typer(
    name="prunectl",
    cls=LazyGroup,
    # Plain help: rich's costs a third of the time that `--help` takes. The commands' own output uses rich.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_CODES,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from prunectl.version import version

        typer.echo(f"prunectl {version()}")
        raise typer.Exit


@app.callback()
def prunectl(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Prune transformer models at scale: a queue, a recipe, a measured result."""


def run() -> NoReturn:
    """Run the command line and exit; stdout gets data, stderr everything else."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    from prunectl.cli import failures

    try:
        code = app(args=arguments, prog_name="prunectl", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 - `report` raises again what it does not know
        return failures.report(error, arguments)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    run()
