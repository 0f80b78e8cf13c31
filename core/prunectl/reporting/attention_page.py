"""The attention page: one HTML file with bertviz's head view and model view, before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from prunectl.attention import PARTS, AttentionFound, AttentionLayer, AttentionPart
from prunectl.reporting import heat_map
from prunectl.reporting.rendering import HERE, render, vendored
from prunectl.schemas import Structure

_NAMES = {"encoder": "encoder", "decoder": "decoder", "cross": "cross-attention"}


def attention_page(
    before: AttentionFound,
    after: AttentionFound,
    *,
    title: str,
    job: str,
    text: str,
    recipe: Mapping[str, Any],
    digest: str,
    structure: Structure,
    versions: Mapping[str, str],
) -> str:
    """The page as HTML. ``structure`` is the pruned model's, with the scores that its heads were ranked by."""
    parts = [
        _part(name, one, other)
        for name in PARTS
        for one in before.parts
        for other in [next((part for part in after.parts if part.part == name), None)]
        if one.part == name and one.layers
    ]
    blocks = structure.layers
    ranked = any(block.head_scores for block in blocks)
    return render(
        "attention.html.j2",
        title=title.rstrip("/").rpartition("/")[2] or title,
        job=job,
        text=text,
        cut=before.cut or after.cut,
        tokens=max((len(part.queries) for part in before.parts), default=0),
        recipe=", ".join(f"{name}={value}" for name, value in recipe.items()),
        heads_kept=sum(len(block.heads_kept) for block in blocks),
        heads_total=sum(block.heads_total for block in blocks),
        removed_layers=structure.removed_layers,
        digest=digest,
        versions=versions,
        scorer=recipe.get("scorer", "taylor") if ranked else "no",
        heat_map=Markup(heat_map.svg(structure, standalone=False)),
        parts=[part["name"] for part in parts],
        # Scripts of others and of ours, in this package's own files: nothing of a request gets here.
        jquery=Markup(vendored("jquery.slim.min.js")),
        d3=Markup(vendored("d3.min.js")),
        head_view=Markup(vendored("bertviz_head_view.js")),
        model_view=Markup(vendored("bertviz_model_view.js")),
        script=Markup((HERE / "templates" / "attention.js").read_text(encoding="utf-8")),
        data=in_script(parts),
    )


def in_script(value: Any) -> Markup:
    """JSON that can stand inside a script element, whatever its texts hold."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _part(name: str, before: AttentionPart, after: AttentionPart | None) -> dict[str, Any]:
    """One tab: the same layers and heads on both sides, in the original's numbers."""
    tokens = {"queries": _readable(before.queries), "keys": _readable(before.keys)}
    left = {layer.index: layer for layer in after.layers} if after else {}
    others = {"queries": _readable(after.queries), "keys": _readable(after.keys)} if after else tokens
    heads = max(layer.heads_total for layer in before.layers)
    return {
        "name": _NAMES[name],
        "layers": [layer.index for layer in before.layers],
        "heads": heads,
        "before_tokens": tokens,
        "after_tokens": others,
        "before": _side(before.layers, heads, tokens),
        "after": _side([left.get(layer.index) for layer in before.layers], heads, others),
    }


def _side(layers: Sequence[AttentionLayer | None], heads: int, tokens: Mapping[str, list[str]]) -> dict[str, Any]:
    """``weights`` ``[layers, heads, queries, keys]`` with zeros for what isn't there, and ``gone`` ``[layers, heads]``."""
    nothing = [[0] * len(tokens["keys"])] * len(tokens["queries"])
    weights, gone = [], []
    for layer in layers:
        there = dict(zip(layer.heads, layer.weights, strict=True)) if layer else {}
        weights.append([there.get(head, nothing) for head in range(heads)])
        gone.append([head not in there for head in range(heads)])
    return {"weights": weights, "gone": gone}


def _readable(tokens: Sequence[str]) -> list[str]:
    """As bertviz shows them: a space where a word begins."""
    return [token.replace("Ġ", " ").replace("▁", " ").replace("</w>", "") for token in tokens]
