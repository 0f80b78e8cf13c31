"""The header of a safetensors file, checked to the byte before anything is allocated from it. No torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from prunectl.errors import CorruptWeights

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip

Header = dict[str, tuple[str, tuple[int, ...]]]


def read_header(path: Path) -> Header:
    """Each tensor's (dtype, shape) by name, such as ``("F32", (768, 768))``.

    Raises CorruptWeights naming the file for one that is truncated or too long, a header that isn't what the format
    says, and tensors that overlap, leave gaps or disagree with their shape; MissingWeights is the caller's to raise.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            raise _fault(path, f"is truncated: it has {size} bytes")
        if length > MAX_HEADER_BYTES:
            raise _fault(path, f"claims a header of {length} bytes; the format allows {MAX_HEADER_BYTES}")
        if 8 + length > size:
            raise _fault(path, f"is truncated: its header alone needs {8 + length} bytes and it has {size}")
        raw = file.read(length)
    try:
        entries = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _fault(path, f"has a header that is not JSON: {error}") from error
    if not isinstance(entries, dict):
        raise _fault(path, "has a header that is not a JSON object")
    entries.pop("__metadata__", None)

    header: Header = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        dtype, shape, start, end = _parse(path, name, entry)
        if end - start != (bits := math.prod(shape) * BITS[dtype]) // 8 or bits % 8:
            raise _fault(
                path,
                f"has {end - start} bytes for {name}, whose {dtype} values of shape {list(shape)} need {bits / 8:g}",
            )
        header[name] = (dtype, shape)
        spans.append((start, end, name))
    _check_spans(path, spans, size - 8 - length)
    return header


def _parse(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise _fault(path, f"has an entry for {name} without dtype, shape and two data_offsets") from error
    if dtype not in BITS:
        raise _fault(path, f"has the unknown dtype {dtype!r} for {name}")
    for number in (*shape, start, end):
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise _fault(path, f"has {number!r} as a size or offset of {name}")
    return dtype, shape, start, end


def _check_spans(path: Path, spans: list[tuple[int, int, str]], available: int) -> None:
    reached = 0
    for start, end, name in sorted(spans):
        if start != reached:
            raise _fault(path, f"has {name} at byte {start}, where {reached} was due: tensors overlap or leave a gap")
        reached = end
    if reached > available:
        raise _fault(path, f"is truncated: its tensors need {reached} bytes and it holds {available}")
    if reached < available:
        raise _fault(path, f"has {available - reached} bytes that no tensor claims")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _fault(path: Path, what: str) -> CorruptWeights:
    return CorruptWeights(f"{path.name} {what}", hint="download or copy the file again", field="model", value=path.name)
