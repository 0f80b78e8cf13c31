"""Draws the attention of a job that has ended, before and after, in the runner process: fetch, evaluate, save."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

import torch
from transformers.utils.logging import disable_progress_bar

from prunectl.attention import PAGE, AttentionJob
from prunectl.checkpoints import load as checkpoint_load
from prunectl.checkpoints import manifest
from prunectl.errors import CorruptWeights, InvalidInput
from prunectl.evaluation.attention import attention_of
from prunectl.evaluation.tasks import reads_images
from prunectl.pruning import engine, vocabulary
from prunectl.pruning.blocks import find_blocks
from prunectl.pruning.masks import Masks
from prunectl.reporting.attention_page import attention_page
from prunectl.schemas import Result, Structure
from prunectl.storage import open_storage
from prunectl.storage.local import LocalStorage
from prunectl.storage.remote import RemoteStorage
from prunectl.worker.assignment import Assignment
from prunectl.worker.provenance import machine, versions
from prunectl.worker.report import Report
from prunectl.worker.source import fetch_model
from prunectl.zoo import fetch as zoo_fetch


def run(assignment: Assignment, report: Report) -> Result:
    """Publish the page, alone in a directory; raises a PrunectlError whose code says what failed."""
    body = AttentionJob.model_validate(assignment.spec)
    asked = body.attention
    torch.set_num_threads(assignment.threads)
    disable_progress_bar()
    storage, scratch = open_storage(assignment.storage_url), Path(assignment.scratch)
    with ExitStack() as stack:
        with report.stage("fetch"):
            original = fetch_model(assignment, body, report)
            digest = zoo_fetch.model_digest(original)
            if digest != asked.model_digest:
                raise InvalidInput(
                    f"the model {body.model} is no longer the one that job {asked.job} pruned",
                    hint="run the job again; its digest is in prunectl show",
                    field="model",
                    value=body.model,
                )
            checkpoint = stack.enter_context(_at_hand(storage, asked.checkpoint, scratch / "checkpoint"))
        with report.stage("evaluate"):
            document = manifest.read_manifest(checkpoint)
            structure = _structure(document)
            config = zoo_fetch.local_config(original)
            tokenizers = [
                None if reads_images(config) else vocabulary.load_tokenizer(path) for path in (original, checkpoint)
            ]
            model = checkpoint_load.load_original(original, config)
            blocks = engine.structure_of(find_blocks(model), Masks())
            before = attention_of(model, tokenizers[0], blocks, asked.text, asked.layers)
            del model  # both at once need not fit
            report.progress(0.5)
            small = checkpoint_load.load_pruned(checkpoint)
            after = attention_of(small, tokenizers[1], structure, asked.text, asked.layers)
    with report.stage("save"):
        page = attention_page(
            before,
            after,
            title=body.model,
            job=asked.job,
            text=asked.text,
            recipe=document.get("recipe", {}),
            digest=digest,
            structure=structure,
            versions=versions(),
        )
        directory = scratch / "picture"
        directory.mkdir()
        (directory / PAGE).write_text(page, encoding="utf-8")
        manifest.seal(directory)
    uri = storage.publish(str(directory), assignment.run_name)
    return Result(
        model_digest=digest,
        metrics={},
        stages=report.stages,
        structure=Structure(layers=[]),
        artifacts={"attention": f"{uri}/{PAGE}"},
        conditions={"versions": versions(), "machine": machine(), "text_cut": before.cut or after.cut},
    )


@contextmanager
def _at_hand(storage: LocalStorage | RemoteStorage, name: str, directory: Path) -> Iterator[Path]:
    """What loading a checkpoint in the storage takes, in ``directory``; removed with the job's scratch."""
    files = [path for path in storage.list(name) if len(PurePosixPath(path).parts) == 1 and path != manifest.SUMS]
    if not files:
        raise CorruptWeights("the checkpoint is no longer in the storage", hint="run the job again")
    directory.mkdir()
    with ExitStack() as stack:
        for path in files:
            (directory / path).symlink_to(stack.enter_context(storage.local_path(f"{name}/{path}")))
        yield directory


def _structure(document: dict[str, object]) -> Structure:
    return Structure.model_validate(
        {"layers": document.get("structure") or [], "removed_layers": document.get("removed_layers") or []}
    )
