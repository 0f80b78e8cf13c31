"""Whether a smaller model is a faster one, in words: size and speed are measured apart, and one needn't follow the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunectl.conditions import Z
from prunectl.quantities import quantity, relative

SIZES = ("model_bytes", "parameters", "nonzero_parameters")
"""What can be smaller; the first that is gets named."""
LEAST = 0.01
"""Share that has to be gone for a model to count as smaller."""
Metrics = Mapping[str, Mapping[str, Any]]


def pace(metrics: Metrics, gate: Mapping[str, Any] | None = None) -> str | None:
    """A sentence on a model that is smaller but not faster, or not as fast as its gate asks; None for any other.

    ``metrics`` is metric -> its measure and ``gate`` the verdict, both as a job's JSON has them. Faster is a speed-up
    whose one-sided 95 % confidence bound (normal approximation) is above 1, as a gate counts it; one without a standard
    error is taken as it is.
    """
    size = next((name for name in SIZES if _share_gone(metrics.get(name, {})) >= LEAST), None)
    measure = metrics.get("speedup", {})
    value, error = measure.get("after"), measure.get("stderr")
    if size is None or value is None:
        return None
    bound = value if error is None else value - Z * error
    asked = [
        f"{condition['op']} {condition['limit']:g}"
        for condition in (gate or {}).get("conditions", ())
        if condition["metric"] == "speedup" and condition["op"].startswith(">") and not condition["passed"]
    ]
    if bound > 1 and not asked:
        return None
    before, after = metrics[size]["before"], metrics[size]["after"]
    fell = f"{size} {quantity(size, before)} to {quantity(size, after)}{relative(before, after)}"
    took = f"speedup {quantity('speedup', value)}" + ("" if error is None else f", by its 95% bound {bound:.2f}x")
    wanted = f", where the gate asks for {' and '.join(asked)}" if asked else ""
    return f"smaller but not {'faster' if bound <= 1 else 'fast enough'}: {fell}, yet {took}{wanted}"


def _share_gone(measure: Mapping[str, Any]) -> float:
    before, after = measure.get("before"), measure.get("after")
    return 0.0 if not before or after is None else 1 - after / before
