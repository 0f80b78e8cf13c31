"""Residency: what of a memory-mapped model stays in memory.

Loaded weights are pages of their file, mapped privately: they become resident as they are read, and stay so after the
tensor that they belonged to has been replaced by a smaller one. As long as nobody has written to the mapping the file
still has every byte, so the pages can be dropped without loss; what is needed again is read again, by the tensor.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

WORTHWHILE_BYTES = 64 * 2**20
"""Smaller models are left alone: reading the process's memory map takes milliseconds."""
_DONTNEED = 4  # MADV_DONTNEED
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)")


@dataclass(slots=True)
class Mapping:
    """A range of addresses, the inode of the file behind it (0: none), and how many of its bytes were written to."""

    start: int
    end: int
    private: bool
    inode: int
    written: int | None = None


def release(model: nn.Module) -> int:
    """Drop the resident pages of the files that ``model``'s tensors are mapped from; the bytes of those mappings.

    Nothing is lost: mappings that were written to are left alone, as is memory that belongs to no file. A system
    without ``/proc/self/smaps``, or that refuses, keeps its pages: then 0.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) < WORTHWHILE_BYTES:
        return 0
    addresses = sorted(tensor.data_ptr() for tensor in tensors if tensor.device.type == "cpu" and tensor.numel())
    released = 0
    for mapping in _mappings(Path("/proc/self/smaps")):
        clean = mapping.private and mapping.inode and mapping.written == 0
        if clean and any(mapping.start <= address < mapping.end for address in addresses):
            size = mapping.end - mapping.start
            if ctypes.CDLL(None).madvise(ctypes.c_void_p(mapping.start), ctypes.c_size_t(size), _DONTNEED) == 0:
                released += size
    return released


def _mappings(smaps: Path) -> Iterator[Mapping]:
    try:
        text = smaps.read_text(errors="replace")
    except OSError:  # another system, or one that hides it: pages stay as they are
        return
    current: Mapping | None = None
    for line in text.splitlines():
        if found := _MAPPING.match(line):
            if current is not None:
                yield current
            start, end, rights, inode = found.groups()
            current = Mapping(int(start, 16), int(end, 16), rights[3] == "p", int(inode))
        elif current is not None and line.startswith(("Anonymous:", "Swap:")):
            current.written = (current.written or 0) + int(line.split()[1]) * 1024
    if current is not None:
        yield current
