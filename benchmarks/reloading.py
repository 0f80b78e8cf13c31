"""Checkpoints opened in two fresh processes: one with prunectl, one that can't import it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

_START = """
import json, pathlib, sys
import torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
"""
_WITH_PRUNECTL = """
sys.path[:0] = {paths!r}
from prunectl.checkpoints import load_pruned
def load(case):
    return load_pruned(case["directory"])
"""
_WITHOUT_PRUNECTL = """
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "prunectl":
            raise ModuleNotFoundError("prunectl is not installed here", name="prunectl")
sys.meta_path.insert(0, Hidden())
import transformers
def load(case):
    more = {"trust_remote_code": True} if case["carried"] else {}
    return getattr(transformers, case["auto"]).from_pretrained(case["directory"], **more).eval()
"""
_COMPUTE = """
for case in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    try:
        model = load(case)
        with torch.inference_mode():
            output = model(**load_file(case["inputs"]))[0]
        save_file({"output": output.contiguous()}, case["inputs"] + sys.argv[2])
        error = None
    except Exception as fault:
        error = f"{type(fault).__name__}: {fault}"
    print(json.dumps({"inputs": case["inputs"], "error": error}), flush=True)
"""


@dataclass(frozen=True)
class Case:
    """``auto`` is the Auto class to load with where prunectl is absent, ``carried`` whether that takes the modelling
    file in the directory, ``inputs`` a safetensors file of what the model is called with."""

    directory: str
    auto: str
    carried: bool
    inputs: str


def faults(cases: Sequence[Case], work: Path) -> list[str | None]:
    """For each case None, or why it doesn't load in both processes to the same bits. Writes to ``work``."""
    import torch
    from safetensors.torch import load_file

    (work / "cases.json").write_text(json.dumps([asdict(case) for case in cases]))
    answers = {
        kind: _computed(code, work, kind)
        for kind, code in (
            (".with", _START + _WITH_PRUNECTL.format(paths=[str(ROOT / "core")]) + _COMPUTE),
            (".without", _START + _WITHOUT_PRUNECTL + _COMPUTE),
        )
    }
    found: list[str | None] = []
    for case in cases:
        errors = [answers[kind][case.inputs] for kind in answers if answers[kind][case.inputs] is not None]
        if not errors:
            one, other = (load_file(case.inputs + kind)["output"] for kind in answers)
            if not torch.equal(one, other):
                errors = [f"with and without prunectl the outputs differ by {float((one - other).abs().max()):.3g}"]
        found.append(errors[0] if errors else None)
    return found


def _computed(code: str, work: Path, kind: str) -> dict[str, str | None]:
    """What a fresh process said of each case."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(work / "cases.json"), kind],
        cwd=work,
        env={
            "HOME": str(work),
            "HF_HOME": str(work / "hub"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"the process that loads{kind} prunectl ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {answer["inputs"]: answer["error"] for answer in answers}
