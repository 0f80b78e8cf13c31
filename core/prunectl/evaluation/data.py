"""Examples: those of a data file, the labels that are allowed, the split into calibration and evaluation. No torch."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunectl.errors import InvalidData, InvalidInput, nearest
from prunectl.evaluation import builtin
from prunectl.evaluation.archives import read_archive
from prunectl.evaluation.readers import READERS as READERS_OF_FILES
from prunectl.evaluation.rows import Example, File, example_of
from prunectl.evaluation.tasks import LabelKind, Task, architecture_of, kind_of, reads_images
from prunectl.recipe import digest_of

_INTEGER = re.compile(r"^\s*[+-]?\d{1,9}\s*$", re.ASCII)


READERS = {**READERS_OF_FILES, ".zip": read_archive}


def read(
    path: Path,
    suffix: str | None = None,
    *,
    name: str | None = None,
    field: str = "data",
    columns: Mapping[str, str] | None = None,
) -> list[Example]:
    """The examples of a ``.txt`` (one a line, blank lines skipped), ``.jsonl``, ``.csv`` or ``.parquet`` file, or of a
    ``.zip`` of images.

    Tables and JSON rows have one of the sets of columns in `prunectl.evaluation.rows.FORMS`, such as ``text`` and
    optionally ``text_pair`` and ``label``; other columns are ignored; ``columns`` says what they are called in the file
    where it is something else (``{"text": "sentence"}``). ``suffix`` and ``name`` are those of an upload, whose path
    has neither. Raises InvalidData (``field``) naming the file, and the row where one is at fault: unknown suffix,
    missing, empty or binary file, bad JSON or CSV, missing column, row without text, tags that aren't as many as the
    words, an answer that isn't in its context, a broken image.
    """
    suffix = (suffix or path.suffix).lower()
    file = File(name or path.name, field, columns or {})
    if suffix not in READERS:
        close = nearest(suffix, READERS)
        raise file.fault(
            f"has the suffix {suffix!r}, which is none of {', '.join(READERS)}",
            hint=f"did you mean {close}?" if close else "convert it to one of these",
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(file.name, siblings)
        raise file.fault("does not exist", hint=f"did you mean {close}?" if close else None) from error
    except IsADirectoryError as error:
        raise file.fault("is a directory, not a file") from error
    except PermissionError as error:
        raise file.fault("can't be read: permission denied") from error
    if not content.strip():
        raise file.fault("is empty")
    examples = [example_of(file, row, record) for row, record in READERS[suffix](file, content)]
    if not examples:
        raise file.fault("holds no rows")
    return examples


def builtin_python_docs() -> list[Example]:
    """Thousands of paragraphs of English prose that ship inside Python; always the same on one Python release."""
    return [Example(text=text) for _, text in builtin.paragraphs()]


def check(
    examples: Sequence[Example],
    config: Mapping[str, Any],
    task: Task = "text-classification",
    *,
    field: str = "data",
) -> list[Example]:
    """The examples with each label and tag as an integer that the head of ``config`` (config.json) knows.

    Examples without any label pass as they are, and labels that ``task`` has no use for aren't looked at. Raises
    InvalidData (``field``) naming the row and what is allowed: a label or a tag that is neither a name in ``id2label``
    nor an integer in range, or some rows labelled and others not; InvalidInput (``field``) for texts that are given to
    a model of images, or the other way round.
    """
    refuse_other_kind(examples, config, field)
    kind = kind_of(task).labels
    if kind is None or all(_said(example, kind) is None for example in examples):
        return list(examples)
    without = next((example for example in examples if _said(example, kind) is None), None)
    if without is not None and kind != "label":  # of labels, what is allowed is said, too
        raise InvalidData(
            f"{_where(without)} has no {_PLURALS[kind]} although other rows have",
            hint=f"give every row its {_PLURALS[kind]}, or none",
            field=field,
        )
    names = label_names(config)
    by_name = {name: index for index, name in names.items()}
    if kind == "label":
        return [
            replace(example, label=_number(example, example.label, "label", names, by_name, field))
            for example in examples
        ]
    if kind == "tags":
        return [
            replace(
                example,
                tags=tuple(_number(example, tag, "tag", names, by_name, field) for tag in example.tags or ()),
            )
            for example in examples
        ]
    return list(examples)


def refuse_other_kind(examples: Sequence[Example], config: Mapping[str, Any], field: str) -> None:
    """Raises InvalidInput (``field``) for texts that are given to a model of images, or the other way round."""
    wanted = bool(config.get("model_type")) and reads_images(config)
    other = next((example for example in examples if (example.image is not None) != wanted), None)
    if other is None:
        return
    takes, given = ("images", "texts") if wanted else ("texts", "images")
    raise InvalidInput(
        f"{architecture_of(config)} takes {takes}, and the data has {given}",
        hint="give a folder of images, a directory for each class; or leave it out" if wanted else None,
        field=field,
    )


def labels_of(examples: Iterable[Example]) -> LabelKind | None:
    """What kind of labels the examples have, by the first that has any."""
    for example in examples:
        for kind in _PLURALS:
            if _said(example, kind) is not None:
                return kind
    return None


def label_names(config: Mapping[str, Any]) -> dict[int, str]:
    """``id2label`` of config.json; for one without, LABEL_0 … for its ``num_labels``, which is 2 if not stated."""
    named = config.get("id2label")
    if isinstance(named, Mapping) and named:
        return {int(index): str(name) for index, name in named.items()}  # JSON has made the keys strings
    return {index: f"LABEL_{index}" for index in range(int(config.get("num_labels") or 2))}


def split(
    examples: Sequence[Example],
    *,
    n_evaluation: int | None,
    n_calibration: int | None,
    seed: int,
    calibration: Sequence[Example] | None = None,
) -> tuple[list[Example], list[Example]]:
    """(calibration, evaluation), which never share a text; the same for the same input and ``seed``.

    With one source both come from it; where it has fewer distinct texts than asked for, each gets its share. None is
    all, or all that the other side leaves, at least half for evaluation. With calibration given apart, all of
    ``examples`` are for evaluation, and what is evaluated on is dropped from the calibration. Raises InvalidData where
    a side would be empty.
    """
    pool = _shuffled(examples, seed)
    if calibration is not None:
        evaluation = pool[:n_evaluation]
        held_out = {example.identity for example in evaluation}
        apart = [example for example in _shuffled(calibration, seed) if example.identity not in held_out][
            :n_calibration
        ]
        if not apart:
            raise InvalidData(
                "every calibration text is also an evaluation text, so none is left to calibrate on",
                hint="give --calibration other texts than --data",
                field="calibration",
            )
        return apart, evaluation
    if len(pool) < 2:
        raise InvalidData(
            "the data holds a single distinct text; one is needed to calibrate on and another to evaluate on",
            hint="give more rows, or calibration data of their own with --calibration",
            field="data",
        )
    half = len(pool) // 2
    if n_evaluation is None:
        n_calibration = half if n_calibration is None else min(n_calibration, half)
        n_evaluation = len(pool) - n_calibration
    wanted_evaluation = n_evaluation
    wanted_calibration = n_calibration if n_calibration is not None else max(1, len(pool) - n_evaluation)
    wanted = wanted_evaluation + wanted_calibration
    if wanted > len(pool):
        wanted_evaluation = min(max(1, round(len(pool) * wanted_evaluation / wanted)), len(pool) - 1)
        wanted_calibration = len(pool) - wanted_evaluation
    return pool[wanted_evaluation : wanted_evaluation + wanted_calibration], pool[:wanted_evaluation]


def without(examples: Sequence[Example], others: Sequence[Example], *, seed: int) -> list[Example]:
    """The distinct ``examples`` whose text is none of ``others``, in an order drawn by ``seed``."""
    known = {example.identity for example in others}
    return [example for example in _shuffled(examples, seed) if example.identity not in known]


def digest(examples: Iterable[Example]) -> str:
    """``sha256:…`` of the texts and labels in their order."""
    return digest_of([_content(example) for example in examples])


def _content(example: Example) -> list[Any]:
    told = {
        "words": example.words,
        "tags": example.tags,
        "answers": example.answers,
        "positive": example.positive,
        "image": example.image_digest,
    }
    more = {name: value for name, value in told.items() if value is not None}
    return [example.text, example.text_pair, example.label, *([more] if more else [])]


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """Each text once (its first row), in an order drawn by ``seed``."""
    first: dict[tuple[str | None, ...], Example] = {}
    for example in examples:
        first.setdefault(example.identity, example)
    distinct = list(first.values())
    random.Random(seed).shuffle(distinct)
    return distinct


_PLURALS: dict[LabelKind, str] = {"label": "label", "tags": "tags", "answers": "answers", "pair": "passage"}


def _said(example: Example, kind: LabelKind) -> Any:
    return example.positive if kind == "pair" else getattr(example, kind)


def _where(example: Example) -> str:
    return f"row {example.row}" if example.row is not None else f"the text {example.text[:40]!r}"


def _number(
    example: Example,
    label: int | str | None,
    what: str,
    names: Mapping[int, str],
    by_name: Mapping[str, int],
    field: str,
) -> int:
    if isinstance(label, str) and label in by_name:
        return by_name[label]
    index = label
    if isinstance(label, str) and _INTEGER.match(label):
        index = int(label)
    if isinstance(index, int) and index in names:
        return index
    where = _where(example)
    allowed = f"0 to {max(names)}"
    if any(name != f"LABEL_{position}" for position, name in names.items()):
        shown = [names[position] for position in sorted(names)]
        allowed += " or " + ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
    if label is None:
        raise InvalidData(
            f"{where} has no {what} although other rows have one",
            hint=f"label every row with {allowed}, or none",
            field=field,
        )
    close = nearest(label, by_name) if isinstance(label, str) else None
    raise InvalidData(
        f"{where} has the {what} {label!r}, which the model doesn't know; allowed: {allowed}",
        hint=f"did you mean {close}?" if close else None,
        field=field,
        value=label,
    )
