"""Peak resident memory of loading, surgery and saving, for each axis, on a model of XLM-R-base's size.

``python -m benchmarks.memory`` makes the model (12 layers, 768 wide, 250,002 entries, random weights, float32) and runs
each axis in a fresh process. That process imports everything first; what counts is the kernel's own high-water mark of
resident memory (VmHWM, pages of mapped files included) above what was resident then, over the bytes of the weights. What
an axis removes is given, drawn at random: choosing it is scoring, and no part of this. The peer does the heads and neurons
as TextPruner's own script would: ``from_pretrained``, ``TransformerPruner``, ``torch.save``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.local_jobs import ROOT
from benchmarks.page import write_section

BOUND = 1.3
AXES = ("heads+ffn", "layers", "weights", "vocabulary", "all")
PEER = "textpruner"
XLMR_BASE = (12, 768, 250_002)
"""Layers, width, vocabulary entries."""


def make(directory: Path, *, layers: int, hidden: int, vocabulary: int) -> int:
    """A masked-language model of random weights in ``directory``; the bytes of its weights."""
    import torch
    import transformers

    config = transformers.XLMRobertaConfig(
        vocab_size=vocabulary,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    torch.manual_seed(0)
    transformers.XLMRobertaForMaskedLM(config).save_pretrained(directory)
    return (directory / "model.safetensors").stat().st_size


def measure(source: Path, axis: str, work: Path) -> dict[str, float]:
    """Run one axis in a fresh process: step -> peak bytes so far, above what was resident after the imports."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--measure", axis, str(source), str(work)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measured(axis: str, source: Path, work: Path) -> dict[str, float]:
    """In the fresh process. Nothing is rehearsed: what a first use sets up counts."""
    import torch
    import transformers.models.xlm_roberta.modeling_xlm_roberta  # noqa: F401

    import prunectl.worker.steps  # noqa: F401
    from prunectl.evaluation.memory import _reset_peak, _status

    if axis == PEER:
        import textpruner  # noqa: F401
    torch.set_num_threads(1)
    before = _status("VmRSS")
    if before is None or not _reset_peak():
        raise SystemExit("this system has no /proc/self/clear_refs to reset the high-water mark with")
    start, found = before, {}

    def note(step: str) -> None:
        found[step] = float((_status("VmHWM") or 0) - start)

    (_by_textpruner if axis == PEER else _ours)(axis, source, work, note)
    return found


def _ours(axis: str, source: Path, work: Path, note: Callable[[str], None]) -> None:
    import torch

    from prunectl.checkpoints import save
    from prunectl.checkpoints.load import load_original
    from prunectl.pruning import embeddings, engine, layers, weights
    from prunectl.pruning.blocks import find_blocks
    from prunectl.pruning.masks import Masks
    from prunectl.pruning.vocabulary import Vocabulary
    from prunectl.recipe import Recipe

    model = load_original(source, json.loads((source / "config.json").read_text()))
    note("load")
    generator = torch.Generator().manual_seed(0)
    if axis in ("vocabulary", "all"):
        total = model.config.vocab_size
        kept = sorted({*range(10), total - 1, *torch.randperm(total, generator=generator)[: total // 2].tolist()})
        embeddings.cut_vocabulary(model, Vocabulary(tuple(kept), total, source))
    if axis in ("layers", "all"):
        layers.remove(model, [1, 3])
    masks = Masks()
    if axis in ("heads+ffn", "all"):
        masks = drawn_masks(model, generator)
    pruned = engine.apply(model, masks)
    if axis in ("weights", "all"):
        stay = {
            path: torch.rand(weights.oriented(model.get_submodule(path)).shape, generator=generator) < 0.5
            for path in weights.prunable(model)
        }
        weights.zero(model, stay)
    assert find_blocks(model)
    note("surgery")
    save.save(model, source=source, directory=work / "ours", recipe=Recipe(heads=0.5), pruned=pruned, provenance={})
    note("save")


def _by_textpruner(_axis: str, source: Path, work: Path, note: Callable[[str], None]) -> None:
    import torch
    from transformers import XLMRobertaForMaskedLM

    from prunectl.pruning import engine

    model = XLMRobertaForMaskedLM.from_pretrained(source).eval()
    note("load")
    engine.apply(model, drawn_masks(model, torch.Generator().manual_seed(0)), engine="textpruner")
    note("surgery")
    torch.save(model.state_dict(), work / "pytorch_model.bin")
    note("save")


def drawn_masks(model: Any, generator: Any) -> Any:
    import torch

    from prunectl.pruning.blocks import find_blocks, shape
    from prunectl.pruning.masks import Masks

    blocks, heads, neurons = shape(find_blocks(model))
    masks = Masks(
        torch.rand(blocks, heads, generator=generator) < 0.5, torch.rand(blocks, neurons, generator=generator) < 0.5
    )
    masks.heads[:, 0] = True  # TextPruner leaves no layer without a head
    return masks


def render(found: dict[str, list[dict[str, float]]], size: int) -> str:
    """The section: for each axis the median over rounds of each step's peak, in bytes of the weights."""
    rows = [
        f"| {axis if axis != PEER else 'TextPruner (heads and neurons)'} | "
        + " | ".join(f"{statistics.median(r[step] for r in rounds):.2f}" for step in rounds[0])
        + " |"
        for axis, rounds in found.items()
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "safetensors", "textpruner"))
    return f"""\
`make bench-memory`: a masked-language model with 12 layers, 768 wide and 250,002 vocabulary entries, random float32 weights of
{size / 1e9:.2f} GB, in a fresh process for each row. The highest resident memory so far (VmHWM, mapped file pages included) above
what the process held after its imports, over the weights' bytes; median of {len(found[PEER])}. The bound is {BOUND}. What goes is drawn at
random: half of the heads, neurons, weights and entries, two layers; `all` is every axis in turn.

| axis | after loading | after surgery | after saving |
|---|---|---|---|
{chr(10).join(rows)}

The last row is `from_pretrained`, TextPruner's own pruner (with `prune_heads` supplied, which transformers 5 has no more) and `torch.save`.

{datetime.date.today().isoformat()}; Python {platform.python_version()}, {versions}.
"""


def _result(axis: str, values: Sequence[float], peer: float) -> dict[str, Any]:
    ours = statistics.median(values)
    return {
        "measure": f"peak of load, surgery, save: {axis}",
        "ours": round(ours, 3),
        "peer": "from_pretrained, TextPruner, torch.save (heads and neurons)",
        "theirs": round(peer, 3),
        "unit": "x the weights' bytes",
        "ratio": round(peer / ours, 2),
        "spread": [round(min(values), 3), round(max(values), 3)],
        "target": f"< {BOUND}",
        "met": max(values) < BOUND,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--vocabulary", type=int, default=250_002)
    parser.add_argument("--measure", nargs=3, metavar=("AXIS", "MODEL", "WORK"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.measure:
        axis, source, work = given.measure
        print(json.dumps(_measured(axis, Path(source), Path(work))))
        return 0
    found: dict[str, list[dict[str, float]]] = {axis: [] for axis in (*AXES, PEER)}
    with tempfile.TemporaryDirectory(prefix="prunectl-memory-") as home:
        source = Path(home) / "model"
        size = make(source, layers=given.layers, hidden=given.hidden, vocabulary=given.vocabulary)
        for _ in range(given.rounds):
            for axis in found:  # in turns, so that drift hits all alike
                work = Path(home) / "work"
                work.mkdir()
                found[axis].append({step: peak / size for step, peak in measure(source, axis, work).items()})
                shutil.rmtree(work)
    body = render(found, size)
    print(body)
    if (given.layers, given.hidden, given.vocabulary) == XLMR_BASE:
        write_section("Memory at XLM-R-base's size", body)
    peer = statistics.median(r["save"] for r in found[PEER])
    results = [_result(axis, [r["save"] for r in found[axis]], peer) for axis in AXES]
    versions = {name: version(name) for name in ("torch", "transformers", "safetensors", "textpruner")}
    print(json.dumps({"benchmark": "memory", "machine": platform.machine(), "versions": versions, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
