"""Latency at half the multiply-adds, and what masks and refit take beside one forward pass over the calibration set.

``python -m benchmarks.pruning_speedup``. A BERT-base-sized classifier with random weights, cut by the solver's masks for
scores that differ from layer to layer, as real ones do; whole and cut model take turns.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.pruning_scores import LENGTH, batches, build, our_loss
from benchmarks.report import Measurement, Report

from prunectl.evaluation import latency, macs
from prunectl.evaluation.builtin import paragraphs
from prunectl.pruning import engine, refit, surgery
from prunectl.pruning.blocks import described, find_blocks, shape
from prunectl.pruning.masks import Masks, masks_within
from prunectl.pruning.scores import Scores
from prunectl.recipe import Recipe

TARGET_MACS = 0.5


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--calibration", type=int, default=256, help="texts that are refitted on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    report = Report("speedup", packages=("torch", "transformers"))
    model = build("classifier", given.layers, None)
    note = None if given.layers == 12 else f"{given.layers} layers"
    start = time.perf_counter()
    masks = solved(model)
    masking = time.perf_counter() - start
    small = copy.deepcopy(model)
    surgery.apply(small, masks)
    share = macs.count(small, LENGTH) / macs.count(model, LENGTH)
    timed = latency.measure(
        {"whole": model, "small": small}, batch=given.batch, seq=LENGTH, rounds=given.rounds, budget_seconds=170
    )
    speedup = timed.latencies["whole"].latency_p50_seconds / timed.latencies["small"].latency_p50_seconds
    report.add(
        Measurement(
            f"measured speed-up at {share:.1%} of the MACs, batch {given.batch} x {LENGTH}, share of the MAC ratio", "",
            [speedup * share], target=">= 0.9", better="higher",
            note=f"{speedup:.2f} x of {1 / share:.2f} x, {timed.conditions['rounds']} rounds{', ' + note if note else ''}",
        )
    )  # fmt: skip
    lengths = [min(LENGTH, 2 + round(1.35 * len(text.split()))) for _, text in paragraphs()]
    calibration = batches("classifier", model, lengths[:: len(lengths) // given.calibration], 16, padded=False)

    def forward() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            for batch in calibration:
                our_loss(model, batch)
        return time.perf_counter() - start

    ratios, before = [], forward()
    for _ in range(3):
        start = time.perf_counter()
        refit.refit(copy.deepcopy(model), masks, calibration, our_loss)
        spent, after = masking + time.perf_counter() - start, forward()
        ratios.append(spent / ((before + after) / 2))
        before = after
    report.add(
        Measurement(
            "masks and refit, in forward passes over the calibration set", "passes", ratios, target="<= 6",
            note=f"{given.calibration} texts, mean {sum(lengths) / len(lengths):.0f} tokens{', ' + note if note else ''}",
        )
    )  # fmt: skip
    report.finish(given.output)
    return 0


def solved(model: Any) -> Masks:
    """The solver's masks for random scores, at half of the multiply-adds."""
    blocks = find_blocks(model)
    rows, heads, neurons = shape(blocks)
    draw = torch.Generator().manual_seed(0)
    weight = torch.rand(rows, 1, generator=draw) + 0.5
    scores = Scores(
        weight * torch.rand(rows, heads, generator=draw) * neurons / heads,
        weight * torch.rand(rows, neurons, generator=draw),
    )
    recipe = Recipe(target_macs=TARGET_MACS)
    target = engine.macs_target(described(model), recipe, LENGTH)
    return masks_within(scores, recipe, blocks, target.costs, target.budget)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
