"""Merges: how byte-pair encoding builds its entries. Sennrich et al. 2016, "Neural Machine Translation of Rare Words
with Subword Units". No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Pair = tuple[str, str]


class Merges:
    """The merges of a BPE model as ``tokenizer.json`` describes it, best rank first."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._pairs: list[Pair] = [_pair(merge) for merge in model["merges"]]
        self._ranks = {pair: rank for rank, pair in enumerate(self._pairs)}
        self._suffix: str = model.get("end_of_word_suffix") or ""

    def ancestors(self, entries: Iterable[str]) -> set[str]:
        """Every entry that is made on the way to one of ``entries``, these included.

        A final token's inner merges are those that encoding it alone would make: no pair across its border was ever the
        best, or it would have been merged.
        """
        found: set[str] = set()
        for entry in entries:
            symbols = self._symbols(entry)
            found.update(symbols)
            while (best := self._best(symbols)) is not None:
                symbols[best : best + 2] = [symbols[best] + symbols[best + 1]]
                found.add(symbols[best])
            found.add(entry)
        return found

    def within(self, entries: set[str]) -> list[list[str]]:
        """The merges whose parts and result are all among ``entries``, in their order."""
        return [[a, b] for a, b in self._pairs if a in entries and b in entries and a + b in entries]

    def _symbols(self, entry: str) -> list[str]:
        if self._suffix and entry.endswith(self._suffix) and entry != self._suffix:
            core = entry.removesuffix(self._suffix)
            return [*core[:-1], core[-1] + self._suffix]
        return list(entry)

    def _best(self, symbols: list[str]) -> int | None:
        """Where the pair of the best rank stands, the first of them; None where nothing can be merged."""
        last = len(self._pairs)
        ranked = [(self._ranks.get(pair, last), at) for at, pair in enumerate(zip(symbols, symbols[1:], strict=False))]
        rank, at = min(ranked, default=(last, 0))
        return None if rank == last else at


def _pair(merge: Any) -> Pair:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second
