"""Checks a checkpoint's claim from the outside: rebuild the masked original from ``prunectl.json`` and compare.

Run as ``python -m support.proof ORIGINAL CHECKPOINT``: a fresh process that shares nothing with the one that pruned. Prints the largest difference
relative to the largest output (where that is above 1).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

TEXTS = [
    "The del statement removes the binding of a name from the local or global namespace.",
    "A call always returns some value, possibly None, unless it raises an exception.",
    "Comparisons can be chained arbitrarily.",
    "If the finally clause executes a return statement, the saved exception is discarded and the value comes from that clause.",
]


def largest_difference(original: Path, checkpoint: Path) -> float:
    """Difference between `load_pruned` and the masked original on real text."""
    import torch
    import transformers

    from prunectl.checkpoints import load_pruned

    config = json.loads((original / "config.json").read_text())
    model = getattr(transformers, config["architectures"][0]).from_pretrained(original).float().eval()
    for entry in json.loads((checkpoint / "prunectl.json").read_text())["kept"]:
        linear = model.get_submodule(entry["module"])
        mask = torch.zeros(entry["total"])
        mask[entry["kept"]] = 1
        if entry["unit"] == "head":
            mask = mask.repeat_interleave(linear.weight.shape[1] // entry["total"])
        linear.register_forward_pre_hook(lambda _module, inputs, mask=mask: (inputs[0] * mask, *inputs[1:]))
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=48, return_tensors="pt")
    small = load_pruned(checkpoint)
    with torch.inference_mode():
        expected, got = model(**inputs)[0], small(**inputs)[0]
    return float((expected - got).abs().max() / max(1.0, float(expected.abs().max())))


if __name__ == "__main__":
    sys.stdout.write(f"{largest_difference(Path(sys.argv[1]), Path(sys.argv[2]))}\n")
