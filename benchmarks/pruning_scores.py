"""Scoring heads and neurons: gradients of masks against TextPruner's loop of full backward passes.

``python -m benchmarks.pruning_scores``. Rounds are interleaved in one process; memory is the peak above the loaded model
of a fresh process each. Models have the named sizes and random weights: what scoring costs doesn't depend on them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from benchmarks.report import Measurement, Report
from torch.nn.functional import cross_entropy

from prunectl.evaluation.builtin import paragraphs
from prunectl.evaluation.losses import token_loss
from prunectl.evaluation.outputs import class_logits, token_logits
from prunectl.pruning.masks import Masks
from prunectl.pruning.scores import Scores, gradient_scores
from prunectl.pruning.textpruner import TextPrunerEngine
from prunectl.recipe import Recipe

LENGTH = 128
MASKED = 0.15
Batches = list[dict[str, torch.Tensor]]
# case -> (batch, target of the time, of the memory, of the time on real lengths)
CASES = {"mlm": (8, ">= 4.5", "<= 0.3", ">= 10"), "classifier": (16, ">= 1.2", "<= 0.5", ">= 3")}
TITLES = {"mlm": "XLM-R-base-sized masked-language model", "classifier": "BERT-base-sized classifier"}


def build(case: str, layers: int, vocabulary: int | None) -> Any:
    torch.manual_seed(0)
    if case == "mlm":
        config = transformers.XLMRobertaConfig(
            vocab_size=vocabulary or 250_002, max_position_embeddings=514, type_vocab_size=1, num_hidden_layers=layers
        )
        return transformers.XLMRobertaForMaskedLM(config).eval()
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(num_labels=8, num_hidden_layers=layers)
    ).eval()


def batches(case: str, model: Any, lengths: Sequence[int], size: int, *, padded: bool) -> Batches:
    """Random tokens of these lengths: padded to 128 in the order given, or by length to the longest of each batch."""
    draw = torch.Generator().manual_seed(1)
    ordered = list(lengths) if padded else sorted(lengths, reverse=True)
    found = []
    for start in range(0, len(ordered), size):
        part = ordered[start : start + size]
        width = LENGTH if padded else max(part)
        attention = (torch.arange(width) < torch.tensor(part).unsqueeze(1)).long()
        # One draw at full width, so that both see the same tokens.
        ids = torch.randint(5, model.config.vocab_size, (len(part), LENGTH), generator=draw)[:, :width]
        batch = {"input_ids": ids * attention + (1 - attention), "attention_mask": attention}
        if case == "mlm":
            asked = (torch.rand(len(part), LENGTH, generator=draw)[:, :width] < MASKED) & attention.bool()
            asked[:, 0] = True
            batch["labels"] = torch.where(asked, ids, -100)
        else:
            batch["labels"] = torch.randint(0, 8, (len(part),), generator=draw)
        found.append(batch)
    return found


def our_loss(model: Any, batch: Any) -> torch.Tensor:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if batch["labels"].dim() == 1:
        return cross_entropy(class_logits(model, inputs), batch["labels"])
    asked = batch["labels"] >= 0
    return token_loss(token_logits(model, inputs, asked), batch["labels"][asked])


def their_loss(model: Any, batch: Any) -> torch.Tensor:
    """The model's own, as a user of TextPruner passes it: logits at every position."""
    loss: torch.Tensor = model(**batch).loss
    return loss


def score(side: str, model: Any, given: Batches) -> Scores:
    if side == "ours":
        return gradient_scores(model, given, our_loss)["taylor"]
    recipe = Recipe(heads=0.5, ffn=0.5, engine="textpruner")
    return TextPrunerEngine(model, recipe, given, their_loss).scores(Masks())


def fresh_peak(prepare: Callable[..., Callable[[], object]], *arguments: object) -> int:
    """Peak bytes of calling what ``prepare(*arguments)`` gives, above what was resident before, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measure_memory, args=(sender, prepare, arguments))
    child.start()
    sender.close()
    found: int = receiver.recv()
    child.join()
    return found


def _measure_memory(sender: Any, prepare: Callable[..., Callable[[], object]], arguments: Sequence[object]) -> None:
    work = prepare(*arguments)
    # The high-water mark starts again from what is resident now (Linux).
    Path("/proc/self/clear_refs").write_text("5")
    before = psutil.Process().memory_info().rss
    work()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    sender.send(int(peak.split()[1]) * 1024 - before)


def scoring(case: str, side: str, layers: int, vocabulary: int | None, size: int, threads: int) -> Callable[[], object]:
    """Scores of one full batch."""
    torch.set_num_threads(threads)
    model = build(case, layers, vocabulary)
    return partial(score, side, model, batches(case, model, [LENGTH] * size, size, padded=True))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="mlm,classifier")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=12, help="fewer for a quick look: the report says so")
    parser.add_argument("--vocabulary", type=int, help="of the masked-language model; default: XLM-R's 250,002")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    report = Report("scores", packages=("torch", "transformers", "textpruner"))
    note = None if given.layers == 12 and not given.vocabulary else json.dumps(
        {"layers": given.layers, "vocabulary": given.vocabulary}
    )  # fmt: skip
    lengths = [min(LENGTH, 2 + round(1.35 * len(text.split()))) for _, text in paragraphs()]
    for case in given.cases.split(","):
        size, time_target, memory_target, mixed_target = CASES[case]
        model = build(case, given.layers, given.vocabulary)
        full = batches(case, model, [LENGTH] * size, size, padded=True)
        some = lengths[:: len(lengths) // (2 * size)][: 2 * size]
        mixed = {
            "ours": batches(case, model, some, size, padded=False),
            "theirs": batches(case, model, some, size, padded=True),
        }
        ours, theirs = score("ours", model, full), score("theirs", model, full)
        torch.testing.assert_close(ours.heads, theirs.heads, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(ours.ffn, theirs.ffn, rtol=1e-4, atol=1e-8)
        for name, work, target in (
            (f"{size} x {LENGTH}, full length", {"ours": full, "theirs": full}, time_target),
            (f"real lengths (mean {sum(some) / len(some):.0f} tokens)", mixed, mixed_target),
        ):
            seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
            for number in range(given.rounds):
                for side in ("ours", "theirs") if number % 2 else ("theirs", "ours"):
                    start = time.perf_counter()
                    score(side, model, work[side])
                    seconds[side].append(time.perf_counter() - start)
            report.add(
                Measurement(
                    f"{TITLES[case]}, {name}", "s", seconds["ours"], seconds["theirs"], "TextPruner", target=target,
                    target_is="ratio", note=note,
                )
            )  # fmt: skip
        del model
        extra = {
            side: fresh_peak(scoring, case, side, given.layers, given.vocabulary, size, given.threads) / 2**20
            for side in ("ours", "theirs")
        }
        report.add(
            Measurement(
                f"{TITLES[case]}, extra memory as a share of TextPruner's", "", [extra["ours"] / extra["theirs"]],
                target=memory_target, note=f"{extra['ours']:.0f} against {extra['theirs']:.0f} MiB",
            )
        )  # fmt: skip
    report.finish(given.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
