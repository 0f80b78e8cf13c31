"""Which service a command talks to: the one that ``PRUNECTL_API_URL`` names, or the embedded stack."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prunectl.cli.client import Client
from prunectl.errors import InvalidInput
from prunectl.settings import Settings

_TRUE = frozenset({"1", "true", "yes", "on"})


def load_settings() -> Settings:
    """Settings from the environment; raises InvalidInput that names the variable at fault."""
    try:
        return Settings()
    except ValidationError as error:
        errors = [
            {"field": f"PRUNECTL_{finding['loc'][0]}".upper(), "message": finding["msg"], "value": finding["input"]}
            for finding in error.errors()
        ]
        text = "; ".join(f"{entry['field']}={entry['value']!r}: {entry['message']}" for entry in errors)
        raise InvalidInput(text, hint="prunectl config lists the variables") from None


@contextmanager
def connect() -> Iterator[Client]:
    """A client of the service in charge. Starts the embedded stack where that is the one and it is not running."""
    client = _client(load_settings())
    try:
        yield client
    finally:
        client.close()


def _client(settings: Settings) -> Client:
    if settings.api_url:
        # Without a token it is asked all the same: what doesn't answer is unreachable, what does says that it needs one.
        token = settings.api_token.get_secret_value() if settings.api_token else None
        return Client(settings.api_url, token)
    from prunectl.cli.host import control

    endpoint = control.ensure(settings)
    return Client(
        endpoint.url,
        endpoint.token,
        environment=surroundings(os.environ),
        hub_token=os.environ.get("HF_TOKEN") or None,
        unreachable_hint="prunectl status; `prunectl down` and `prunectl up` restart the embedded stack",
    )


def surroundings(variables: Mapping[str, str]) -> dict[str, Any]:
    """This command's surroundings as a `prunectl.schemas.Environment`: every path absolute, defaults spelt out."""
    cache = Path(variables.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    hub_home = Path(variables.get("HF_HOME") or cache / "huggingface").expanduser()
    roots = [part for part in variables.get("PRUNECTL_MODEL_PATH", "").split(os.pathsep) if part]
    return {
        "cwd": str(Path.cwd()),
        "model_path": [str(Path(part).expanduser().absolute()) for part in roots],
        "hf_home": str(hub_home.absolute()),
        "hf_endpoint": variables.get("HF_ENDPOINT") or None,
        "hf_hub_offline": variables.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE,
    }
