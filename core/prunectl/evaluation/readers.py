"""Readers: rows of a text, JSON Lines, CSV or Parquet file, with faults that name file and row. No torch."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator

from prunectl.evaluation.rows import COLUMNS, File, Row, require

csv.field_size_limit(2**31 - 1)  # a text may be longer than the module's 128 KiB; the upload's size is the bound


def read_text(file: File, content: bytes) -> Iterator[Row]:
    # Not splitlines(): it also splits at form feeds and the Unicode separators that may stand inside a text.
    for row, line in enumerate(_decode(file, content).split("\n"), 1):
        if line.strip():
            yield row, {"text": line}


def read_json_lines(file: File, content: bytes) -> Iterator[Row]:
    for row, line in enumerate(_decode(file, content).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise file.fault(f"is not JSON Lines: row {row}: {error}") from error
        if not isinstance(record, dict):
            raise file.fault(f"has a row {row} that is not a JSON object", hint='write {"text": "…"}, one a line')
        if "\\u" in line and not _is_unicode(record):
            raise file.fault(f"is not Unicode: row {row} has half of a surrogate pair", hint="save it as UTF-8")
        yield row, record


def read_csv(file: File, content: bytes) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(_decode(file, content), newline=""), strict=True)
    row = 0
    try:
        require(file, reader.fieldnames or ())
        for row, record in enumerate(reader, 1):
            if None in record:
                raise file.fault(f"has more fields in row {row} than its header", hint="quote texts that hold commas")
            yield row, {name: value for name, value in record.items() if value != ""}
    except csv.Error as error:
        raise file.fault(f"is not CSV: row {row + 1}: {error}") from error


def read_parquet(file: File, content: bytes) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, BufferReader, parquet
    except ImportError as error:
        raise file.fault("needs pyarrow to be read", hint="pip install 'prunectl[parquet]'") from error
    try:
        table = parquet.ParquetFile(BufferReader(content))
        columns = table.schema_arrow.names
        require(file, columns)
        wanted = {file.column(name, columns) for name in COLUMNS if file.has(name, columns)}
        records = table.read(columns=[name for name in columns if name in wanted]).to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise file.fault(f"is not Parquet: {error}") from error
    yield from enumerate(records, 1)


READERS: dict[str, Callable[[File, bytes], Iterator[Row]]] = {
    ".txt": read_text,
    ".jsonl": read_json_lines,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def _is_unicode(record: object) -> bool:
    """Whether every text of ``record`` is one: JSON's escapes can write halves of characters, which nothing reads."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _decode(file: File, content: bytes) -> str:
    """UTF-8 text without its byte-order mark and with ``\\n`` line ends."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise file.fault("is UTF-16, not UTF-8", hint="save it as UTF-8")
    if b"\0" in content:
        raise file.fault("is binary, not text")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise file.fault(
            f"is binary or not UTF-8: line {row} has the byte 0x{content[error.start]:02x}",
            hint="save it as UTF-8; compressed files are not read",
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
