"""Stored tables: latency tables in shared storage, measured once for a machine class and a shape of model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedModel

from prunectl.evaluation import latency_table
from prunectl.evaluation.latency_table import LatencyTable, Serving
from prunectl.recipe import digest_of
from prunectl.storage.layout import latency_table_name


class Store(Protocol):
    """What of a storage is needed here."""

    def exists(self, name: str) -> bool: ...
    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class StoredTables:
    """Gives a model's table for one batch, length and number of threads.

    Two workers that measure at once both write a true table, and the later one stays.
    """

    store: Store
    batch: int
    seq: int
    threads: int
    multiple_of: int
    runtime: str | None = None
    serving: Serving | None = None
    """What runs the model where it is served, and its name; None: torch."""

    def __call__(self, model: PreTrainedModel) -> LatencyTable:
        found = latency_table.conditions(
            model,
            batch=self.batch,
            seq=self.seq,
            threads=self.threads,
            multiple_of=self.multiple_of,
            runtime=self.runtime,
        )
        name = latency_table_name(digest_of(found))
        if self.store.exists(name):
            return LatencyTable.from_json(self.store.read(name))
        table = latency_table.measure(
            model,
            batch=self.batch,
            seq=self.seq,
            threads=self.threads,
            multiple_of=self.multiple_of,
            serving=self.serving,
        )
        self.store.write(name, table.to_json())
        return table
