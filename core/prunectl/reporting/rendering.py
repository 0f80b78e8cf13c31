"""Templates as text: HTML and SVG that load nothing from anywhere, with every value escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prunectl.quantities import data_size, quantity, seconds

HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """The template of that name in ``templates/``, filled in. A value that a template misses is an error, not a gap."""
    return _environment().get_template(template).render(**values)


def compile_templates() -> None:
    """Compile every template now; they stay compiled in this process and those that it forks."""
    for name in _environment().list_templates():
        _environment().get_template(name)


@cache
def vendored(name: str) -> str:
    """A script of others, as it was published."""
    return (HERE / "vendor" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"quantity": _quantity, "seconds": seconds, "data_size": data_size, "number": number}
    return environment


def number(value: float | None) -> str:
    """Four digits; nothing where nothing was measured."""
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _quantity(value: float | None, metric: str) -> str:
    return quantity(metric, value)
