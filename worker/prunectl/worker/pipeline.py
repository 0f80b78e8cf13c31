"""The stages of a job, in the runner process: fetch, baseline, score, prune, save, reload, evaluate, benchmark,
export.

Nothing here knows of databases or Celery. The checkpoint grows in the attempt's scratch directory and is published whole at the end.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from prunectl.checkpoints import load as checkpoint_load
from prunectl.checkpoints import save as checkpoint_save
from prunectl.errors import InvalidData
from prunectl.evaluation import data, encoding, gates, images, latency, macs, quality
from prunectl.evaluation.data import Example
from prunectl.evaluation.objectives import Objective, objective_for
from prunectl.evaluation.tasks import TOKEN_TASKS, Task, reads_images, refuse_data, task_of, text_limit
from prunectl.jobs.lookup import find_model, hub_settings, parse_source, upload_name
from prunectl.pruning import axes, textpruner_vocabulary, vocabulary
from prunectl.pruning.vocabulary import Vocabulary
from prunectl.recipe import BUDGETS
from prunectl.recovery.recover import recover
from prunectl.schemas import BUILTIN_TEXT, Evaluation, JobCreate, Measure, Result
from prunectl.storage import open_storage
from prunectl.worker import exporting, steps
from prunectl.worker.assignment import Assignment
from prunectl.worker.progress_files import TrainingKeeper
from prunectl.worker.reload import reload_and_compare
from prunectl.worker.report import Report
from prunectl.worker.stored_tables import StoredTables
from prunectl.zoo import datasets
from prunectl.zoo import fetch as zoo_fetch
from prunectl.zoo.hub import HubSettings

DEFAULT_SAMPLES = 512
"""Evaluation examples of the built-in text where --max-samples names no other number."""
CALIBRATION_SAMPLES = 256
"""Calibration examples at most: scores settle long before."""
TRAINING_IMAGES = 1024
BATCH_SIZE = 16
BENCH_SECONDS = 10.0
"""Time that each batch size of the benchmark may take: enough for fifty rounds of a small model, ten of a big one."""
PARITY_EXAMPLES = 64
"""Texts whose every output an exported file is compared on."""
PROBE_EXAMPLES, PROBE_LENGTH = 4, 32
"""What the reload check runs: small, since a masked-language model answers with a whole vocabulary at each position."""


@dataclass(frozen=True)
class Source:
    """The unpruned model on this machine."""

    path: Path
    digest: str
    config: dict[str, Any]
    task: Task
    tokenizer: PreTrainedTokenizerBase | None
    """The pruned model's: with fewer entries where the vocabulary is pruned. None: the model reads images."""
    original_tokenizer: PreTrainedTokenizerBase | None
    calibration: list[Example]
    evaluation: list[Example]
    training: list[Example]
    """What recovery may train on: all that is not for evaluation."""
    max_length: int
    bench_seq: int
    device: torch.device
    vocabulary: Vocabulary | None = None
    retokenised: int = 0
    """Evaluation examples that the reduced vocabulary cuts into other tokens."""


def run(assignment: Assignment, report: Report) -> Result:
    """Prune, prove and measure one model; raises a PrunectlError whose code says what failed."""
    body = JobCreate.model_validate(assignment.spec)
    torch.set_num_threads(assignment.threads)
    disable_progress_bar()  # bars of carriage returns make a log unreadable
    scratch, checkpoint = Path(assignment.scratch), Path(assignment.scratch) / "checkpoint"

    with report.stage("fetch"):
        source = _fetch(assignment, body, report)
        model = checkpoint_load.load_original(source.path, source.config).to(source.device)  # type: ignore[arg-type]
        source = _with_vocabulary(source, model, body, assignment, scratch)

    with report.stage("baseline"):
        metrics = _counts(model, source.bench_seq, "before")
        metrics["model_bytes"] = Measure(before=_weight_bytes(source.path))
        reference = quality.reference(
            model,
            source.original_tokenizer,
            source.task,
            source.evaluation,
            max_length=source.max_length,
            batch_size=BATCH_SIZE,
            seed=body.recipe.seed,
            kept_ids=source.vocabulary.rows if source.vocabulary else None,
        )
        before = quality.summarise(reference, reference, seed=body.recipe.seed)
        unpruned = quality.compare(before, before)
        metric = gates.primary_metric(source.task, unpruned, body.evaluation.metric)
        row = steps.ledger_row("original", model, metric, _figures(before, metric))
        ledger = [row.model_copy(update={"value": unpruned[metric].before})]

    taken: list[steps.Step] = []

    def after_step(step: steps.Step, current: PreTrainedModel) -> None:
        taken.append(step)
        if len(taken) < len(_steps_of(body)):  # the last step's quality is what the stage evaluate finds
            now = _quality(current, source, body.recipe.seed, reference)
            ledger.append(steps.ledger_row(step, current, metric, _figures(now, metric)))

    probe = encoding.probe(
        model, source.tokenizer, source.evaluation[:PROBE_EXAMPLES], min(PROBE_LENGTH, source.max_length)
    )
    outcome = steps.run(
        model,
        body.recipe,
        tokenizer=source.original_tokenizer,
        vocabulary=source.vocabulary,
        probe=probe,
        make_objective=lambda current: objective_for(
            source.task,
            source.tokenizer,
            examples=source.calibration,
            max_length=source.max_length,
            seed=body.recipe.seed,
            model=current,
        ),
        report=report,
        workspace=scratch / "engine",
        batch_size=BATCH_SIZE,
        after_step=after_step,
        bench_seq=source.bench_seq,
        timing=StoredTables(
            open_storage(assignment.storage_url),
            batch=body.evaluation.bench_batch[0],
            seq=source.bench_seq,
            threads=assignment.threads,
            multiple_of=body.recipe.multiple_of,
        ),
    )
    pruned, objective = outcome.pruned, outcome.objective
    expected, recovery = outcome.expected, None
    keeper = TrainingKeeper(open_storage(assignment.storage_url), assignment.job_id)
    if body.recipe.recover != "none":
        with report.stage("recover"):
            recovery = recover(
                model,
                body.recipe,
                source.training,
                task=source.task,
                tokenizer=source.tokenizer,
                max_length=source.max_length,
                pruned=pruned,
                load_teacher=lambda: checkpoint_load.load_original(source.path, source.config),
                keeper=keeper,
                workspace=scratch,
                progress=report.progress,
            )
        after_step("recover", model)
        expected = steps.outputs(model, probe)
    metrics = _merged(metrics, _counts(model, source.bench_seq, "after"))

    with report.stage("save"):
        checkpoint_save.save(
            model,
            source=source.path,
            directory=checkpoint,
            recipe=body.recipe,
            pruned=pruned,
            provenance=_provenance(assignment, body, source, objective),
        )
        metrics["model_bytes"].after = _weight_bytes(checkpoint)
    del model

    with report.stage("reload"):
        reloaded = reload_and_compare(
            original=source.path,
            checkpoint=checkpoint,
            scratch=scratch,
            inputs=probe,
            expected=expected,
            bench_batch=body.evaluation.bench_batch[0],
            bench_seq=source.bench_seq,
            threads=assignment.threads,
        )
        metrics["peak_memory_bytes"] = Measure(before=reloaded.memory_before_bytes, after=reloaded.memory_after_bytes)

    with report.stage("evaluate"):
        small = checkpoint_load.load_pruned(checkpoint).to(source.device)  # type: ignore[arg-type]
        after = _quality(small, source, body.recipe.seed, reference)
        metrics |= quality.compare(before, after)
        last = steps.ledger_row(taken[-1], small, metric, _figures(after, metric))
        ledger[0] = ledger[0].model_copy(update={"model_bytes": metrics["model_bytes"].before})
        ledger.append(last.model_copy(update={"model_bytes": metrics["model_bytes"].after}))

    with report.stage("benchmark"):
        original = checkpoint_load.load_original(source.path, source.config).to(source.device)  # type: ignore[arg-type]
        timings, timing_conditions = _benchmark(original, small, body.evaluation, source, assignment.threads, report)
        metrics |= timings

    exported = exporting.Exported()
    if body.recipe.export is not None:
        with report.stage("export"):
            exported = exporting.export(
                small,
                body.recipe,
                checkpoint,
                texts=_batches(small, source),
                judge=partial(_quality, source=source, seed=body.recipe.seed, reference=reference)
                if exporting.can_judge(small, source.task)
                else None,
                before=metrics,
                batch=body.evaluation.bench_batch[0],
                seq=source.bench_seq,
                threads=assignment.threads,
            )
            metrics |= exported.metrics
            if "onnx_int8" in exported.qualities:
                row = steps.ledger_row("quantize", small, metric, _figures(exported.qualities["onnx_int8"], metric))
                ledger.append(row.model_copy(update={"model_bytes": exported.bytes["onnx_int8"]}))

    result = Result(
        model_digest=source.digest,
        metrics=metrics,
        stages=report.stages,
        structure=pruned.structure,
        artifacts={},
        gate=gates.verdict(gates.conditions_of(body.evaluation, source.task, metrics), metrics),
        ledger=ledger,
        labels=objective.labels,
        conditions={
            **timing_conditions,
            "task": source.task,
            **({"data": "random images"} if source.tokenizer is None else {}),
            "n_calibration": len(source.calibration),
            "n_evaluation": len(source.evaluation),
            "max_length": source.max_length,
            "batch_size": BATCH_SIZE,
            "data_digest": data.digest(source.evaluation),
            "calibration_digest": data.digest(source.calibration),
            "primary_metric": metric,
            **({"retokenised_examples": source.retokenised} if source.vocabulary else {}),
            **({"recovery": recovery.model_dump(mode="json")} if recovery else {}),
            **({"refit": pruned.refit.summary()} if pruned.refit else {}),
            "reload_max_abs_difference": reloaded.max_abs_difference,
            "seed": body.recipe.seed,
            "versions": versions(),
            "machine": machine(),
        },
    )
    checkpoint_save.finalise(checkpoint, result, model_name=body.model)
    uri = open_storage(assignment.storage_url).publish(str(checkpoint), assignment.run_name)
    keeper.forget()
    files = {name: f"{uri}/{path}" for name, path in exported.files.items()}
    return result.model_copy(update={"artifacts": {"checkpoint": uri, **files}})


# -- fetch ------------------------------------------------------------------------------------------------------------


def _fetch(assignment: Assignment, body: JobCreate, report: Report) -> Source:
    environment = body.environment if assignment.embedded else None
    hub = _hub(assignment)
    own_roots = [Path(root) for root in assignment.zoo_roots]
    located = find_model(
        body.model, embedded=assignment.embedded, own_roots=own_roots, environment=environment, hub=hub
    )
    path = zoo_fetch.fetch(located.pinned_to(assignment.model_identity), hub, progress=report.progress)
    config = zoo_fetch.local_config(path)
    for flag in ("data", "calibration"):
        if getattr(body.evaluation, flag) is not None:
            refuse_data(config, flag)
    data_rows = _rows(body.evaluation.data, "data", assignment)
    task = task_of(config, body.evaluation.task, labelled=any(e.label is not None for e in data_rows or ()))
    calibration_rows = _rows(body.evaluation.calibration, "calibration", assignment)
    calibration, evaluation = _examples(body, config, task, data_rows, calibration_rows)
    axes.check_export(config, body.recipe)
    training: list[Example] = []
    if body.recipe.recover != "none":
        rows = _rows(body.recipe.recover_data, "recover_data", assignment) or calibration_rows or data_rows
        training = _training(rows, config, task, evaluation, body.recipe.seed)
    tokenizer = None if reads_images(config) else vocabulary.load_tokenizer(path)
    return Source(
        path=path,
        digest=zoo_fetch.model_digest(path),
        config=config,
        task=task,
        tokenizer=tokenizer,
        original_tokenizer=tokenizer,
        calibration=calibration,
        evaluation=evaluation,
        training=training,
        max_length=text_limit(config, body.evaluation.max_length),
        bench_seq=text_limit(config, body.evaluation.bench_seq, field="bench_seq"),
        device=torch.device("cuda" if assignment.device == "gpu" else "cpu"),
    )


def _rows(text: str | None, flag: str, assignment: Assignment) -> list[Example] | None:
    if text is None:
        return None
    source = parse_source(text, flag=flag)
    if source.kind == "builtin":
        return data.builtin_python_docs()
    if source.hub is not None:
        hub = _hub(assignment)
        return [row for path in datasets.fetch(source.hub, hub, field=flag) for row in data.read(path, field=flag)]
    assert source.digest is not None
    with open_storage(assignment.storage_url).local_path(upload_name(source.digest)) as path:
        return data.read(path, suffix=source.suffix, name=source.name, field=flag)


def _hub(assignment: Assignment) -> HubSettings:
    environment = JobCreate.model_validate(assignment.spec).environment if assignment.embedded else None
    token = Path(assignment.hub_token_file).read_text() if assignment.hub_token_file else None
    return hub_settings(environment, token)


def _examples(
    body: JobCreate, config: dict[str, Any], task: Task, rows: list[Example] | None, calibration: list[Example] | None
) -> tuple[list[Example], list[Example]]:
    """(calibration, evaluation) examples that share none, as the seed draws them."""
    builtin = rows is None or body.evaluation.data == BUILTIN_TEXT
    if reads_images(config):
        rows = images.random_images((body.evaluation.max_samples or DEFAULT_SAMPLES) + CALIBRATION_SAMPLES)
    rows = data.builtin_python_docs() if rows is None else rows
    if task == "text-classification":
        rows = data.check(rows, config)
        calibration = None if calibration is None else data.check(calibration, config)
    limit = body.evaluation.max_samples or (DEFAULT_SAMPLES if builtin else None)
    return data.split(
        rows,
        calibration=calibration,
        n_evaluation=limit,
        n_calibration=min(CALIBRATION_SAMPLES, limit or CALIBRATION_SAMPLES),
        seed=body.recipe.seed,
    )


def _training(
    rows: list[Example] | None, config: dict[str, Any], task: Task, evaluation: list[Example], seed: int
) -> list[Example]:
    """All of ``rows`` that are not evaluated on, in an order drawn by the seed."""
    if reads_images(config):
        rows = images.random_images(len(evaluation) + TRAINING_IMAGES)
    rows = data.builtin_python_docs() if rows is None else rows
    if task == "text-classification":
        rows = data.check(rows, config)
    return data.without(rows, evaluation, seed=seed)


def _with_vocabulary(
    source: Source, model: PreTrainedModel, body: JobCreate, assignment: Assignment, scratch: Path
) -> Source:
    """``source`` with the reduced tokenizer, where the recipe names a corpus.

    What a task says of single tokens can only be compared where both tokenizers cut the text alike: of those tasks,
    evaluation examples that are cut otherwise are left out. The other tasks keep them all.
    """
    rows = _rows(body.recipe.vocab, "vocab", assignment)
    if rows is None:
        return source
    axes.check_vocabulary(source.config, body.recipe)
    original = source.original_tokenizer
    assert original is not None, "a model of images has no vocabulary, so its recipe was refused"
    texts = [text for example in rows for text in example.texts if text]
    keep = textpruner_vocabulary.kept_ids(original, texts) if body.recipe.engine == "textpruner" else None
    reduced = vocabulary.reduce(source.path, texts, model.config.to_dict(), scratch / "tokenizer", keep=keep)
    tokenizer = vocabulary.load_tokenizer(reduced.directory)

    def ids(words: PreTrainedTokenizerBase, example: Example) -> list[int]:
        return list(words(*example.texts, truncation=True, max_length=source.max_length)["input_ids"])

    alike = [
        example
        for example in source.evaluation
        if ids(original, example) == [reduced.kept[index] for index in ids(tokenizer, example)]
    ]
    by_token = source.task in TOKEN_TASKS
    if by_token and not alike:
        raise InvalidData(
            "the corpus covers no evaluation text: each would be cut into other tokens, so none can be compared",
            hint="give a larger corpus, or evaluate on text like it with --data",
            field="vocab",
        )
    return replace(
        source,
        tokenizer=tokenizer,
        vocabulary=reduced,
        evaluation=alike if by_token else source.evaluation,
        retokenised=len(source.evaluation) - len(alike),
    )


def _steps_of(body: JobCreate) -> list[str]:
    """The steps that the recipe takes; heads and neurons are one."""
    units = ("heads", "ffn", *BUDGETS)
    pruning = dict.fromkeys("heads+ffn" if axis in units else axis for axis in body.recipe.axes)
    return [*pruning, *(["recover"] if body.recipe.recover != "none" else [])]


# -- measuring --------------------------------------------------------------------------------------------------------


def _counts(model: PreTrainedModel, seq: int, side: str) -> dict[str, Measure]:
    return {
        "parameters": Measure(**{side: macs.parameters(model)}),
        "nonzero_parameters": Measure(**{side: macs.nonzero_parameters(model)}),
        "macs": Measure(**{side: macs.count(model, seq)}),
    }


def _merged(before: dict[str, Measure], after: dict[str, Measure]) -> dict[str, Measure]:
    return before | {name: before[name].model_copy(update={"after": measure.after}) for name, measure in after.items()}


def _weight_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))


def _quality(
    model: PreTrainedModel, source: Source, seed: int, reference: quality.Reference
) -> dict[str, quality.Quality]:
    return quality.evaluate(
        model,
        source.tokenizer,
        source.task,
        source.evaluation,
        max_length=source.max_length,
        batch_size=BATCH_SIZE,
        seed=seed,
        reference=reference,
        original_ids=source.vocabulary.kept if source.vocabulary else None,
    )


def _batches(model: PreTrainedModel, source: Source) -> list[dict[str, Any]]:
    """The first evaluation texts, as the model takes them."""
    rows = encoding.encode(model, source.tokenizer, source.evaluation[:PARITY_EXAMPLES], source.max_length)
    groups = encoding.by_length(rows, BATCH_SIZE)
    return [encoding.collate(source.tokenizer, [rows[index] for index in group]) for group in groups]


def _figures(found: dict[str, quality.Quality], metric: str) -> tuple[float, float | None, int]:
    return found[metric].value, found[metric].stderr, found[metric].n


def _benchmark(
    original: PreTrainedModel,
    small: PreTrainedModel,
    evaluation: Evaluation,
    source: Source,
    threads: int,
    report: Report,
) -> tuple[dict[str, Measure], dict[str, Any]]:
    """Latency and throughput for each batch size, the two models interleaved; the first batch size names no suffix."""
    metrics: dict[str, Measure] = {}
    conditions: dict[str, Any] = {}
    for index, batch in enumerate(evaluation.bench_batch):
        measured = latency.measure(
            {"before": original, "after": small},
            batch=batch,
            seq=source.bench_seq,
            threads=threads,
            budget_seconds=BENCH_SECONDS,
        )
        suffix = "" if index == 0 else f"_b{batch}"
        before, after = measured.latencies["before"], measured.latencies["after"]
        for name in ("latency_p50_seconds", "latency_p95_seconds", "throughput_samples_per_second"):
            metrics[name + suffix] = Measure(before=getattr(before, name), after=getattr(after, name))
        speedup, stderr = measured.speedup("before", "after")
        metrics["speedup" + suffix] = Measure(after=speedup, stderr=stderr)
        if index == 0:
            conditions = {f"bench_{key}": value for key, value in measured.conditions.items()}
        report.progress((index + 1) / len(evaluation.bench_batch))
    return metrics, conditions


# -- provenance -------------------------------------------------------------------------------------------------------


def versions() -> dict[str, str]:
    """Versions of what the result depends on."""
    found = {"python": platform.python_version()}
    for name in ("prunectl", "torch", "transformers", "tokenizers", "safetensors", "textpruner"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """The machine class that timings are comparable within."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _provenance(assignment: Assignment, body: JobCreate, source: Source, objective: Objective) -> dict[str, Any]:
    return {
        "job_id": assignment.job_id,
        "attempt": assignment.attempt,
        "model": {"name": body.model, "identity": assignment.model_identity, "digest": source.digest},
        "recipe_digest": body.recipe.digest,
        "evaluation": body.evaluation.model_dump(mode="json", exclude_none=True),
        "task": source.task,
        "labels": objective.labels,
        "data_digest": data.digest(source.evaluation),
        "calibration_digest": data.digest(source.calibration),
        "seed": body.recipe.seed,
        "versions": versions(),
    }
