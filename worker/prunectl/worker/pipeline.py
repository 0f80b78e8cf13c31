"""The stages of a job, in the runner process: fetch, baseline, score, prune, save, reload, evaluate, benchmark,
export.

Nothing here knows of databases or Celery. The checkpoint grows in the attempt's scratch directory and is published whole at the end.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from prunectl.checkpoints import load as checkpoint_load
from prunectl.checkpoints import precision
from prunectl.checkpoints import save as checkpoint_save
from prunectl.evaluation import data, encoding, gates, quality
from prunectl.recipe import BUDGETS, Recipe
from prunectl.recovery.recover import recover
from prunectl.reporting.job_report import job_report
from prunectl.schemas import JobCreate, Measure, Result
from prunectl.storage import open_storage
from prunectl.worker import exporting, greedy_search, selection, stage_sharing, steps
from prunectl.worker.assignment import Assignment
from prunectl.worker.measuring import (
    BATCH_SIZE,
    batches,
    benchmark,
    counts,
    figures,
    merged,
    objective_of,
    quality_of,
    scale_texts,
    texts_a_batch,
    weight_bytes,
)
from prunectl.worker.progress_files import TrainingKeeper
from prunectl.worker.provenance import cpu_seconds, finished_view, machine, provenance, versions
from prunectl.worker.reload import Prover, reload_and_compare
from prunectl.worker.report import Report, Wanted
from prunectl.worker.shared_results import SharedResults
from prunectl.worker.source import fetch, with_vocabulary
from prunectl.worker.stored_tables import StoredTables
from prunectl.zoo import directory

CURVE = "curve.json"
PROBE_EXAMPLES, PROBE_LENGTH = 4, 32
"""What the reload check runs: small, since a masked-language model answers with a whole vocabulary at each position."""


def run(assignment: Assignment, report: Report, *, prover: Prover | None = None) -> Result | Wanted:
    """Prune, prove and measure one model; raises a PrunectlError whose code says what failed.

    ``prover`` is the fresh process that the reload stage asks; None: it starts one.
    A greedy search may want candidates tried first: then it ends with those, before a model is loaded.
    """
    body = JobCreate.model_validate(assignment.spec)
    torch.set_num_threads(assignment.threads)
    disable_progress_bar()  # bars of carriage returns make a log unreadable
    scratch, checkpoint = Path(assignment.scratch), Path(assignment.scratch) / "checkpoint"
    storage = open_storage(assignment.storage_url)

    with report.stage("fetch"):
        source = fetch(assignment, body, report)
    found, recipe = None, body.recipe
    if recipe.greedy:
        looked = greedy_search.look(assignment, body, source, storage, report)
        if isinstance(looked, Wanted):
            return looked
        found, recipe = looked, looked.recipe
    candidate = body.evaluation.selection is not None and found is None
    with report.stage("fetch"):
        model = checkpoint_load.load_original(source.path, source.config).to(source.device)  # type: ignore[arg-type]
        source = with_vocabulary(source, model, body, assignment, scratch)

    dtype = precision.stored_dtype(directory.check(source.path))
    row_of = partial(steps.ledger_row, bytes_a_weight=dtype.itemsize)
    shared = SharedResults(storage)
    with report.stage("baseline") as stage:
        metrics = counts(model, source.bench_seq, "before")
        metrics["model_bytes"] = Measure(before=weight_bytes(source.path))
        ask = partial(
            quality.reference,
            model,
            source.original_tokenizer,
            source.task,
            source.evaluation,
            max_length=source.max_length,
            batch_size=texts_a_batch(source),
            seed=body.recipe.seed,
            kept_ids=source.vocabulary.rows if source.vocabulary else None,
        )
        reference, stage.reused = stage_sharing.reference(
            shared, source, model, body.recipe.seed, texts_a_batch(source), ask
        )
        before = quality.summarise(reference, reference, seed=body.recipe.seed)
        unpruned = quality.compare(before, before)
        metric = gates.primary_metric(source.task, unpruned, body.evaluation.metric)
        row = row_of("original", model, metric, figures(before, metric))
        ledger = [row.model_copy(update={"value": unpruned[metric].before})]
        chosen_by = selection.of_unpruned(model, source, body.recipe.seed) if candidate else None

    taken: list[steps.Step] = []

    def after_step(step: steps.Step, current: PreTrainedModel) -> None:
        taken.append(step)
        if len(taken) < len(_steps_of(recipe)):  # the last step's quality is what the stage evaluate finds
            now = quality_of(current, source, body.recipe.seed, reference)
            ledger.append(row_of(step, current, metric, figures(now, metric)))

    probe = encoding.probe(
        model, source.tokenizer, source.evaluation[:PROBE_EXAMPLES], min(PROBE_LENGTH, source.max_length)
    )
    further = len(source.refitting) > len(source.calibration)  # else a refit takes the batches that the scores take
    refit_batch_size = texts_a_batch(source) if further else BATCH_SIZE
    outcome = steps.run(
        model,
        recipe,
        tokenizer=source.original_tokenizer,
        vocabulary=source.vocabulary,
        probe=probe,
        make_objective=partial(objective_of, source, source.calibration, body.recipe.seed),
        make_refit_objective=partial(objective_of, source, source.refitting, body.recipe.seed) if further else None,
        share=partial(stage_sharing.scores, shared, source, model, body.recipe, BATCH_SIZE),
        share_weights=partial(stage_sharing.token_weights, shared, source, model, body.recipe, refit_batch_size),
        report=report,
        workspace=scratch / "engine",
        batch_size=BATCH_SIZE,
        refit_batch_size=refit_batch_size,
        after_step=after_step,
        bench_seq=source.bench_seq,
        timing=StoredTables(
            storage,
            batch=body.evaluation.bench_batch[0],
            seq=source.bench_seq,
            threads=assignment.threads,
            multiple_of=body.recipe.multiple_of,
            runtime=exporting.runtime_of(body.recipe),
            serving=exporting.serving(body.recipe, scratch, assignment.threads, token_types="token_type_ids" in probe),
        ),
    )
    pruned, objective = outcome.pruned, outcome.objective
    expected, recovery = outcome.expected, None
    keeper = TrainingKeeper(storage, assignment.job_id)
    if found is not None and recipe.recover != "none":
        with report.stage("recover"):
            greedy_search.adopt(model, found, storage, scratch)
            recovery = found.recovery
        after_step("recover", model)
        expected = steps.outputs(model, probe)
    elif recipe.recover != "none":
        with report.stage("recover"):
            course = recover(
                model,
                recipe,
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
            recovery = course.model_dump(mode="json")
        after_step("recover", model)
        expected = steps.outputs(model, probe)
    stored = precision.round_to(model, dtype)
    if stored is not torch.float32 and (pruned.refit or recovery):  # else every weight is one of the original's
        expected = steps.outputs(model, probe)
    metrics = merged(metrics, counts(model, source.bench_seq, "after"))

    with report.stage("save"):
        checkpoint_save.save(
            model,
            source=source.path,
            directory=checkpoint,
            recipe=body.recipe,
            pruned=pruned,
            provenance=provenance(assignment, body, source, objective),
            dtype=stored,
        )
        metrics["model_bytes"].after = weight_bytes(checkpoint)
    del model

    reloaded = None
    if not candidate:  # the search proves its winner; of the others only the quality counts
        with report.stage("reload"):
            prove = partial(
                reload_and_compare,
                prover=prover,
                original=source.path,
                checkpoint=checkpoint,
                scratch=scratch,
                inputs=probe,
                expected=expected,
                bench_batch=body.evaluation.bench_batch[0],
                bench_seq=source.bench_seq,
                threads=assignment.threads,
            )
            reloaded = stage_sharing.reloaded(
                shared,
                source,
                body.evaluation.bench_batch[0],
                assignment.threads,
                lambda known: prove(memory_before_bytes=known),
            )
            metrics["peak_memory_bytes"] = Measure(
                before=reloaded.memory_before_bytes, after=reloaded.memory_after_bytes
            )

    with report.stage("evaluate"):
        small = checkpoint_load.load_pruned(checkpoint).to(source.device)  # type: ignore[arg-type]
        after = quality_of(small, source, body.recipe.seed, reference)
        metrics |= quality.compare(before, after)
        last = row_of(taken[-1], small, metric, figures(after, metric))
        ledger[0] = ledger[0].model_copy(update={"model_bytes": metrics["model_bytes"].before})
        ledger.append(last.model_copy(update={"model_bytes": metrics["model_bytes"].after}))
        chosen = chosen_by(small) if chosen_by is not None else {}

    timing_conditions: dict[str, Any] = {}
    if not candidate:
        with report.stage("benchmark"):
            original = checkpoint_load.load_original(source.path, source.config).to(source.device)  # type: ignore[arg-type]
            timings, timing_conditions = benchmark(original, small, body.evaluation, source, assignment.threads, report)
            metrics |= timings

    exported, scaling = exporting.Exported(), list[dict[str, Tensor]]()
    if body.recipe.export is not None:
        with report.stage("export"):
            if body.recipe.quantize == "int8-static":
                scaling = scale_texts(small, source, body.recipe.seed)
            exported = exporting.export(
                small,
                body.recipe,
                checkpoint,
                texts=batches(small, source),
                scale_texts=scaling,
                judge=partial(quality_of, source=source, seed=body.recipe.seed, reference=reference)
                if exporting.can_judge(small, source.task)
                else None,
                before=metrics,
                batch=body.evaluation.bench_batch[0],
                seq=source.bench_seq,
                threads=assignment.threads,
            )
            metrics |= exported.metrics
            if "onnx_int8" in exported.qualities:
                row = row_of("quantize", small, metric, figures(exported.qualities["onnx_int8"], metric))
                ledger.append(row.model_copy(update={"model_bytes": exported.bytes["onnx_int8"]}))

    result = Result(
        model_digest=source.digest,
        metrics=metrics,
        stages=report.stages,
        structure=pruned.structure,
        artifacts={},
        gate=gates.verdict(gates.conditions_of(body.evaluation, source.task, metrics), metrics),
        ledger=ledger,
        selection=chosen,
        search=None if found is None else found.record,
        labels=objective.labels,
        conditions={
            **timing_conditions,
            "task": source.task,
            **({"data": "images" if body.evaluation.data else "random images"} if source.tokenizer is None else {}),
            "n_calibration": len(source.calibration),
            **({"n_refit": len(source.refitting)} if pruned.refit else {}),
            "n_evaluation": len(source.evaluation),
            "max_length": source.max_length,
            "batch_size": BATCH_SIZE,
            "evaluation_batch_size": texts_a_batch(source),
            "data_digest": data.digest(source.evaluation),
            "calibration_digest": data.digest(source.calibration),
            "primary_metric": metric,
            **({"retokenised_examples": source.retokenised} if source.vocabulary else {}),
            **({"recovery": recovery} if recovery else {}),
            **({"refit": pruned.refit.summary()} if pruned.refit else {}),
            **({"reload_max_abs_difference": reloaded.max_abs_difference} if reloaded else {}),
            **({"n_selection": len(source.selection)} if candidate else {}),
            **({"quantize": body.recipe.quantize} if body.recipe.quantize else {}),
            **({"n_scales": len(scaling)} if scaling else {}),
            "cpu_seconds": round(cpu_seconds(), 3),
            "seed": body.recipe.seed,
            "weights_dtype": str(stored).removeprefix("torch."),
            "versions": versions(),
            "machine": machine(),
        },
    )
    files = {**exported.files, "report": checkpoint_save.REPORT}
    if outcome.curve is not None:
        document = {"schema_version": 1, "seq": source.bench_seq, "points": outcome.curve}
        (checkpoint / CURVE).write_text(json.dumps(document))
        files["curve"] = CURVE
    uri = storage.uri(assignment.run_name)
    artifacts = {"checkpoint": uri, **{name: f"{uri}/{path}" for name, path in files.items()}}
    result = result.model_copy(update={"artifacts": artifacts})
    report_page = job_report(finished_view(assignment, body, result))
    checkpoint_save.finalise(checkpoint, result, model_name=body.model, report=report_page)
    storage.publish(str(checkpoint), assignment.run_name)
    keeper.forget()
    return result


def _steps_of(recipe: Recipe) -> list[str]:
    """The steps that the recipe takes; heads and neurons are one."""
    units = ("heads", "ffn", *BUDGETS)
    pruning = dict.fromkeys("heads+ffn" if axis in units else axis for axis in recipe.axes)
    return [*pruning, *(["recover"] if recipe.recover != "none" else [])]
