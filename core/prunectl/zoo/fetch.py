"""Fetching: a located model as a checked local directory. No torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError
from huggingface_hub.utils import filter_repo_objects
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from prunectl.errors import HubUnavailable, MissingWeights
from prunectl.zoo.directory import PATTERNS, check, local_config, model_digest, refuse_missing
from prunectl.zoo.hub import TIMEOUT_SECONDS, HubSettings, translated
from prunectl.zoo.listing import list_models
from prunectl.zoo.resolve import Located

__all__ = ["fetch", "list_models", "local_config", "model_digest"]

ATTEMPTS = 4
Progress = Callable[[float], None]


def fetch(located: Located, hub: HubSettings, *, progress: Progress | None = None) -> Path:
    """A local directory with the model's configuration, safetensors weights and tokenizer, all checked.

    From the Hub nothing else is downloaded; an interrupted download goes on where it stopped, and what is already in
    the cache isn't downloaded again. ``progress`` is called with the fraction of bytes that are there. Raises
    ModelNotFound, HubForbidden, HubUnavailable (after 4 attempts), DiskFull, MissingWeights, UnsafeWeights,
    CorruptWeights and MissingTokenizer.
    """
    path = located.path
    if path is None:
        assert located.repo_id is not None
        path = _download(located.repo_id, located.revision, hub, progress)
    check(path)
    if progress is not None:
        progress(1.0)
    return path


def _download(repo: str, revision: str | None, hub: HubSettings, progress: Progress | None) -> Path:
    attempts = Retrying(
        retry=retry_if_exception_type(HubUnavailable),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.5, max=8),
        reraise=True,
    )
    path = Path(attempts(_snapshot, repo, revision, hub, progress))
    try:
        check(path)
    except MissingWeights:
        # Only the Hub's listing knows of the pickled weights that weren't downloaded.
        try:
            tree = get_cached_repo_tree(repo, revision=revision, cache_dir=hub.cache)
        except CachedRepoTreeNotFoundError:
            raise MissingWeights(f"{repo} has no safetensors weights in the cache", field="model") from None
        refuse_missing(repo, [entry.path for entry in tree if "/" not in entry.path])
    return path


def _snapshot(repo: str, revision: str | None, hub: HubSettings, progress: Progress | None) -> str:
    meter = _Meter(repo, revision, hub, progress) if progress is not None else None
    with translated(repo, revision, hub):
        return snapshot_download(
            repo,
            revision=revision,
            cache_dir=hub.cache,
            endpoint=hub.api.endpoint,
            token=hub.sent_token,
            local_files_only=hub.offline,
            etag_timeout=TIMEOUT_SECONDS,
            allow_patterns=list(PATTERNS),
            ignore_patterns=["*/*"],
            max_workers=4,
            tqdm_class=_bar(meter),
        )


class _Meter:
    """Tells ``progress`` the share of the bytes to fetch; never less than it told before."""

    def __init__(self, repo: str, revision: str | None, hub: HubSettings, progress: Progress) -> None:
        self._repo, self._revision, self._cache = repo, revision, hub.cache
        self._progress = progress
        self._total: int | None = None
        self._told = 0.0
        self._lock = threading.Lock()  # files are fetched by several threads

    def reached(self, count: float) -> None:
        with self._lock:
            total = self._total_bytes()
            if not total:
                return
            share = min(1.0, count / total)
            if share > self._told:
                self._told = share
                self._progress(share)

    def _total_bytes(self) -> int | None:
        if self._total is None:
            try:
                tree = get_cached_repo_tree(self._repo, revision=self._revision, cache_dir=self._cache)
            except CachedRepoTreeNotFoundError:
                return None
            wanted = filter_repo_objects(
                tree, allow_patterns=list(PATTERNS), ignore_patterns=["*/*"], key=lambda entry: entry.path
            )
            self._total = sum(entry.size for entry in wanted)
        return self._total


def _bar(meter: _Meter | None) -> type[tqdm]:
    """A progress bar that draws nothing. huggingface_hub keeps several; the one that is ahead counts bytes."""

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*arguments, **(options | {"disable": True}))
            self.n = options.get("initial") or 0
            self.counts_bytes = options.get("unit") == "B"

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if meter is not None and self.counts_bytes:
                meter.reached(self.n)

    return Bar
