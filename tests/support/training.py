"""Small models that are really trained, on text that ships with Python, so that quality means something."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import torch
import transformers
from torch.nn.functional import cross_entropy

from prunectl.evaluation.data import Example, builtin_python_docs
from prunectl.evaluation.encoding import UNLABELLED, collate, encode, mask_words, pad_labels
from support import models

LENGTH = 48
BATCH = 32


def train_xlmr_mlm(directory: Path, *, steps: int = 400, vocabulary: int = 800, seed: int = 0) -> dict[str, float]:
    """Train an XLM-R masked-language model (2 layers, 128 wide, 4 heads) and save it.

    Returns ``loss`` on held-out texts and ``unigram_loss``, what guessing by word frequency alone would cost there (nats a masked token).
    """
    torch.manual_seed(seed)
    tokenizer = models.tokenizer("xlm-roberta", vocabulary=vocabulary, sample=2000)
    config = transformers.XLMRobertaConfig(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256,
        max_position_embeddings=LENGTH + 2, type_vocab_size=1, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = transformers.XLMRobertaForMaskedLM(config)
    texts = [Example(example.text) for example in builtin_python_docs()]
    held_out, training = texts[:200], texts[200:]
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps)
    rows = encode(model, tokenizer, training, LENGTH)
    order = torch.randperm(len(rows)).tolist()
    model.train()
    for step in range(steps):
        chosen = [rows[order[(step * BATCH + offset) % len(order)]] for offset in range(BATCH)]
        optimiser.zero_grad()
        loss, _ = _masked_loss(model, tokenizer, chosen, seed=step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        loss, labels = _masked_loss(model, tokenizer, encode(model, tokenizer, held_out, LENGTH), seed=seed)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return {"loss": float(loss), "unigram_loss": _unigram_loss(rows, labels, len(tokenizer))}


def _masked_loss(model, tokenizer, rows, seed):  # type: ignore[no-untyped-def]
    hidden, labels = mask_words(tokenizer, rows, model.config.vocab_size, seed)
    batch = collate(tokenizer, hidden)
    expected = pad_labels(labels, batch["input_ids"], tokenizer.padding_side)
    positions = expected != UNLABELLED
    return cross_entropy(model(**batch).logits[positions], expected[positions]), expected[positions].tolist()


def _unigram_loss(rows, labels, vocabulary: int) -> float:  # type: ignore[no-untyped-def]
    counts = Counter(token for row in rows for token in row["input_ids"])
    total = sum(counts.values()) + vocabulary
    return sum(-math.log((counts[label] + 1) / total) for label in labels) / len(labels)


def write_rows(path: Path, rows: list[dict]) -> Path:
    """A ``.jsonl`` data file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
