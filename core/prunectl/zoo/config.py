"""A model's configuration, without its weights. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache

from prunectl.errors import HubUnavailable
from prunectl.zoo.directory import CONFIG, local_config, read_json
from prunectl.zoo.hub import TIMEOUT_SECONDS, HubSettings, translated
from prunectl.zoo.resolve import Located


def read_config(located: Located, hub: HubSettings) -> dict[str, Any]:
    """config.json; of a model on the Hub this one file is downloaded.

    Raises ModelNotFound, HubForbidden, HubUnavailable, and InvalidInput for one that isn't a JSON object.
    """
    if located.path is not None:
        return local_config(located.path)
    assert located.repo_id is not None
    if not located.reached:
        # Only what is cached: a download would try for half a minute, while somebody waits for the answer to a submit.
        found = try_to_load_from_cache(located.repo_id, CONFIG, cache_dir=hub.cache, revision=located.revision)
        if not isinstance(found, str):
            raise HubUnavailable(f"{CONFIG} of {located.repo_id} can't be read: the Hub can't be reached")
        return read_json(Path(found))
    with translated(located.repo_id, located.revision, hub):
        path = hf_hub_download(
            located.repo_id,
            CONFIG,
            revision=located.revision,
            cache_dir=hub.cache,
            endpoint=hub.api.endpoint,
            token=hub.sent_token,
            etag_timeout=TIMEOUT_SECONDS,
        )
    return read_json(Path(path))
