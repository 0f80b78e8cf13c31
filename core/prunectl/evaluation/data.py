"""Examples: those of a data file, the labels that are allowed, the split into calibration and evaluation. No torch."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunectl.errors import InvalidData, nearest
from prunectl.evaluation import builtin
from prunectl.evaluation.readers import COLUMNS, READERS, File
from prunectl.recipe import digest_of

_INTEGER = re.compile(r"^\s*[+-]?\d{1,9}\s*$", re.ASCII)


@dataclass(frozen=True, slots=True)
class Example:
    """One text, or a pair, and its label: an integer, or a name until `check` has replaced it by its integer.

    ``row`` is where it stood: the line of a text or JSON Lines file, the record (header not counted) of a table.
    """

    text: str
    text_pair: str | None = None
    label: int | str | None = None
    row: int | None = dataclasses.field(default=None, compare=False)

    @property
    def texts(self) -> tuple[str, str | None]:
        return self.text, self.text_pair


def read(
    path: Path,
    suffix: str | None = None,
    *,
    name: str | None = None,
    field: str = "data",
    columns: Mapping[str, str] | None = None,
) -> list[Example]:
    """The examples of a ``.txt`` (one a line, blank lines skipped), ``.jsonl``, ``.csv`` or ``.parquet`` file.

    Tables and JSON rows have ``text`` and optionally ``text_pair`` and ``label``; other columns are ignored;
    ``columns`` says what they are called in the file where it is something else (``{"text": "sentence"}``).
    ``suffix`` and ``name`` are those of an upload, whose path has neither. Raises InvalidData (``field``) naming the
    file, and the row where one is at fault: unknown suffix, missing, empty or binary file, bad JSON or CSV, missing
    column, row without text.
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
    examples = [_example(file, row, record) for row, record in READERS[suffix](file, content)]
    if not examples:
        raise file.fault("holds no rows")
    return examples


def builtin_python_docs() -> list[Example]:
    """Thousands of paragraphs of English prose that ship inside Python; always the same on one Python release."""
    return [Example(text=text) for _, text in builtin.paragraphs()]


def check(examples: Sequence[Example], config: Mapping[str, Any]) -> list[Example]:
    """The examples with each label as an integer that the classification head of ``config`` (config.json) knows.

    Examples without any label pass as they are. Raises InvalidData (field ``data``) naming the row and what is allowed:
    a label that is neither a name in ``id2label`` nor an integer in range, or some rows labelled and others not.
    """
    if all(example.label is None for example in examples):
        return list(examples)
    names = label_names(config)
    by_name = {name: index for index, name in names.items()}
    return [replace(example, label=_label(example, names, by_name)) for example in examples]


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
        held_out = {example.texts for example in evaluation}
        apart = [example for example in _shuffled(calibration, seed) if example.texts not in held_out][:n_calibration]
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
    known = {example.texts for example in others}
    return [example for example in _shuffled(examples, seed) if example.texts not in known]


def digest(examples: Iterable[Example]) -> str:
    """``sha256:…`` of the texts and labels in their order."""
    return digest_of([[example.text, example.text_pair, example.label] for example in examples])


def _shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """Each text once (its first row), in an order drawn by ``seed``."""
    first: dict[tuple[str, str | None], Example] = {}
    for example in examples:
        first.setdefault(example.texts, example)
    distinct = list(first.values())
    random.Random(seed).shuffle(distinct)
    return distinct


def _label(example: Example, names: Mapping[int, str], by_name: Mapping[str, int]) -> int:
    label = example.label
    if isinstance(label, str) and label in by_name:
        return by_name[label]
    index = label
    if isinstance(label, str) and _INTEGER.match(label):
        index = int(label)
    if isinstance(index, int) and index in names:
        return index
    where = f"row {example.row}" if example.row is not None else f"the text {example.text[:40]!r}"
    allowed = f"0 to {max(names)}"
    if any(name != f"LABEL_{position}" for position, name in names.items()):
        shown = [names[position] for position in sorted(names)]
        allowed += " or " + ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
    if label is None:
        raise InvalidData(
            f"{where} has no label although other rows have one",
            hint=f"label every row with {allowed}, or none",
            field="data",
        )
    close = nearest(label, by_name) if isinstance(label, str) else None
    raise InvalidData(
        f"{where} has the label {label!r}, which the model doesn't know; allowed: {allowed}",
        hint=f"did you mean {close}?" if close else None,
        field="data",
        value=label,
    )


def _example(file: File, row: int, record: Mapping[str, Any]) -> Example:
    names = [file.column(ours, record) for ours in COLUMNS]
    text, pair, label = (record.get(theirs) for theirs in names)
    if text is None or (isinstance(text, str) and not text.strip()):
        wanted = file.columns.get("text", "text")
        close = nearest(wanted, record) if wanted not in record else None
        hint = f"give --column text={close}" if close else f"fill its {wanted} or delete the row"
        raise file.fault(f"row {row} has no {wanted}", hint=hint)
    for name, value in zip(names[:2], (text, pair), strict=True):
        if value is not None and not isinstance(value, str):
            raise file.fault(f"row {row} has a {name} that is {type(value).__name__}, not a string")
    if isinstance(label, float) and label.is_integer():
        label = int(label)  # a column of integers with gaps comes out of a table as floats
    if label is not None and (isinstance(label, bool) or not isinstance(label, (int, str))):
        raise file.fault(f"row {row} has the label {label!r}; a label is an integer or a name")
    return Example(text=text.strip(), text_pair=pair.strip() if pair else None, label=label, row=row)
