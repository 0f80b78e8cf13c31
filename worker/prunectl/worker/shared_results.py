"""Shared results: what jobs of one model compute alike, computed once and kept in shared storage under its digest.

An entry's name is the digest of all that its content depends on, so it is never changed and never out of date. It is one
safetensors file, published whole, with a digest of its arrays inside: one that doesn't add up is computed again.

Whoever computes holds a lease, a small file that it writes anew every few seconds. Those who wait judge it by their own
clock alone: a lease whose content stays the same for long is a dead holder's. Object stores have no "create unless it is
there", so two that start in the same instant may both compute; they write equal entries, and only time is lost.
"""

from __future__ import annotations

import _thread
import hashlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from prunectl.errors import PrunectlError
from prunectl.recipe import digest_of
from prunectl.storage.layout import shared_lease_name, shared_name

logger = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
"""How often a holder writes its lease."""
DEAD_SECONDS = 30.0
"""How long a lease may stay the same before its holder counts as dead: six beats."""
POLL_SECONDS = 0.5
WAIT_SECONDS = 900.0
"""Longest wait for a live holder; then a job computes for itself, for it has a time limit of its own."""

Arrays = dict[str, NDArray[Any]]
Facts = dict[str, str]


class Store(Protocol):
    """What of a storage is needed here."""

    def size(self, name: str) -> int | None: ...
    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def remove(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Found:
    """Arrays, what is said of them, and whether another job had computed them."""

    arrays: Arrays
    facts: Facts
    reused: bool


@dataclass(frozen=True, slots=True)
class SharedResults:
    """Results in ``store``. A storage that fails costs the sharing, never the job."""

    store: Store
    beat_seconds: float = BEAT_SECONDS
    dead_seconds: float = DEAD_SECONDS
    poll_seconds: float = POLL_SECONDS
    wait_seconds: float = WAIT_SECONDS

    def get(self, stage: str, conditions: Mapping[str, Any], compute: Callable[[], tuple[Arrays, Facts]]) -> Found:
        """The entry of ``stage`` for ``conditions`` (JSON-serialisable: all that it depends on); computed where there is
        none and nobody alive is at it. Raises what ``compute`` raises.
        """
        key = digest_of(dict(conditions))
        entry, lease = shared_name(stage, key), shared_lease_name(stage, key)
        token = uuid.uuid4().hex
        try:
            found = self._found_or_leased(entry, lease, token)
        except (PrunectlError, OSError) as error:
            logger.warning("can't share stage %s, so it is computed: %s", stage, error)
            found = None
        if found is not None:
            return found
        with self._beating(lease, token):
            arrays, facts = compute()
            try:
                self.store.write(entry, packed(arrays, facts))
            except (PrunectlError, OSError) as error:
                logger.warning("stage %s stays this job's own: %s", stage, error)
        return Found(arrays, facts, False)

    def _found_or_leased(self, entry: str, lease: str, token: str) -> Found | None:
        """What another job has computed, or None with the lease taken."""
        seen, since, started = b"", time.monotonic(), time.monotonic()
        while True:
            if (found := self._entry(entry)) is not None:
                return found
            now, beat = time.monotonic(), self._lease(lease)
            if beat != seen:
                seen, since = beat, now
            if not beat or now - since >= self.dead_seconds or now - started >= self.wait_seconds:
                self.store.write(lease, _beat(token, 0))
                if token.encode() in self._lease(lease):  # the last of two that write at once goes on alone
                    return self._entry(entry)  # it may have been finished between our look and our lease
                continue
            time.sleep(self.poll_seconds)

    def _entry(self, name: str) -> Found | None:
        if self.store.size(name) is None:
            return None
        try:
            arrays, facts = unpacked(self.store.read(name))
        except ValueError as error:
            logger.warning("%s is damaged (%s): it is computed again", name, error)
            return None
        return Found(arrays, facts, True)

    def _lease(self, name: str) -> bytes:
        """Its content; empty: there is none."""
        try:
            return self.store.read(name) if self.store.size(name) is not None else b""
        except (PrunectlError, FileNotFoundError):  # removed between the two
            return b""

    @contextmanager
    def _beating(self, lease: str, token: str) -> Iterator[None]:
        done, begun, ended = threading.Event(), threading.Event(), threading.Event()

        def beat() -> None:
            number = 0
            try:
                begun.set()
                while not done.wait(self.beat_seconds):
                    number += 1
                    try:
                        self.store.write(lease, _beat(token, number))
                    except (PrunectlError, OSError) as error:
                        logger.warning("can't renew the lease %s: %s", lease, error)
            finally:
                ended.set()

        # Not `Thread.start`: that waits for ever for a thread that dies at once, for want of memory. Without beats others
        # take the lease for a dead holder's, and compute for themselves.
        try:
            _thread.start_new_thread(beat, ())
        except RuntimeError as error:
            logger.warning("can't renew the lease %s: %s", lease, error)
        try:
            yield
        finally:
            done.set()
            if begun.is_set():  # what begins later writes nothing
                ended.wait()
            try:
                if token.encode() in self._lease(lease):
                    self.store.remove(lease)
            except (PrunectlError, OSError) as error:
                logger.warning("the lease %s is left to expire: %s", lease, error)


def packed(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> bytes:
    """A safetensors file with a digest of its own content."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(whole, metadata={"facts": json.dumps(dict(facts)), "sha256": _digest(whole, facts)})


def unpacked(data: bytes) -> tuple[Arrays, Facts]:
    """The inverse of `packed`. Raises ValueError where a byte is missing or another than was written."""
    try:
        arrays = load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size])["__metadata__"]
        facts: Facts = json.loads(metadata["facts"])
        stated = metadata["sha256"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a shared result: {error}") from error
    if _digest(arrays, facts) != stated:
        raise ValueError("its digest is another")
    return arrays, facts


def _digest(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> str:
    total = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype.str} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _beat(token: str, number: int) -> bytes:
    return json.dumps({"token": token, "beat": number}).encode()
