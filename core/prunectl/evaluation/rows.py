"""Rows: what a record of a data file is, by the columns that it has, as an example. No torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prunectl.errors import InvalidData, nearest
from prunectl.evaluation import pictures

Answer = tuple[str, int]
"""An answer's text and the character of the context that it starts at."""


@dataclass(frozen=True, slots=True)
class Example:
    """One text, a pair or an image, and what is right about it.

    ``label`` and ``tags`` are integers, or names until `prunectl.evaluation.data.check` has replaced them. ``row`` is
    where it stood: the line of a text or JSON Lines file, the record (header not counted) of a table.
    """

    text: str
    """Of words that are tagged, the words with spaces between them; of an image, its name; else the text."""
    text_pair: str | None = None
    """Beside a question the context that answers it."""
    label: int | str | None = None
    row: int | None = dataclasses.field(default=None, compare=False)
    words: tuple[str, ...] | None = None
    tags: tuple[int | str, ...] | None = None
    """One for each of ``words``."""
    answers: tuple[Answer, ...] | None = None
    """Any of them is right; none: the context has no answer."""
    positive: str | None = None
    """The passage that ``text``, a query, should find."""
    image: Any = dataclasses.field(default=None, repr=False)
    """The picture's file as bytes, or what has been made of it for a model."""

    @property
    def texts(self) -> tuple[str, str | None]:
        return self.text, self.text_pair

    @property
    def identity(self) -> tuple[str | None, ...]:
        """What makes it the same example, whatever is said to be right about it."""
        if self.image is not None:
            return (self.image_digest,)
        return self.text, self.text_pair, self.positive

    @property
    def image_digest(self) -> str | None:
        """``sha256:…`` of the picture's file."""
        if self.image is None:
            return None
        content = self.image if isinstance(self.image, bytes) else self.image.content
        return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True, slots=True)
class File:
    """How a fault names the file (never with its directory), and the flag that it was given by."""

    name: str
    field: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Our name of a column -> the file's; a file without that one may still have ours."""

    def column(self, ours: str, names: Iterable[str]) -> str:
        """What ``ours`` is called in this file, which has the columns ``names``."""
        theirs = self.columns.get(ours, ours)
        return theirs if theirs in names else ours

    def has(self, ours: str, names: Iterable[str]) -> bool:
        """Whether the file has ``ours``; what stands for another of our columns doesn't count as itself."""
        taken = {theirs for other, theirs in self.columns.items() if other != ours}
        name = self.column(ours, names)
        return name in names and name not in taken

    def fault(self, what: str, *, hint: str | None = None) -> InvalidData:
        return InvalidData(f"data file {self.name} {what}", hint=hint, field=self.field, value=self.name)


Row = tuple[int, Mapping[str, Any]]
"""A row's number, from 1 (of a table the header isn't counted), and its columns."""


@dataclass(frozen=True, slots=True)
class Form:
    """A kind of row: the columns that it has, and what makes an example of one."""

    required: tuple[str, ...]
    optional: tuple[str, ...]
    example: Callable[[Record], Example]
    without: tuple[str, ...] = ()
    """Columns that say it is another kind."""


class Record:
    """A row by our names of its columns."""

    def __init__(self, file: File, row: int, columns: Mapping[str, Any]) -> None:
        self.file, self.row, self._columns = file, row, columns

    def get(self, ours: str) -> Any:
        return self._columns.get(self.name(ours)) if self.file.has(ours, self._columns) else None

    def name(self, ours: str) -> str:
        return self.file.column(ours, self._columns)

    def fault(self, what: str, *, hint: str | None = None) -> InvalidData:
        return self.file.fault(f"row {self.row} {what}", hint=hint)

    def text(self, ours: str) -> str:
        """A text that must be there, as it stands."""
        value = self.get(ours)
        if value is None or (isinstance(value, str) and not value.strip()):
            wanted = self.file.columns.get(ours, ours)
            close = nearest(wanted, self._columns) if wanted not in self._columns else None
            hint = f"give --column {ours}={close}" if close else f"fill its {wanted} or delete the row"
            raise self.fault(f"has no {wanted}", hint=hint)
        if not isinstance(value, str):
            raise self.fault(f"has a {self.name(ours)} that is {type(value).__name__}, not a string")
        return value

    def label(self) -> int | str | None:
        value = self.get("label")
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of integers with gaps comes out of a table as floats
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, str))):
            raise self.fault(f"has the label {value!r}; a label is an integer or a name")
        return value

    def items(self, ours: str) -> list[Any] | None:
        """A list, which a table of text holds as JSON or with spaces between its items."""
        value = self.get(ours)
        if isinstance(value, str):
            value = self.json(ours) if value.lstrip().startswith("[") else value.split()
        if value is not None and not isinstance(value, list):
            raise self.fault(f"has {self.name(ours)} that are {type(value).__name__}, not a list")
        return value

    def json(self, ours: str) -> Any:
        value = self.get(ours)
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise self.fault(f"has {self.name(ours)} that are not JSON: {error}") from error


def example_of(file: File, row: int, columns: Mapping[str, Any]) -> Example:
    """The example of a record; raises InvalidData naming the row and what is wrong with it."""
    present = {name for name, value in columns.items() if value is not None}
    form = form_of(file, present) or FORMS[-1]
    if form is FORMS[-1] and (missing := _halves(file, present)):
        raise file.fault(f"row {row} {missing}")
    return form.example(Record(file, row, columns))


def form_of(file: File, names: Iterable[str]) -> Form | None:
    """The kind of row that has these columns; of several the one that --column speaks of, else the more special one."""
    names = set(names)
    possible = [
        form
        for form in FORMS
        if all(file.has(name, names) for name in form.required)
        and not any(file.has(name, names) for name in form.without)
    ]
    return max(
        possible,
        key=lambda form: (sum(name in file.columns for name in form.required), -FORMS.index(form)),
        default=None,
    )


def require(file: File, columns: Iterable[str]) -> None:
    """Raises InvalidData for a table whose header makes no kind of row."""
    names = [str(column) for column in columns]
    if form_of(file, names) is not None:
        return
    wanted = file.columns.get("text", "text")
    close = nearest(wanted, names)
    missing = _halves(file, names)
    raise file.fault(
        missing or f"has no column {wanted}; its columns are {', '.join(names[:20]) or 'none'}",
        hint=f"give --column text={close}" if close else "say which holds the texts: --column text=NAME",
    )


def _halves(file: File, names: Iterable[str]) -> str | None:
    """What is missing beside a column that makes no sense alone; None for a plain text."""
    names = set(names)
    if file.has("text", names):
        return None
    for has, lacks in (("tags", "tokens"), ("answers", "question"), ("context", "question"), ("question", "context"),
                       ("anchor", "positive"), ("positive", "anchor"), ("query", "text")):  # fmt: skip
        if file.has(has, names) and not file.has(lacks, names):
            wanted = file.columns.get(lacks, lacks)
            return f"has {file.column(has, names)} but no {wanted}"
    return None


def _tagged(record: Record) -> Example:
    words, tags = record.items("tokens"), record.items("tags")
    if not words or not all(isinstance(word, str) for word in words) or not any(word.strip() for word in words):
        raise record.fault(f"has no words in {record.name('tokens')}", hint='write ["a", "list", "of", "words"]')
    if tags is not None and len(tags) != len(words):
        raise record.fault(f"has {len(tags)} {record.name('tags')} for {len(words)} {record.name('tokens')}")
    for tag in tags or ():
        if isinstance(tag, bool) or not isinstance(tag, (int, str)):
            raise record.fault(f"has the tag {tag!r}; a tag is an integer or a name")
    return Example(text=" ".join(words), row=record.row, words=tuple(words), tags=None if tags is None else tuple(tags))


def _question(record: Record) -> Example:
    question, context = record.text("question"), record.text("context")
    return Example(text=question.strip(), text_pair=context, row=record.row, answers=_answers(record, context))


def _answers(record: Record, context: str) -> tuple[Answer, ...] | None:
    given, name = record.json("answers"), record.name("answers")
    if given is None:
        return None
    if isinstance(given, list) and all(isinstance(answer, dict) for answer in given):
        given = {key: [answer.get(key) for answer in given] for key in ("text", "answer_start")}
    texts, starts = (given.get(key) if isinstance(given, dict) else None for key in ("text", "answer_start"))
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise record.fault(f"has other {name} than SQuAD's", hint='write {"text": ["…"], "answer_start": [0]}')
    for text, start in zip(texts, starts, strict=True):
        if not isinstance(text, str) or not text or isinstance(start, bool) or not isinstance(start, int):
            raise record.fault(f"has {name} whose text is no string, or whose answer_start is no integer")
        if start < 0 or context[start : start + len(text)] != text:
            place = context.find(text)
            where = "is nowhere in" if place < 0 else f"is not at character {start} of"
            raise record.fault(
                f"has the answer {text[:60]!r}, which {where} its {record.name('context')}",
                hint=None if place < 0 else f"it stands at {place}",
            )
    return tuple(zip(texts, starts, strict=True))


def _pair(query: str, passage: str) -> Callable[[Record], Example]:
    def example(record: Record) -> Example:
        return Example(text=record.text(query).strip(), positive=record.text(passage).strip(), row=record.row)

    return example


def _image(record: Record) -> Example:
    value, name = record.get("image"), record.name("image")
    if isinstance(value, str):
        raise record.fault(
            f"names the image {value!r}, which a file of rows doesn't hold",
            hint="give the directory that holds the images and a metadata.jsonl or metadata.csv",
        )
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise record.fault(f"has no image in {name}")
    path = value.get("path") if isinstance(value, dict) else None
    label = record.label()
    shown = str(path or f"of row {record.row}")
    pictures.check(shown, content, field=record.file.field)
    return Example(text=shown, label=label, row=record.row, image=content)


def _text(record: Record) -> Example:
    text, pair = record.text("text"), record.get("text_pair")
    if pair is not None and not isinstance(pair, str):
        raise record.fault(f"has a {record.name('text_pair')} that is {type(pair).__name__}, not a string")
    return Example(text=text.strip(), text_pair=pair.strip() if pair else None, label=record.label(), row=record.row)


FORMS: tuple[Form, ...] = (
    Form(("tokens",), ("tags",), _tagged),
    Form(("question", "context"), ("answers",), _question),
    Form(("anchor", "positive"), (), _pair("anchor", "positive")),
    Form(("query", "text"), (), _pair("query", "text"), without=("label", "text_pair")),
    Form(("image",), ("label",), _image),
    Form(("text",), ("text_pair", "label"), _text),
)
"""The more special kinds first; plain text is what a row is otherwise."""
COLUMNS = tuple(dict.fromkeys(name for form in FORMS for name in form.required + form.optional))
"""What is read of a row."""
