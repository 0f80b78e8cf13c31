"""One structure by two libraries: half of each layer's heads and neurons go, by Torch-Pruning and by us.

``python -m benchmarks.structure``. Costs are measured on a BERT-base-sized classifier with random weights: both prune a
copy of it by Taylor scores on the same batches, in turns. Quality is measured on the trained classifier of
`benchmarks.pruning_data`. Torch-Pruning is used as its own example for BERT does it, with its Taylor importance for its
magnitude: a dependency graph, gradients of one loss per batch summed up, whole heads, then each attention module told how
many it has left. By default it prunes the hidden width as well; ignoring every layer that writes it leaves heads and
neurons, so that both end with equal shapes. Writes the section "Torch-Pruning, the same structure" of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning
from benchmarks import pruning_data
from benchmarks.page import write_section
from benchmarks.pruning_quality import right
from benchmarks.pruning_scores import LENGTH, Batches, batches, build, fresh_peak, our_loss, their_loss
from benchmarks.report import Measurement, Report
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.bert.modeling_bert import BertSelfAttention

from prunectl.checkpoints import save
from prunectl.checkpoints.load import load_pruned
from prunectl.evaluation import latency, macs
from prunectl.evaluation.builtin import paragraphs
from prunectl.evaluation.latency import device_name
from prunectl.evaluation.objectives import objective_for
from prunectl.pruning import engine, surgery
from prunectl.pruning import refit as refitting
from prunectl.pruning.blocks import find_blocks, linear
from prunectl.pruning.engine import Pruned
from prunectl.pruning.masks import Masks
from prunectl.pruning.scores import Loss
from prunectl.recipe import Recipe
from prunectl.worker.source import CALIBRATION_SAMPLES, refit_examples

TITLE = "Torch-Pruning, the same structure"
PEER = "Torch-Pruning"
SHARE = 0.5
RECIPE = Recipe(heads=SHARE, ffn=SHARE, even=True, refit=False)
BATCH = 16
FULL_SIZE = (12, 2000)
"""Layers, held-out texts."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds until the scores are there, and from then until the model is smaller."""

    scores: float
    pruning: float


@dataclass(frozen=True, slots=True)
class Quality:
    """What a row of the quality table says: its name, and which texts the model got right."""

    name: str
    right: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def error(self) -> float:
        return float(self.right.std(ddof=1) / len(self.right) ** 0.5)


def by_us(model: Any, given: Batches, loss: Loss) -> tuple[Spent, Pruned]:
    start = time.perf_counter()
    masks = engine.choose_masks(model, RECIPE, given, loss)
    scored = time.perf_counter()
    pruned = engine.apply(model, masks)
    return Spent(scored - start, time.perf_counter() - scored), pruned


def by_them(model: Any, given: Batches, loss: Loss, *, multivariable: bool = False) -> Spent:
    """``multivariable``: its importance is |sum of gradient x weight| of a row, as ours is, not the sum of |...|."""
    begin = time.perf_counter()
    attentions = [module for module in model.modules() if isinstance(module, BertSelfAttention)]
    ignored = [model.base_model.pooler.dense, model.classifier]
    for layer in model.base_model.encoder.layer:
        ignored += [layer.attention.output.dense, layer.output.dense]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        {name: value[:1] for name, value in given[0].items() if name != "labels"},
        importance=torch_pruning.importance.GroupTaylorImportance(multivariable=multivariable),
        pruning_ratio=SHARE,
        head_pruning_ratio=SHARE,
        prune_num_heads=True,
        prune_head_dims=False,
        num_heads={part: m.num_attention_heads for m in attentions for part in (m.query, m.key, m.value)},
        ignored_layers=ignored,
        output_transform=lambda output: output.logits.sum(),
        in_channel_groups={},  # its defaults are one dictionary each, shared by all pruners of a process
        out_channel_groups={},
    )
    start = time.perf_counter()
    model.zero_grad()
    for batch in given:
        loss(model, batch).backward()
    scored = time.perf_counter()
    for group in pruner.step(interactive=True):
        group.prune()
    for module in attentions:
        module.num_attention_heads = pruner.num_heads[module.query]
        module.all_head_size = module.query.out_features
    model.zero_grad()
    return Spent(scored - start, time.perf_counter() - scored + start - begin)


def kept(whole: Any, small: Any) -> Masks:
    """Which units of ``whole`` are left in ``small``, found by the rows of its weights."""
    heads, neurons = [], []
    for block, cut in zip(find_blocks(whole), find_blocks(small), strict=True):
        rows = _stayed(linear(whole, block.query).weight, linear(small, cut.query).weight)
        heads.append(rows.view(-1, block.head_dim).all(1))
        neurons.append(_stayed(linear(whole, block.ffn_first[0]).weight, linear(small, cut.ffn_first[0]).weight))
    return Masks(torch.stack(heads), torch.stack(neurons))


def _stayed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    left = {row.tobytes() for row in after.detach().numpy()}
    return torch.tensor([row.tobytes() in left for row in before.detach().numpy()])


@torch.inference_mode()
def difference(one: Any, other: Any, batch: dict[str, torch.Tensor]) -> float:
    """The largest between two models' logits."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return float((one(**inputs).logits - other(**inputs).logits).abs().max())


def pruning(side: str, layers: int, size: int, threads: int) -> Callable[[], object]:
    """What `fresh_peak` measures: scores on one batch of ``size`` texts of full length, and pruning."""
    torch.set_num_threads(threads)
    model = build("classifier", layers, None)
    given = batches("classifier", model, [LENGTH] * size, size, padded=True)
    return partial(by_us, model, given, our_loss) if side == "ours" else partial(by_them, model, given, their_loss)


def opened(name: str, load: Callable[[], Any], model: Any, batch: dict[str, torch.Tensor]) -> tuple[str, float | None]:
    """In words what became of opening a saved model, and how far its logits then are from ``model``'s."""
    try:
        found = difference(load().eval(), model, batch)
    except (RuntimeError, ValueError, OSError) as error:
        return f"{name}: fails, {type(error).__name__}: {str(error).strip().splitlines()[0]}", None
    return f"{name}: opens, logits differ by {found:.1g}", found


def reopened(ours: Any, pruned: Pruned, theirs: Any, batch: dict[str, torch.Tensor]) -> tuple[list[str], float]:
    """Sentences on saving and opening either model, and the difference of our logits."""
    plain = partial(AutoModelForSequenceClassification.from_pretrained, trust_remote_code=False)
    with tempfile.TemporaryDirectory(prefix="prunectl-structure-") as name:
        home = Path(name)
        (home / "source").mkdir()
        save.save(ours, source=home / "source", directory=home / "ours", recipe=RECIPE, pruned=pruned, provenance={})
        said, found = opened("prunectl, `load_pruned`", lambda: load_pruned(home / "ours"), ours, batch)
        assert found is not None, said
        carried = partial(AutoModelForSequenceClassification.from_pretrained, home / "ours", trust_remote_code=True)
        sentences = [
            said,
            opened("prunectl, `from_pretrained(…, trust_remote_code=True)`", carried, ours, batch)[0],
            opened("prunectl, plain `from_pretrained`", lambda: plain(home / "ours"), ours, batch)[0],
        ]
        theirs.save_pretrained(home / "theirs")
        sentences.append(
            opened(f"{PEER}, `save_pretrained`, `from_pretrained`", lambda: plain(home / "theirs"), theirs, batch)[0]
        )
        _, info = plain(home / "theirs", ignore_mismatched_sizes=True, output_loading_info=True)
        sentences.append(
            f"{PEER}, the same with `ignore_mismatched_sizes=True`: opens with the unpruned shapes, "
            f"{len(info['mismatched_keys'])} of {len(theirs.state_dict())} tensors drawn at random"
        )
        config = copy.deepcopy(theirs.config)
        block = find_blocks(theirs)[0]
        config.num_attention_heads = block.heads_total
        config.intermediate_size = block.ffn_total
        sentences.append(
            opened(
                f"{PEER}, the same with a config that has the smaller counts",
                lambda: plain(home / "theirs", config=config), theirs, batch,
            )[0]
        )  # fmt: skip
        torch.save(theirs, home / "theirs.pt")
        sentences.append(
            opened(
                f"{PEER}, the whole module pickled by `torch.save`",
                lambda: torch.load(home / "theirs.pt", weights_only=False), theirs, batch,
            )[0]
        )  # fmt: skip
    return sentences, found


def costs(given: argparse.Namespace, report: Report) -> list[str]:
    """Add what is measured on the BERT-base-sized model; what saving and opening said."""
    whole = build("classifier", given.layers, None)
    lengths = [min(LENGTH, 2 + round(1.35 * len(text.split()))) for _, text in paragraphs()]
    some = lengths[:: len(lengths) // given.texts][: given.texts]
    work = batches("classifier", whole, some, BATCH, padded=False)
    spent: dict[str, list[Spent]] = {"ours": [], "theirs": []}
    for number in range(-1, given.rounds):  # the first one only warms up
        for side in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
            model = copy.deepcopy(whole)
            if side == "ours":
                seconds, pruned = by_us(model, work, our_loss)
                ours = model
            else:
                seconds = by_them(model, work, their_loss)
                theirs = model
            if number >= 0:
                spent[side].append(seconds)
    size = f"{given.layers} layers, {len(some)} texts of {sum(some) / len(some):.0f} tokens on average"
    for measure, seconds_of in (
        ("scores and pruning", lambda spent: spent.scores + spent.pruning),
        ("… scores", lambda spent: spent.scores),
        ("… pruning", lambda spent: spent.pruning),
    ):
        sides = ([seconds_of(one) for one in spent[side]] for side in ("ours", "theirs"))
        report.add(Measurement(measure, "s", *sides, peer=PEER, note=size))
    shapes = [[tuple(parameter.shape) for parameter in model.parameters()] for model in (ours, theirs)]
    assert shapes[0] == shapes[1], "the structures differ"
    choice = kept(whole, theirs)
    again = copy.deepcopy(whole)
    surgery.apply(again, choice)
    apart = difference(again, theirs, work[0])
    assert apart < 1e-4, f"{PEER}'s model isn't what its heads and neurons compute: {apart}"
    del again
    width = min(BATCH, given.texts)
    peaks = [fresh_peak(pruning, side, given.layers, width, given.threads) / 2**20 for side in ("ours", "theirs")]
    report.add(
        Measurement(
            "peak extra memory of both", "MiB", peaks[:1], peaks[1:], PEER, note=f"one batch of {width} x {LENGTH}"
        )
    )
    counted = [macs.count(model, LENGTH) / 1e9 for model in (ours, theirs)]
    assert counted[0] == counted[1], f"multiply-adds differ: {counted}"
    share = counted[0] * 1e9 / macs.count(whole, LENGTH)
    common = ", ".join(
        f"{float((mine & yours).sum() / mine.sum()):.0%} of the {unit} kept are the same"
        for unit, mine, yours in (
            ("heads", pruned.masks.heads, choice.heads), ("neurons", pruned.masks.ffn, choice.ffn)
        )
    )  # fmt: skip
    report.add(
        Measurement(
            "multiply-adds", "G", counted[:1], counted[1:], PEER,
            note=f"{share:.1%} of the unpruned model's; {common}; our surgery with {PEER}'s choice: logits within {apart:.1g}",
        )
    )  # fmt: skip
    timed = latency.measure(
        {"whole": whole, "ours": ours, "theirs": theirs},
        batch=given.batch, seq=LENGTH, threads=given.threads, rounds=given.calls, budget_seconds=60,
    )  # fmt: skip
    report.add(
        Measurement(
            "latency of the pruned model", "ms",
            *([1000 * seconds for seconds in timed.seconds[side]] for side in ("ours", "theirs")), peer=PEER,
            note=f"{given.batch} x {LENGTH} tokens; unpruned {1000 * timed.latencies['whole'].latency_p50_seconds:.0f} ms",
        )
    )  # fmt: skip
    sentences, found = reopened(ours, pruned, theirs, work[0])
    report.add(
        Measurement("saved and opened again: largest difference", "logits", [found], note="\n  ".join(sentences))
    )
    return sentences


def qualities(given: argparse.Namespace) -> list[Quality]:
    """The unpruned classifier, both of Torch-Pruning's Taylor scores, ours, and ours refitted."""
    train, held_out = pruning_data.texts()
    train, held_out = train[: given.training], held_out[: given.held_out]
    directory = pruning_data.classifier(given.cache.absolute(), train)
    whole: Any = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)

    def objective(examples: Sequence[Any]) -> Any:
        return objective_for(
            "text-classification", tokenizer, examples=examples, max_length=pruning_data.MAX_LENGTH, seed=0, model=whole
        )

    asked = objective(train[: given.calibration])
    work, loss = asked.batches(32), asked.loss
    found = [Quality("unpruned", right(whole, tokenizer, held_out))]
    for name, multivariable in ((f"{PEER}, `GroupTaylorImportance`", False), (f"{PEER}, … `multivariable=True`", True)):
        small = copy.deepcopy(whole)
        by_them(small, work, loss, multivariable=multivariable)
        found.append(Quality(name, right(small, tokenizer, held_out)))
    masks = engine.choose_masks(whole, RECIPE, work, loss)
    # As a job does: the refit takes further texts of the same source.
    more = refit_examples(tokenizer, train[: given.calibration], train[given.calibration :], pruning_data.MAX_LENGTH)
    for name, refit in (("prunectl, `taylor`", False), ("prunectl, `taylor` + refit", True)):
        small = copy.deepcopy(whole)
        if refit:
            refitting.refit(small, masks, objective(more).batches(32), loss)
        engine.apply(small, masks)
        found.append(Quality(name, right(small, tokenizer, held_out)))
    return found


def apart(one: Quality, other: Quality) -> str:
    """Difference of two accuracies with its standard error, paired text by text."""
    gains = one.right.astype(float) - other.right
    return f"{gains.mean():+.4f} ± {gains.std(ddof=1) / len(gains) ** 0.5:.4f}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structure", description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=FULL_SIZE[0])
    parser.add_argument("--texts", type=int, default=16, help="that both score on, where time is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4, help="of the latency")
    parser.add_argument("--calls", type=int, default=10, help="rounds of the latency")
    parser.add_argument("--training", type=int, default=pruning_data.TRAINING, help="texts the classifier learns from")
    parser.add_argument(
        "--calibration", type=int, default=CALIBRATION_SAMPLES, help="texts that both score, for quality"
    )
    parser.add_argument("--held-out", type=int, default=FULL_SIZE[1], help="texts that every model is judged on")
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks/minilm-packages"), help="the classifier")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    before = os.getloadavg()[0]
    report = Report("structure", packages=("torch", "transformers", "torch-pruning"))
    sentences = costs(given, report)
    found = qualities(given)
    for ours in found[3:]:
        for peer in found[1:3]:
            report.add(
                Measurement(
                    f"accuracy, {ours.name}", "accuracy", [ours.accuracy], [peer.accuracy], peer.name, better="higher",
                    note=f"± {ours.error:.4f} and ± {peer.error:.4f}; difference {apart(ours, peer)}, n={len(ours.right)}; "
                    f"unpruned {found[0].accuracy:.4f}",
                )
            )  # fmt: skip
    body = render(report, sentences, found, given, before)
    if (given.layers, given.held_out) == FULL_SIZE:
        write_section(TITLE, body)
    report.finish(given.output)
    return 0


def render(report: Report, sentences: list[str], found: list[Quality], given: argparse.Namespace, before: float) -> str:
    document = report.as_json()
    rows = [
        f"| {result.measure} | {_cell(result.ours, result.unit)} | {_cell(result.theirs, result.unit)} | "
        f"{statistics.median(result.ratios):.2f} × ({min(result.ratios):.2f}–{max(result.ratios):.2f}) | {result.note} |"
        for result in report.results
        if result.theirs and result.unit != "accuracy"
    ]
    accuracies = [
        f"| {row.name} | {row.accuracy:.4f} ± {row.error:.4f} | {'' if row is found[0] else apart(row, found[0])} | "
        f"{'' if row in found[:2] else apart(row, found[1])} |"
        for row in found
    ]
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    load = f"load {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    return f"""\
`make bench-structure`: half of each layer's heads and half of its neurons go, scored by the first-order Taylor expansion on the same
batches; the hidden width stays. Costs on a BERT-base-sized classifier ({given.layers} layers, 768 wide, random weights), whole model in
memory, in turns for {given.rounds} rounds: medians, and the ratio (theirs over ours) with its smallest and largest round. {PEER}
traces a dependency graph and takes the gradients of all weights; its graph counts as pruning. Memory is the peak above the loaded
model, scores and pruning in a fresh process each. Shapes and multiply-adds are equal, or the benchmark ends with an error.

| measure | prunectl | {PEER} | ratio | |
|---|---|---|---|---|
{chr(10).join(rows)}

Saving and opening again, as seen:

{chr(10).join(f"- {sentence}." for sentence in sentences)}

Quality: the 16-class classifier on all-MiniLM-L6-v2 (6 layers), {given.calibration} calibration texts, n = {len(found[0].right):,} held-out texts,
nothing trained; ± is the standard error, that of differences paired text by text.

| model | accuracy | to the unpruned | to {PEER}'s default |
|---|---|---|---|
{chr(10).join(accuracies)}

{datetime.date.today().isoformat()}; {device_name(torch.device("cpu"))}, {given.threads} thread(s), {load}; {versions}.
"""


def _cell(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.4g} {unit}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
