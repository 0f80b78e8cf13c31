"""Small models that have really learnt something, trained in under a minute each on text that ships with Python.

Training runs on one thread: the figures are then the same on any number of cores, and models this small gain little
from more. Use the session's fixtures `xlmr_mlm` and `classifier` by importing them into a conftest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.evaluation import quality
from prunectl.evaluation.builtin import paragraphs
from prunectl.evaluation.data import Example, builtin_python_docs, split
from prunectl.evaluation.encoding import UNLABELLED, Encoded, collate, encode, mask_words, pad_labels
from prunectl.evaluation.outputs import class_logits, masked_logits
from support.models import tokenizer

LENGTH = 64
HELD_OUT = 512
CLASSES = ("email", "logging", "mathematics", "network", "processes", "syntax")
"""Areas of Python's documentation, told from the text alone."""
_AREAS = {
    "email": ("email", "mailbox", "imaplib", "smtplib", "poplib"),
    "logging": ("logging", "warnings", "traceback", "pdb", "bdb", "doctest", "unittest"),
    "mathematics": ("statistics", "random", "fractions", "decimal", "_pydecimal", "heapq", "datetime", "_pydatetime"),
    "network": ("http", "urllib", "socket", "socketserver", "ssl", "ftplib", "ipaddress"),
    "processes": ("subprocess", "multiprocessing", "asyncio", "threading", "concurrent", "queue", "sched", "selectors"),
    "syntax": (),  # the language reference
}


@dataclass(frozen=True)
class Trained:
    """``loss`` and ``accuracy`` are of texts that the model hasn't seen; ``guess`` is what knowing no text would give.

    For a masked language model ``guess`` is the cross-entropy of always answering with the words' frequencies, in nats;
    for a classifier the accuracy of always naming the commonest class.
    """

    directory: Path
    loss: float
    accuracy: float
    guess: float
    held_out: list[Example]


@pytest.fixture(scope="session")
def xlmr_mlm(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_xlmr_mlm(tmp_path_factory.mktemp("xlmr-mlm"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_classifier(tmp_path_factory.mktemp("classifier"))


def train_xlmr_mlm(directory: Path, *, steps: int = 500, seed: int = 0) -> Trained:
    """A masked language model of XLM-R's architecture: 4 layers, 4 heads, 128 wide, a Unigram vocabulary of 2,000."""
    words = tokenizer("xlm-roberta", vocabulary=2000, sample=20_000)
    train, held_out = split(builtin_python_docs(), n_evaluation=HELD_OUT, n_calibration=None, seed=seed)
    torch.manual_seed(seed)
    shape = transformers.XLMRobertaConfig(
        vocab_size=len(words),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=LENGTH + 2,
        type_vocab_size=1,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.XLMRobertaForMaskedLM(shape)
    rows = encode(model, words, train, LENGTH)
    for step, (optimiser, indices) in enumerate(_steps(model, rows, steps, batch_size=32, rate=2e-3)):
        hidden, labels = mask_words(words, [rows[index] for index in indices], len(words), seed + step, fraction=0.3)
        batch = collate(words, hidden)
        wanted = pad_labels(labels, batch["input_ids"], words.padding_side)
        positions = wanted != UNLABELLED
        cross_entropy(masked_logits(model, batch, positions), wanted[positions]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    guess = _unigram_loss(rows, model, words, held_out)
    return _finished(model, words, directory, "fill-mask", held_out, guess)


def train_classifier(directory: Path, *, steps: int = 250, seed: int = 0) -> Trained:
    """A BERT of 4 layers, 4 heads and 128 dimensions that tells 6 areas of Python's documentation apart."""
    words = tokenizer("bert", vocabulary=4000, sample=20_000)
    train, held_out = split(labelled_texts(), n_evaluation=HELD_OUT, n_calibration=None, seed=seed)
    torch.manual_seed(seed)
    shape = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=LENGTH,
        pad_token_id=words.pad_token_id,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
    )
    model = transformers.BertForSequenceClassification(shape)
    rows = encode(model, words, train, LENGTH)
    answers = torch.tensor([example.label for example in train])
    for optimiser, indices in _steps(model, rows, steps, batch_size=32, rate=1e-3):
        cross_entropy(class_logits(model, collate(words, [rows[i] for i in indices])), answers[indices]).backward()
        optimiser.step()
    commonest = Counter(example.label for example in train).most_common(1)[0][0]
    guess = sum(example.label == commonest for example in held_out) / len(held_out)
    return _finished(model, words, directory, "text-classification", held_out, guess)


def labelled_texts() -> list[Example]:
    """Paragraphs with the area that they are from as label; those of no area are left out."""
    area = {f"library/{name}": index for index, label in enumerate(CLASSES) for name in _AREAS[label]}
    found = []
    for source, text in paragraphs():
        top = "/".join(source.split("/")[:2])
        label = CLASSES.index("syntax") if source.startswith("topics/") else area.get(top)
        if label is not None:
            found.append(Example(text, label=label))
    return found


def _steps(
    model: PreTrainedModel, rows: Sequence[Encoded], steps: int, *, batch_size: int, rate: float
) -> Iterator[tuple[torch.optim.Optimizer, list[int]]]:
    """Batches of similar length with a fresh gradient each; the rate rises for a tenth of the steps, then falls."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01, betas=(0.9, 0.98), foreach=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / (steps / 10), max(0.0, (steps - step) / (steps * 0.9)))
    )
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]["input_ids"]))
    for _ in range(steps):
        start = int(torch.randint(0, len(order) - batch_size, ()))
        optimiser.zero_grad()
        yield optimiser, order[start : start + batch_size]
        schedule.step()
    model.eval()
    torch.set_num_threads(usual)


def _unigram_loss(
    rows: Sequence[Encoded], model: PreTrainedModel, words: PreTrainedTokenizerBase, held_out: Sequence[Example]
) -> float:
    """Cross-entropy in nats of the held-out words under the training words' frequencies, one added to each."""
    special = set(words.all_special_ids)
    seen = Counter(token for row in rows for token in row["input_ids"] if token not in special)
    total = sum(seen.values()) + len(words)
    asked = [
        token for row in encode(model, words, held_out, LENGTH) for token in row["input_ids"] if token not in special
    ]
    return -sum(math.log((seen[token] + 1) / total) for token in asked) / len(asked)


def _finished(
    model: PreTrainedModel,
    words: PreTrainedTokenizerBase,
    directory: Path,
    task: quality.Task,
    held_out: list[Example],
    guess: float,
) -> Trained:
    model.save_pretrained(directory)
    words.save_pretrained(directory)
    found = quality.evaluate(model, words, task, held_out, max_length=LENGTH, seed=0)
    return Trained(directory, found["eval_loss"].value, found["eval_accuracy"].value, guess, held_out)
