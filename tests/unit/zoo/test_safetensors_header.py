from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from prunectl.errors import CorruptWeights
from prunectl.zoo.safetensors_header import read_header


def write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(start: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "a": np.zeros((2, 3), np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(1, np.int64),
        "half": np.zeros(5, np.float16),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    assert read_header(path) == {
        "a": ("F32", (2, 3)),
        "empty": ("F32", (0, 3)),
        "scalar": ("I64", ()),
        "half": ("F16", (5,)),
    }


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry(0, 8)}, b"\0" * 7, "truncated"),
        ({"a": entry(0, 8)}, b"\0" * 9, "1 bytes that no tensor claims"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, b"\0" * 12, "overlap"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, b"\0" * 12, "gap"),
        ({"a": entry(0, 8, [3])}, b"\0" * 8, "whose F32 values of shape [3] need 12"),
        ({"a": entry(0, 8, [2**62, 2**62])}, b"\0" * 8, "has 8 bytes for a"),
        ({"a": entry(0, 8, dtype="F33")}, b"\0" * 8, "unknown dtype 'F33'"),
        ({"a": entry(0, 8, [-2, -1])}, b"\0" * 8, "has -2 as a size"),
        ({"a": entry(0, 8, [2.0])}, b"\0" * 8, "has 2.0 as a size"),
        ({"a": entry(0, 1, [1], "F4")}, b"\0", "need 0.5"),
        ({"a": entry(8, 0, [0])}, b"\0" * 8, "has -8 bytes"),
        ({"a": {"dtype": "F32"}}, b"", "without dtype, shape and two data_offsets"),
        ({"a": 5}, b"", "without dtype"),
        ([], b"", "not a JSON object"),
        (b"{", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        (b'{"a": 1, "a": 2}', b"", "stands twice"),
        (b"\xff\xff", b"", "not JSON"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    with pytest.raises(CorruptWeights) as caught:
        read_header(write(tmp_path / "model.safetensors", header, data))
    assert "model.safetensors" in str(caught.value) and message in str(caught.value)


@pytest.mark.parametrize(("length", "message"), [(2**63, "claims a header"), (10_000, "truncated")])
def test_a_lying_length_allocates_nothing(tmp_path: Path, length: int, message: str) -> None:
    with pytest.raises(CorruptWeights, match=message):
        read_header(write(tmp_path / "model.safetensors", {}, length=length))


def test_a_file_without_room_for_a_length(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x01")
    with pytest.raises(CorruptWeights, match="truncated"):
        read_header(tmp_path / "model.safetensors")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_ends_in_corrupt_or_in_a_header_that_covers_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "model.safetensors"
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.int64)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        header = read_header(path)
    except CorruptWeights:
        return
    assert len(header) <= 2
