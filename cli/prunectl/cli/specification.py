"""From flags, ``--set`` and a recipe file to the body of a job. Flags win over ``--set``, ``--set`` over the file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prunectl.errors import InvalidInput
from prunectl.schemas import JobCreate, nest
from prunectl.sweep import SweepCreate, bodies, split
from prunectl.validation import parse_job, refusal

_MAPPINGS = (("tags", "tag", "team=search"), ("columns", "column", "text=sentence"))
"""Fields that are mappings, the flag that adds to each, and what it may look like."""


def job_body(flags: Mapping[str, Any], sets: Sequence[str], file: str | None) -> dict[str, Any]:
    """The nested body, checked; raises InvalidInput that names each wrong field."""
    return _as_sent(parse_job(nest(_flat(flags, sets, file))))


def sweep_body(flags: Mapping[str, Any], sets: Sequence[str], file: str | None) -> dict[str, Any]:
    """The body of a sweep, each of its jobs checked; raises InvalidInput that names each wrong field.

    Flags, ``--set`` and the file's values may list several values: `prunectl.sweep.split`.
    """
    flat = _flat(flags, sets, file)
    name, force = flat.pop("name", None), flat.pop("force", False)
    base, grid = split(flat)
    body: dict[str, Any] = {"base": nest(base), "grid": grid, "force": force}
    if name is not None:
        body["name"] = name
    try:
        create = SweepCreate.model_validate(body)
    except ValidationError as error:
        raise refusal(error.errors(include_url=False)) from None
    for _ in bodies(create):  # checks them: a wrong value is refused before anything is sent
        pass
    return body


def _flat(flags: Mapping[str, Any], sets: Sequence[str], file: str | None) -> dict[str, Any]:
    """Flags over ``--set`` over the file, by field."""
    flat = read_file(file) if file is not None else {}
    flat = {name.replace("-", "_"): value for name, value in flat.items()}
    for text in sets:
        name, value = _assignment(text)
        flat[name] = value
    for field, flag, example in _MAPPINGS:
        given = (flat.pop(flag, None), flat.pop(field, None), flags.get(field))
        if merged := {key: value for some in given for key, value in _pairs(some, flag, example).items()}:
            flat[field] = merged
    mapped = {field for field, _, _ in _MAPPINGS}
    return flat | {name: value for name, value in flags.items() if value is not None and name not in mapped}


def read_file(name: str) -> dict[str, Any]:
    """A flat YAML (or JSON) recipe file; ``-`` is stdin."""
    import yaml

    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        document = _yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"file: can't read {name!r}: {getattr(error, 'strerror', None) or error}", field="file", value=name
        ) from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"file: {name!r} is not YAML: {error}", field="file", value=name) from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise InvalidInput(
            f"file: {name!r} holds no recipe",
            field="file",
            value=name,
            hint="write one `name: value` a line, such as heads: 0.3",
        )
    return document


def _yaml(text: str) -> Any:
    """``text`` as YAML, but without YAML 1.1's numbers to the base 60 (``1:5:2`` is a range, not 3902) and its dates."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_number(self, node: Any) -> Any:
            kind = self.construct_yaml_int if node.tag.endswith("int") else self.construct_yaml_float
            return node.value if ":" in node.value else kind(node)

        def construct_date(self, node: Any) -> Any:
            return node.value

    for tag in ("int", "float"):
        Loader.add_constructor(f"tag:yaml.org,2002:{tag}", Loader.construct_number)
    Loader.add_constructor("tag:yaml.org,2002:timestamp", Loader.construct_date)
    return yaml.load(text, Loader)


def _as_sent(job: JobCreate) -> dict[str, Any]:
    return job.model_dump(mode="json", exclude_unset=True)


def _assignment(text: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InvalidInput(f"set: {text!r} is not name=value", field="set", value=text, hint="write --set heads=0.3")
    try:
        return name.strip().replace("-", "_"), _yaml(value)
    except yaml.YAMLError as error:
        raise InvalidInput(f"set: {value!r} is not YAML: {error}", field="set", value=text) from None


def _pairs(value: Any, flag: str, example: str) -> dict[str, Any]:
    """A mapping, a list of ``k=v`` or one ``k=v``, as a mapping."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return {str(key): item if isinstance(item, str) else str(item) for key, item in value.items()}
    pairs = [value] if isinstance(value, str) else list(value)
    found = {}
    for pair in pairs:
        key, equals, item = str(pair).partition("=")
        if not equals:
            raise InvalidInput(
                f"{flag}: {pair!r} is not key=value", field=flag, value=pair, hint=f"write --{flag} {example}"
            )
        found[key] = item
    return found
