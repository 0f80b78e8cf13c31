"""``prunectl submit``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from prunectl.cli.output import JsonOption, OutputOption, QuietOption

Fraction = "F"
RECIPE, EVALUATION, QUEUE, HOW = "Recipe", "Evaluation", "Queue", "How"
_NOT_SPEC = ("file", "sets", "dry_run", "wait", "follow", "output", "as_json", "quiet")


def command(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A directory, a name in the zoo, or a Hub id.")
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(metavar="F", help="Share of the attention heads to remove, as 0.3 or encoder=0.3,cross=0.5."),
    ] = None,
    ffn: Annotated[str | None, typer.Option(metavar="F", help="Share of the FFN neurons to remove.")] = None,
    target_macs: Annotated[
        str | None, typer.Option(metavar="F", help="Share of the multiply-adds that may stay; the solver chooses.")
    ] = None,
    target_latency: Annotated[
        str | None, typer.Option(metavar="MS", help="Milliseconds a forward pass may take on the worker.")
    ] = None,
    speedup: Annotated[
        str | None, typer.Option(metavar="X", help="How many times as fast it must be on the worker.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="N|I,J", help="Layers to remove: how many, or which (one: 3,).")
    ] = None,
    layer_choice: Annotated[
        str | None, typer.Option(metavar="influence|top|bottom|alternate|random", help="Which N layers go.")
    ] = None,
    greedy_layers: Annotated[
        str | None, typer.Option(metavar="N", help="Search for the N layers that go, one by one, training in between.")
    ] = None,
    keep_performance: Annotated[
        str | None, typer.Option(metavar="F", help="The search ends before less than F of the quality is left (0.95).")
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(metavar="K", help="A step of the search trains only the K least influential layers.")
    ] = None,
    selection: Annotated[
        str | None, typer.Option(metavar="F", help="Share of the training examples that the search chooses by (0.15).")
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="F", help="Share of the weights to set to zero.")] = None,
    weight_granularity: Annotated[
        str | None, typer.Option(metavar="element|matrix|tensor", help="What is ranked: weights, or whole matrices.")
    ] = None,
    weight_pattern: Annotated[
        str | None, typer.Option(metavar="2:4|4:8", help="Keep the 2 best of each 4 weights in a row.")
    ] = None,
    vocab: Annotated[
        str | None, typer.Option(metavar="SRC", help="A corpus: entries that it doesn't need leave the vocabulary.")
    ] = None,
    scorer: Annotated[
        str | None,
        typer.Option(metavar="taylor|fisher|activation|magnitude|wanda|random", help="How units are ranked."),
    ] = None,
    engine: Annotated[str | None, typer.Option(metavar="native|textpruner", help="What scores and cuts.")] = None,
    iterations: Annotated[
        str | None, typer.Option(metavar="N", help="Prune in N steps, scoring again after each.")
    ] = None,
    even: Annotated[bool | None, typer.Option("--even", help="The same share in each layer.")] = None,
    multiple_of: Annotated[
        str | None, typer.Option(metavar="N", help="Keep a multiple of N neurons in each layer.")
    ] = None,
    min_heads: Annotated[str | None, typer.Option(metavar="N", help="Keep at least N heads in each layer.")] = None,
    min_ffn: Annotated[str | None, typer.Option(metavar="N", help="Keep at least N neurons in each layer.")] = None,
    refit: Annotated[
        bool | None, typer.Option("--refit/--no-refit", help="Refit what is kept of heads and neurons (default: yes).")
    ] = None,
    recover: Annotated[
        str | None, typer.Option(metavar="none|finetune|distill", help="Train what is left until it is good again.")
    ] = None,
    recover_data: Annotated[
        str | None, typer.Option(metavar="SRC", help="What it is trained on; else what evaluation leaves of --data.")
    ] = None,
    recover_epochs: Annotated[str | None, typer.Option(metavar="N", help="Epochs at most (3).")] = None,
    recover_rate: Annotated[str | None, typer.Option(metavar="X", help="AdamW's highest learning rate.")] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option("--gradient-checkpointing", help="Train in less memory, a third slower.")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(metavar="int8|int8-static", help="Last step: an int8 ONNX file of the pruned model.")
    ] = None,
    export: Annotated[str | None, typer.Option(metavar="onnx", help="Files that other runtimes load.")] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="Seed of everything random.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SRC",
            help="Evaluation data: a file, a folder of images, org/name[:split] on the Hub, or builtin:python-docs.",
        ),
    ] = None,
    calibration: Annotated[str | None, typer.Option(metavar="SRC", help="Data that the scores are taken on.")] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="OURS=THEIRS", help="What a column of the data is called, as text=sentence."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="auto|fill-mask|…", help="What the model is evaluated at.")
    ] = None,
    metric: Annotated[str | None, typer.Option(metavar="NAME", help="The figure that stands for quality.")] = None,
    max_samples: Annotated[str | None, typer.Option(metavar="N", help="Evaluation examples at most.")] = None,
    max_length: Annotated[str | None, typer.Option(metavar="N", help="Tokens of an example at most.")] = None,
    max_drop: Annotated[str | None, typer.Option(metavar="X", help="Gate: quality may drop by X at most.")] = None,
    min_speedup: Annotated[str | None, typer.Option(metavar="X", help="Gate: at least X times as fast.")] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option("--gate", metavar="COND", help="Gate: such as 'eval_f1>=0.9', by its 95% bound; repeatable."),
    ] = None,
    bench_batch: Annotated[str | None, typer.Option(metavar="N[,N]", help="Batch sizes to time.")] = None,
    bench_seq: Annotated[str | None, typer.Option(metavar="N", help="Sequence length to time.")] = None,
    device: Annotated[str | None, typer.Option(metavar="auto|cpu|gpu", help="Which queue.")] = None,
    priority: Annotated[str | None, typer.Option(metavar="N", help="Higher runs first.")] = None,
    name: Annotated[str | None, typer.Option(help="A name to find the job by.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="K=V", help="A tag; repeatable.")] = None,
    timeout: Annotated[str | None, typer.Option(metavar="2h", help="End an attempt after so long.")] = None,
    retries: Annotated[str | None, typer.Option(metavar="N", help="Tries again after a failure, at most.")] = None,
    force: Annotated[bool | None, typer.Option("--force", help="Queue it even if an identical job exists.")] = None,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE|-", help="A recipe file (YAML); flags win over it.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Set one name of the recipe file; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the job would do; queue nothing.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait with a progress bar; exit with the job's outcome.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Wait and show the job's log on stderr.")] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Queue a job: one model, one recipe, one evaluation. Prints its id."""
    from prunectl.cli.connection import connect
    from prunectl.cli.data_files import local_files, referenced
    from prunectl.cli.output import Format, choose_format
    from prunectl.cli.specification import job_body

    format = choose_format(output, as_json, quiet, default=Format.TABLE if dry_run else Format.ID)
    flags = {key: value for key, value in context.params.items() if key not in _NOT_SPEC and value is not None}
    body = job_body(flags, sets or (), file)
    files = {part: local_files(body.get(part, {})) for part in ("recipe", "evaluation")}
    with connect() as client:
        for part, found in files.items():
            if found:
                body[part] = referenced(body[part], found, client.upload)
        if dry_run:
            _print_plan(client.plan(body), format)
            return
        job, created = client.submit(body)
        if format is Format.ID:
            # At once, so that a reader of the pipe has the id while the job runs.
            _print_job(job, format)
        _tell(job, created, waits=wait or follow)
        if wait or follow:
            _await(client, job, format, follow)
        elif format is not Format.ID:
            _print_job(job, format)


def _await(client: Any, job: dict[str, Any], format: Any, follow: bool) -> None:
    from prunectl.cli import waiting
    from prunectl.cli.exits import outcome
    from prunectl.cli.output import Format

    if follow:
        ended = waiting.follow(client, job["id"], _to_stderr)
    else:
        [ended] = waiting.wait(client, [job["id"]])
    if format is not Format.ID:
        _print_job(ended, format)
    waiting.say_error(ended)
    raise typer.Exit(outcome(ended))


def _to_stderr(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def _print_job(job: dict[str, Any], format: Any) -> None:
    from prunectl.cli.job_columns import DEFAULT, columns_of
    from prunectl.cli.job_page import print_page
    from prunectl.cli.output import print_documents

    print_documents([job], format, print_page, columns_of(DEFAULT))


def _tell(job: dict[str, Any], created: bool, *, waits: bool) -> None:
    from prunectl.cli.advice import next_commands
    from prunectl.cli.failures import say

    if not created:
        say(f"an identical job is {job['state']} already: {job['id']} (--force queues another)")
    if not waits:
        next_commands(f"logs -f {job['id']}", f"wait {job['id']}", f"cancel {job['id']}")


def _print_plan(plan: dict[str, Any], format: Any) -> None:
    from prunectl.cli.output import print_documents
    from prunectl.cli.plan_page import COLUMNS, print_plan

    print_documents([{**plan, "id": plan["recipe_digest"]}] if format == "id" else [plan], format, print_plan, COLUMNS)
