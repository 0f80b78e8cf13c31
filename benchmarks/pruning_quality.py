"""Quality at one size: TextPruner one-shot against our masks with the refit, the same counts, no training.

``python -m benchmarks.pruning_quality``. Both score the same calibration batches of a trained classifier; each pruned
model answers the same held-out texts, so differences are paired, and their interval is a paired bootstrap's.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import pruning_data
from benchmarks.report import Measurement, Report
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prunectl.evaluation.encoding import by_length, collate, encode
from prunectl.evaluation.objectives import objective_for
from prunectl.evaluation.outputs import class_logits
from prunectl.pruning import engine, surgery
from prunectl.pruning import refit as refitting
from prunectl.pruning.blocks import find_blocks
from prunectl.pruning.masks import Masks, next_masks
from prunectl.pruning.scores import gradient_scores
from prunectl.pruning.textpruner import TextPrunerEngine
from prunectl.recipe import Recipe
from prunectl.worker.source import CALIBRATION_SAMPLES, refit_examples

SETTINGS = {
    "50 % of heads, 50 % of neurons": (0.5, 0.5, ">= 0.6"),
    "50 % of heads, 70 % of neurons": (0.5, 0.7, ">= 0.55"),
}
RESAMPLES = 2000


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calibration", type=int, default=CALIBRATION_SAMPLES, help="texts that both score")
    parser.add_argument("--scorers", default="taylor", help="of ours, comma-separated: taylor, fisher")
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks/minilm-packages"), help="the classifier")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    report = Report("quality", packages=("torch", "transformers", "textpruner"))
    train, held_out = pruning_data.texts()
    directory = pruning_data.classifier(given.cache, train)
    model: Any = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    objective = objective_for(
        "text-classification", tokenizer, examples=train[: given.calibration], max_length=pruning_data.MAX_LENGTH,
        seed=0, model=model,
    )  # fmt: skip
    batches, loss = objective.batches(32), objective.loss
    # As a job does: the refit takes further texts of the same source.
    more = refit_examples(tokenizer, train[: given.calibration], train[given.calibration :], pruning_data.MAX_LENGTH)
    refitting_on = objective_for(
        "text-classification", tokenizer, examples=more, max_length=pruning_data.MAX_LENGTH, seed=0, model=model
    ).batches(32)
    dense = right(model, tokenizer, held_out)
    print(f"dense: accuracy {dense.mean():.4f}, n={len(dense)}", file=sys.stderr)
    ours = gradient_scores(model, batches, loss)
    library = TextPrunerEngine(copy.deepcopy(model), Recipe(heads=0.5, ffn=0.5, engine="textpruner"), batches, loss)
    library_scores = library.scores(Masks())
    blocks = find_blocks(model)
    for name, (heads, ffn, target) in SETTINGS.items():
        recipe = Recipe(heads=heads, ffn=ffn, engine="textpruner")
        theirs = copy.deepcopy(model)
        masks = next_masks(library_scores, recipe, 0, Masks(), blocks, choose=library.choose)
        engine.apply(theirs, masks, engine="textpruner")
        peer = right(theirs, tokenizer, held_out)
        for scorer in given.scorers.split(","):
            masks = next_masks(ours[scorer], Recipe(heads=heads, ffn=ffn, scorer=scorer), 0, Masks(), blocks)  # type: ignore[arg-type]
            small = copy.deepcopy(model)
            said = refitting.refit(small, masks, refitting_on, loss)
            surgery.apply(small, masks)
            answers = right(small, tokenizer, held_out)
            low, high = interval(dense, peer, answers)
            note = f"dense {dense.mean():.2%} right, TextPruner {peer.mean():.2%}, ours {answers.mean():.2%}, n={len(dense)}"
            report.add(
                Measurement(
                    f"share of TextPruner's accuracy loss removed: {name}, {scorer} + refit", "", [removed(dense, peer, answers)],
                    better="higher", target=target,
                    note=f"{note}; 95 % interval {low:.2f} to {high:.2f}; {said.matrices} of {len(said.fits)} matrices refitted on {len(more)} texts",
                )
            )  # fmt: skip
    report.finish(given.output)
    return 0


def right(model: Any, tokenizer: Any, examples: list[Any]) -> np.ndarray:
    """Which examples the model answers as they are labelled, bool ``[examples]``."""
    rows = encode(model, tokenizer, examples, pruning_data.MAX_LENGTH)
    said = torch.empty(len(rows), dtype=torch.long)
    with torch.inference_mode():
        for indices in by_length(rows, 64):
            said[indices] = class_logits(model, collate(tokenizer, [rows[index] for index in indices])).argmax(-1)
    return np.array([int(answer) == example.label for answer, example in zip(said, examples, strict=True)])


def removed(dense: np.ndarray, theirs: np.ndarray, ours: np.ndarray) -> float:
    """The share of the accuracy that they lose which we don't."""
    return float((ours.mean() - theirs.mean()) / (dense.mean() - theirs.mean()))


def interval(dense: np.ndarray, theirs: np.ndarray, ours: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The central 95 % of `removed` over resampled examples."""
    draw = np.random.default_rng(seed)
    shares = []
    for _ in range(RESAMPLES):
        rows = draw.integers(0, len(dense), len(dense))
        shares.append(removed(dense[rows], theirs[rows], ours[rows]))
    return float(np.percentile(shares, 2.5)), float(np.percentile(shares, 97.5))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
