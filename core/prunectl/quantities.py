"""Numbers for people: bytes, seconds, counts, differences, ages."""

from __future__ import annotations

from datetime import UTC, datetime

DASH = "-"
# (unit in seconds, letter, used below so many seconds)
_SPANS = ((1, "s", 120), (60, "m", 7200), (3600, "h", 172800))


def quantity(metric: str, value: float | None) -> str:
    """``value`` in the unit that the metric's name ends with."""
    if value is None:
        return DASH
    if metric.endswith("_bytes"):
        return data_size(value)
    if metric.endswith("_seconds"):
        return seconds(value)
    if metric in ("parameters", "nonzero_parameters", "macs"):
        return count(value)
    if metric == "speedup":
        return f"{value:.2f}x"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def count(value: float) -> str:
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.1f}{unit}"
    return f"{value:g}"


def data_size(value: float) -> str:
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.0f}B"


def seconds(value: float) -> str:
    if value < 1e-3:
        return f"{value * 1e6:.3g}us"
    if value < 1:
        return f"{value * 1e3:.3g}ms"
    return f"{value:.3g}s" if value < 100 else span(value)


def span(value: float) -> str:
    """A duration in whole units that leave at least two digits where they can: 45s, 90s, 4m, 30h, 20d."""
    for unit, letter, limit in _SPANS:
        if value < limit:
            return f"{int(value // unit)}{letter}"
    return f"{int(value // 86400)}d"


def relative(before: float | None, after: float | None) -> str:
    """``(-8%)``, or nothing where there is nothing to compare."""
    if before is None or after is None or before == 0:
        return ""
    return f" ({(after - before) / before:+.0%})"


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def age(text: str | None, until: str | None = None) -> str:
    """Time since ``text`` (ISO-8601), or between it and ``until``."""
    return DASH if text is None else span(max(0.0, elapsed(text, until)))


def elapsed(since: str, until: str | None = None) -> float:
    """Seconds from ``since`` to ``until``, or to now."""
    end = instant(until) if until else datetime.now(UTC)
    return (end - instant(since)).total_seconds()
