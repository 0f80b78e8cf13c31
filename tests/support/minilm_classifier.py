"""all-MiniLM-L6-v2 with a fitted head that tells six areas of Python's documentation apart, and texts to train it on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prunectl.evaluation.data import Example, split
from prunectl.evaluation.encoding import by_length, collate, encode
from support.training import CLASSES, labelled_texts

LENGTH = 24


def texts(held_out: int, training: int) -> tuple[list[Example], list[Example]]:
    """(training, held-out) texts that share none, with their labels."""
    train, held = split(labelled_texts(), n_evaluation=held_out, n_calibration=training, seed=0)
    return train, held


def jsonl(examples: Sequence[Example]) -> str:
    return "\n".join(json.dumps({"text": example.text, "label": example.label}) for example in examples)


def fit(minilm: Path, directory: Path, train: Sequence[Example]) -> Path:
    """The encoder as published, under a head that is a multinomial logistic regression on its pooled output."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=len(CLASSES)).eval()
    model.config.id2label, model.config.label2id = dict(enumerate(CLASSES)), {n: i for i, n in enumerate(CLASSES)}
    rows = encode(model, tokenizer, train, LENGTH)
    features = torch.empty(len(rows), model.config.hidden_size)
    with torch.no_grad():
        for indices in by_length(rows, 32):
            features[indices] = model.base_model(**collate(tokenizer, [rows[i] for i in indices])).pooler_output
    answers = torch.tensor([example.label for example in train])
    optimiser = torch.optim.LBFGS(model.classifier.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = cross_entropy(model.classifier(features), answers) + 1e-4 * model.classifier.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
