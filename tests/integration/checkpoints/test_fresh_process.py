"""Saved checkpoints in processes that have never seen the model: with prunectl, and without it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import prunectl.checkpoints
from prunectl.checkpoints import save
from prunectl.checkpoints.load import load_original
from prunectl.pruning import engine
from prunectl.pruning.blocks import find_blocks
from prunectl.pruning.masks import Masks
from prunectl.recipe import Recipe
from support.models import EVERY_FAMILY, build, heads_of
from support.pruning import batches, masks_for, output

_AUTO = {
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "feature-extraction": "AutoModel",
    "text-generation": "AutoModelForCausalLM",
    "text2text-generation": "AutoModelForSeq2SeqLM",
    "image-classification": "AutoModelForImageClassification",
}

_COMPARE = """
import json, pathlib, sys
import torch
from safetensors.torch import load_file
torch.set_num_threads(1)
for case in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    tensors = load_file(case["outputs"])
    expected = tensors.pop("expected")
    model = load(case)
    with torch.inference_mode():
        got = model(**tensors)[0]
    print(json.dumps({"name": case["name"], "class": type(model).__name__, "equal": torch.equal(got, expected)}))
"""

_WITH_PRUNECTL = """
import sys
sys.path[:0] = {paths!r}
from prunectl.checkpoints import load_pruned
assert not any(name in sys.modules for name in ("celery", "sqlalchemy", "fastapi")), "loading needs no service"
def load(case):
    return load_pruned(case["directory"])
"""

_WITHOUT_PRUNECTL = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "prunectl":
            raise ModuleNotFoundError("prunectl is not installed here", name="prunectl")
sys.meta_path.insert(0, Hidden())
import transformers
def load(case):
    return getattr(transformers, case["auto"]).from_pretrained(case["directory"], trust_remote_code=True).eval()
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each family and head, each with a block that keeps nothing, and what its model computed."""
    root = tmp_path_factory.mktemp("checkpoints")
    described = []
    for seed, (family, head) in enumerate((name, head) for name in EVERY_FAMILY for head in heads_of(name)):
        described.append(
            saved_case(root, family, head, lambda blocks, seed=seed: {"seed": seed, "empty": (seed % blocks,)})
        )
    (root / "cases.json").write_text(json.dumps(described))
    return root / "cases.json"


def saved_case(root: Path, family: str, head: str, draw: Callable[[int], dict[str, Any]]) -> dict[str, str]:
    """Save a model cut by random masks; ``draw`` gives `masks_for` its arguments for a number of blocks, and may say
    which ``axes`` are cut.
    """
    name = f"{family}-{head}"
    source, directory, outputs = root / "source" / name, root / name, root / f"{name}.safetensors"
    build(source, family, head)
    model = load_original(source, json.loads((source / "config.json").read_text()))
    drawn = draw(len(find_blocks(model)))
    axes = drawn.pop("axes", "both")
    masks = masks_for(model, **drawn)
    masks = Masks(None if axes == "ffn" else masks.heads, None if axes == "heads" else masks.ffn)
    pruned = engine.apply(model, masks)
    save.save(model, source=source, directory=directory, recipe=Recipe(heads=0.5), pruned=pruned, provenance={})
    batch = batches(model, 1)[0]
    save_file({**batch, "expected": computed_by_one_thread(model, batch)}, outputs)
    return {
        "name": name,
        "directory": str(directory),
        "outputs": str(outputs),
        "auto": _AUTO[head],
        "class": type(model).__name__,
    }


def computed_by_one_thread(model: Any, batch: Any) -> Tensor:
    """As the fresh process does it: how many threads share a product decides the last bits of its sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return output(model, batch).clone()
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", ["with prunectl", "without prunectl"])
def test_every_checkpoint_computes_the_same_bits(kind: str, cases: Path, tmp_path: Path) -> None:
    assert_same_bits(kind, cases, tmp_path)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=4, deadline=None, database=None, phases=[Phase.explicit, Phase.generate])
def test_whatever_the_masks_the_checkpoints_compute_the_same_bits(data: st.DataObject) -> None:
    """One fresh process checks a checkpoint of every family, each with masks of its own."""

    def draw(blocks: int) -> dict[str, Any]:
        return {
            "seed": data.draw(st.integers(0, 2**31)),
            "keep": data.draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])),
            "empty": tuple(data.draw(st.sets(st.integers(0, blocks - 1)))),
            "axes": data.draw(st.sampled_from(["both", "heads", "ffn"])),
        }

    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        described = [
            saved_case(root, family, data.draw(st.sampled_from(heads_of(family))), draw) for family in EVERY_FAMILY
        ]
        (root / "cases.json").write_text(json.dumps(described))
        assert_same_bits("with prunectl", root / "cases.json", root)


def assert_same_bits(kind: str, cases: Path, directory: Path) -> None:
    core = str(Path(prunectl.checkpoints.__file__).parents[2])
    prelude = _WITH_PRUNECTL.format(paths=[core]) if kind == "with prunectl" else _WITHOUT_PRUNECTL
    done = subprocess.run(
        [sys.executable, "-I", "-c", prelude + _COMPARE, str(cases)],
        cwd=directory,
        env={"HOME": str(directory), "HF_HOME": str(directory / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    expected = json.loads(cases.read_text())
    assert [(result["name"], result["class"]) for result in results] == [
        (case["name"], case["class"]) for case in expected
    ]
    assert [result["name"] for result in results if not result["equal"]] == []
