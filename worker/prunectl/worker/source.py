"""What a job starts from: the unpruned model on this machine, and the texts it is scored, judged and trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.attention import read_spec
from prunectl.errors import InvalidData
from prunectl.evaluation import data, encoding, images
from prunectl.evaluation.data import Example
from prunectl.evaluation.tasks import TOKEN_TASKS, Task, kind_of, reads_images, refuse_builtin, task_of, text_limit
from prunectl.jobs.lookup import find_model, hub_settings, parse_source, upload_name
from prunectl.pruning import axes, textpruner_vocabulary, vocabulary
from prunectl.pruning.vocabulary import Vocabulary
from prunectl.schemas import BUILTIN_TEXT, JobCreate
from prunectl.storage import open_storage
from prunectl.worker.assignment import Assignment
from prunectl.worker.report import Report
from prunectl.zoo import datasets
from prunectl.zoo import fetch as zoo_fetch
from prunectl.zoo.hub import HubSettings

DEFAULT_SAMPLES = 512
"""Evaluation examples of the built-in text where --max-samples names no other number."""
CALIBRATION_SAMPLES = 256
"""Calibration examples at most: scores settle long before."""
REFIT_SAMPLES, REFIT_TOKENS = 2048, 16_384
"""A refit, which solves for whole matrices, takes further texts until it has so many examples or so many tokens: bounds
that are counted, not timed, so that the same job gives the same model on every machine. Fewer than 1,024 short texts
leave some of what a refit can mend; more than 2,048 hardly help.
"""
TRAINING_IMAGES = 1024


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
    refitting: list[Example]
    """The calibration examples first, and what a refit takes besides."""
    training: list[Example]
    """What recovery may train on: all that is not for evaluation."""
    max_length: int
    bench_seq: int
    selection: list[Example]
    """What a greedy search's candidate is chosen by: neither trained nor evaluated on. Empty for any other job."""
    device: torch.device
    vocabulary: Vocabulary | None = None
    retokenised: int = 0
    """Evaluation examples that the reduced vocabulary cuts into other tokens."""


def fetch_model(assignment: Assignment, body: JobCreate, report: Report) -> Path:
    """The directory of the unpruned model on this machine."""
    environment = body.environment if assignment.embedded else None
    hub = _hub(assignment)
    own_roots = [Path(root) for root in assignment.zoo_roots]
    located = find_model(
        body.model, embedded=assignment.embedded, own_roots=own_roots, environment=environment, hub=hub
    )
    return zoo_fetch.fetch(located.pinned_to(assignment.model_identity), hub, progress=report.progress)


def fetch(assignment: Assignment, body: JobCreate, report: Report) -> Source:
    path = fetch_model(assignment, body, report)
    config = zoo_fetch.local_config(path)
    for flag in ("data", "calibration"):
        if getattr(body.evaluation, flag) == BUILTIN_TEXT:
            refuse_builtin(config, flag)
    data_rows = _rows(body.evaluation.data, "data", assignment, body.evaluation.column_names)
    data.refuse_other_kind(data_rows or (), config, "data")
    task = task_of(config, body.evaluation.task, data.labels_of(data_rows or ()))
    ready = partial(_ready, path, config, task)
    columns = body.evaluation.column_names
    data_rows = ready(data_rows, "data")
    calibration_rows = ready(_rows(body.evaluation.calibration, "calibration", assignment, columns), "calibration")
    calibration, evaluation = _examples(body, config, data_rows, calibration_rows)
    axes.check_export(config, body.recipe)
    training: list[Example] = []
    selection: list[Example] = []
    share = body.evaluation.selection
    if body.recipe.recover != "none" or share is not None:
        rows = (
            ready(_rows(body.recipe.recover_data, "recover_data", assignment, columns), "recover_data")
            or calibration_rows
            or data_rows
        )
        training = _training(rows, config, evaluation, body.recipe.seed)
    if share is not None and not body.recipe.greedy:
        selection, training = _selection(training, share)
    tokenizer = None if reads_images(config) else vocabulary.load_tokenizer(path)
    max_length = text_limit(config, body.evaluation.max_length, usual=kind_of(task).usual_length)
    refitting = calibration
    if tokenizer is not None and body.recipe.refit and len(calibration) == CALIBRATION_SAMPLES:
        # Fewer were asked for, or are all that there is: then a refit keeps to them, too.
        pool = calibration_rows or data_rows or data.builtin_python_docs()
        further = _further(pool, calibration, evaluation, body.recipe.seed)
        refitting = refit_examples(tokenizer, calibration, further, max_length)
    return Source(
        path=path,
        digest=zoo_fetch.model_digest(path),
        config=config,
        task=task,
        tokenizer=tokenizer,
        original_tokenizer=tokenizer,
        calibration=calibration,
        evaluation=evaluation,
        refitting=refitting,
        training=training,
        selection=selection,
        max_length=max_length,
        bench_seq=text_limit(config, body.evaluation.bench_seq, field="bench_seq"),
        device=torch.device("cuda" if assignment.device == "gpu" else "cpu"),
    )


def _rows(text: str | None, flag: str, assignment: Assignment, columns: Mapping[str, str]) -> list[Example] | None:
    if text is None:
        return None
    source = parse_source(text, flag=flag)
    if source.kind == "builtin":
        return data.builtin_python_docs()
    if source.hub is not None:
        hub = _hub(assignment)
        return [
            row
            for path in datasets.fetch(source.hub, hub, field=flag)
            for row in data.read(path, field=flag, columns=columns)
        ]
    assert source.digest is not None
    with open_storage(assignment.storage_url).local_path(upload_name(source.digest)) as path:
        return data.read(path, suffix=source.suffix, name=source.name, field=flag, columns=columns)


def _ready(
    path: Path, config: dict[str, Any], task: Task, rows: list[Example] | None, field: str
) -> list[Example] | None:
    """Rows whose labels are the head's numbers, and whose pictures the model in ``path`` can take."""
    if rows is None:
        return None
    rows = data.check(rows, config, task, field=field)
    size = config.get("image_size") or 224
    return images.prepared(rows, path, (size, size) if isinstance(size, int) else tuple(size))


def _hub(assignment: Assignment) -> HubSettings:
    environment = read_spec(assignment.spec).environment if assignment.embedded else None
    token = Path(assignment.hub_token_file).read_text() if assignment.hub_token_file else None
    return hub_settings(environment, token)


def _examples(
    body: JobCreate, config: dict[str, Any], rows: list[Example] | None, calibration: list[Example] | None
) -> tuple[list[Example], list[Example]]:
    """(calibration, evaluation) examples that share none, as the seed draws them."""
    builtin = rows is None or body.evaluation.data == BUILTIN_TEXT
    if reads_images(config) and rows is None:
        rows = images.random_images((body.evaluation.max_samples or DEFAULT_SAMPLES) + CALIBRATION_SAMPLES)
    rows = data.builtin_python_docs() if rows is None else rows
    limit = body.evaluation.max_samples or (DEFAULT_SAMPLES if builtin else None)
    return data.split(
        rows,
        calibration=calibration,
        n_evaluation=limit,
        n_calibration=min(CALIBRATION_SAMPLES, limit or CALIBRATION_SAMPLES),
        seed=body.recipe.seed,
    )


def refit_examples(
    tokenizer: PreTrainedTokenizerBase, calibration: list[Example], further: Sequence[Example], max_length: int
) -> list[Example]:
    """``calibration`` and as many of ``further``, in their order, as `REFIT_SAMPLES` and `REFIT_TOKENS` leave room for."""
    chosen = list(calibration)
    wanted = list(further[: max(0, REFIT_SAMPLES - len(chosen))])
    if not wanted:
        return chosen
    tokens = sum(_lengths(tokenizer, chosen, max_length))
    for example, length in zip(wanted, _lengths(tokenizer, wanted, max_length), strict=True):
        tokens += length
        if tokens > REFIT_TOKENS:
            break
        chosen.append(example)
    return chosen


def _lengths(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], max_length: int) -> list[int]:
    return [len(ids) for ids in encoding.tokenized(tokenizer, examples, max_length)["input_ids"]]


def _further(rows: list[Example], calibration: list[Example], evaluation: list[Example], seed: int) -> list[Example]:
    """What of the calibration's source is neither scored nor evaluated on."""
    return data.without(rows, [*calibration, *evaluation], seed=seed)


def _training(
    rows: list[Example] | None, config: dict[str, Any], evaluation: list[Example], seed: int
) -> list[Example]:
    """All of ``rows`` that are not evaluated on, in an order drawn by the seed."""
    if reads_images(config) and rows is None:
        rows = images.random_images(len(evaluation) + TRAINING_IMAGES)
    rows = data.builtin_python_docs() if rows is None else rows
    return data.without(rows, evaluation, seed=seed)


def _selection(training: list[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(what is chosen by, what is trained on): the first ``share`` of the training examples, and the rest."""
    number = math.ceil(share * len(training))
    if number < 2:
        raise InvalidData(
            f"{len(training)} training examples are too few to choose layers by: {share:g} of them are {number}",
            hint="name more with --recover-data, or evaluate on fewer with --max-samples",
            field="recover_data",
        )
    return training[:number], training[number:]


def with_vocabulary(
    source: Source, model: PreTrainedModel, body: JobCreate, assignment: Assignment, scratch: Path
) -> Source:
    """``source`` with the reduced tokenizer, where the recipe names a corpus.

    What a task says of single tokens can only be compared where both tokenizers cut the text alike: of those tasks,
    evaluation examples that are cut otherwise are left out. The other tasks keep them all.
    """
    rows = _rows(body.recipe.vocab, "vocab", assignment, body.evaluation.column_names)
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
