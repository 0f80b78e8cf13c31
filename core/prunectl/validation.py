"""Pydantic's findings about a job's body, in the words of the flags: field, value, what is allowed, nearest choice.

The command line uses it before anything is sent, the service on what arrives: both refuse with the same text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError

from prunectl.errors import InvalidInput, nearest
from prunectl.recipe import Recipe
from prunectl.schemas import SPEC_FIELDS, Evaluation, JobCreate

_FLAG_NAMES = {"timeout_seconds": "timeout", "tags": "tag", "columns": "column"}
_CONTAINERS = ("body", "query", "path", "header", "recipe", "evaluation", "environment")
_BOUNDS = {"minimum": ">= {}", "exclusiveMinimum": "> {}", "maximum": "<= {}", "exclusiveMaximum": "< {}"}
_TYPES = {"number": "a number", "integer": "a whole number", "string": "text", "boolean": "true or false"}
_SHOWN = 200


def parse_job(body: Mapping[str, Any]) -> JobCreate:
    """``body`` as a job; raises InvalidInput that names each wrong field, its value and what is allowed."""
    try:
        return JobCreate.model_validate(body)
    except ValidationError as error:
        raise refusal(error.errors(include_url=False)) from None


def refusal(findings: Sequence[Any], known: Iterable[str] | None = None) -> InvalidInput:
    """One InvalidInput for all of pydantic's ``findings`` (the dictionaries of ``ValidationError.errors()``).

    ``known`` are the names that an unknown field may have meant: a job's, where None are given.
    """
    errors = explain(findings, known)
    first = errors[0]
    hints = dict.fromkeys(entry["hint"] for entry in errors if entry.get("hint"))
    return InvalidInput(
        "; ".join(entry["message"] for entry in errors[:5]),
        hint="; ".join(hints) or None,
        field=first["field"],
        value=first["value"],
        errors=errors,
    )


def explain(findings: Iterable[Any], known: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Each finding as ``{"field", "value", "message", "allowed"?, "nearest"?, "hint"?}``."""
    names = sorted(job_fields() if known is None else known)
    return [_explain(finding, names) for finding in findings]


def field_name(location: Sequence[Any]) -> str:
    """The flag's name of a pydantic location: ``("body", "recipe", "heads")`` is ``heads``."""
    parts = [part for part in location if part not in _CONTAINERS and isinstance(part, str)]
    if not parts:
        named = [str(part) for part in location if part != "body"]
        return named[-1] if named else "body"
    return _FLAG_NAMES.get(parts[0], parts[0])


def plain(value: Any, depth: int = 3) -> Any:
    """``value`` as JSON can carry it back in an error: finite, valid Unicode, and short."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and value.bit_length() > 64:  # no float or column holds it, and Python may not print it
        return plain(str(value)) if value.bit_length() < 10_000 else "a number of thousands of digits"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)) and depth:
        return [plain(item, depth - 1) for item in value[:20]]
    if isinstance(value, Mapping) and depth:
        return {plain(str(key)): plain(item, depth - 1) for key, item in list(value.items())[:20]}
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _explain(finding: Mapping[str, Any], known: list[str]) -> dict[str, Any]:
    location, kind = tuple(finding.get("loc", ())), str(finding["type"])
    value, field = plain(finding.get("input")), field_name(location)
    if kind == "extra_forbidden":
        return _unknown(str(location[-1]), value, known)
    if kind == "missing":
        return {"field": field, "value": None, "message": f"{field} is missing", "allowed": _allowed(field)}
    if kind in ("value_error", "assertion_error"):
        message = str(finding["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return {"field": field, "value": value, "message": f"{field}: {message}" if field in _properties() else message}
    allowed = _allowed(field) or _lower(str(finding["msg"]).removeprefix("Input should be "))
    entry: dict[str, Any] = {"field": field, "value": value, "allowed": allowed}
    entry["message"] = f"{field}: {value!r} is not valid; allowed is {allowed}"
    choice = nearest(str(value), _choices(field))
    if choice is not None:
        entry |= {"nearest": choice, "hint": f"did you mean {choice}?"}
    elif (fraction := _as_percent(field, value)) is not None:
        entry |= {"nearest": fraction, "hint": f"fractions, not per cent: did you mean {fraction}?"}
    elif (bound := _bound(field, value) or _passed_bound(finding)) is not None:
        entry |= {"nearest": bound, "hint": f"the nearest is {bound}"}
    return entry


def _unknown(name: str, value: Any, known: list[str]) -> dict[str, Any]:
    name = plain(name)
    entry: dict[str, Any] = {"field": name, "value": value, "message": f"{name!r} is not a field", "allowed": known}
    choice = nearest(name, known)
    if choice is not None:
        entry |= {"nearest": choice, "hint": f"did you mean {choice}?"}
    return entry


def job_fields() -> Iterable[str]:
    """Every name that a job's flags and recipe file have."""
    return (_FLAG_NAMES.get(field, field) for fields in SPEC_FIELDS.values() for field in fields)


@cache
def _properties() -> dict[str, dict[str, Any]]:
    """JSON schema of every field that has a flag."""
    found: dict[str, dict[str, Any]] = {}
    for model in (JobCreate, Evaluation, Recipe):
        for name, schema in model.model_json_schema()["properties"].items():
            found[_FLAG_NAMES.get(name, name)] = _options(schema)[0]
    return found


def _options(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a field may be, null left out; the first is what most people write."""
    parts = schema.get("anyOf") or schema.get("oneOf")
    if parts is None:
        return [] if schema.get("type") == "null" else [dict(schema)]
    return [option for part in parts for option in _options(part)]


def _choices(field: str) -> list[str]:
    schema = _properties().get(field, {})
    return [str(choice) for choice in schema.get("enum", [schema["const"]] if "const" in schema else ())]


def _allowed(field: str) -> str | None:
    schema = _properties().get(field)
    if schema is None:
        return None
    if field == "timeout":
        return "a duration such as 90s, 10m or 2h, at most 30d"
    if choices := _choices(field):
        return ", ".join(choices)
    if schema.get("type") == "array":
        schema = schema.get("items", {})
    kind = _TYPES.get(str(schema.get("type")))
    if kind is None:
        return None
    bounds = [text.format(schema[name]) for name, text in _BOUNDS.items() if name in schema]
    if "maxLength" in schema:
        bounds.append(f"at most {schema['maxLength']} characters")
    return " ".join([kind, " and ".join(bounds)]).strip()


def _as_percent(field: str, value: Any) -> str | None:
    """``30`` given for a fraction below 1 was most likely meant as 30 %."""
    if _properties().get(field, {}).get("exclusiveMaximum") != 1:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return f"{number / 100:g}" if 2 <= number < 100 else None


def _bound(field: str, value: Any) -> str | None:
    """The bound that a number lies beyond, where the bound itself is allowed."""
    schema = _properties().get(field, {})
    schema = schema.get("items", {}) if schema.get("type") == "array" else schema
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if lowest is not None and number < lowest:
        return str(lowest)
    return str(highest) if highest is not None and number > highest else None


def _passed_bound(finding: Mapping[str, Any]) -> str | None:
    """The same of a finding that names the bound, for fields that no flag has."""
    name = {"greater_than_equal": "ge", "less_than_equal": "le"}.get(str(finding["type"]))
    bound = finding.get("ctx", {}).get(name)
    return None if bound is None else str(bound)


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
