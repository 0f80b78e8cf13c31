from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from prunectl.errors import InvalidData, InvalidInput
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import UNLABELLED, encode, mask_words
from prunectl.evaluation.objectives import Objective, objective_for
from prunectl.evaluation.tasks import Task
from support.models import FAMILIES, HEADS, model, texts, tokenizer

EXAMPLES = [Example(text) for text in texts(30)]


def objective(family: str, task: Task, examples: list[Example] = EXAMPLES, seed: int = 0) -> Objective:
    return objective_for(
        task, tokenizer(family), examples=examples, max_length=24, seed=seed, model=model(family, task)
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", HEADS)
def test_every_family_and_head_has_a_finite_loss_with_a_gradient(family: str, task: Task) -> None:
    made = objective(family, task)
    subject = model(family, task)
    for batch in made.batches(16):
        loss = made.loss(subject, batch)
        assert loss.shape == ()
        assert loss.isfinite()
        loss.backward()
    gradients = [p.grad for name, p in subject.named_parameters() if "attention" in name and p.dim() == 2]
    assert gradients and all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_masked_loss_at_labelled_positions_is_the_models_own(family: str) -> None:
    made = objective(family, "fill-mask")
    subject = model(family, "fill-mask")
    for batch in made.batches(8):
        labels = batch["labels"]
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        logits = subject(**inputs).logits
        theirs = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=UNLABELLED)
        assert torch.allclose(made.loss(subject, batch), theirs, atol=1e-5)


def test_fifteen_percent_of_the_words_are_masked_and_never_a_special_token() -> None:
    subject, words = model("bert", "fill-mask"), tokenizer("bert")
    rows = encode(subject, words, EXAMPLES, 64)
    hidden, labels = mask_words(words, rows, subject.config.vocab_size, 0)
    special = set(words.all_special_ids)
    shown = {"mask": 0, "same": 0, "other": 0}
    for row, changed, label in zip(rows, hidden, labels, strict=True):
        ordinary = [token for token in row["input_ids"] if token not in special]
        chosen = [index for index, value in enumerate(label) if value != UNLABELLED]
        assert len(chosen) == max(1, round(0.15 * len(ordinary)))
        for index, (before, after) in enumerate(zip(row["input_ids"], changed["input_ids"], strict=True)):
            if index not in chosen:
                assert before == after
            else:
                assert label[index] == before and before not in special
                kind = "mask" if after == words.mask_token_id else "same" if after == before else "other"
                shown[kind] += 1
    assert 0.7 < shown["mask"] / sum(shown.values()) < 0.9
    assert shown["same"] > 0 and shown["other"] > 0


def test_masks_depend_on_the_seed_and_not_on_the_batch_size() -> None:
    def masked(seed: int, batch_size: int) -> list[int]:
        batches = objective("bert", "fill-mask", seed=seed).batches(batch_size)
        return sorted(int(value) for batch in batches for value in batch["labels"].flatten() if value != UNLABELLED)

    assert masked(0, 4) == masked(0, 30)
    assert masked(0, 4) != masked(1, 4)


def test_batches_are_padded_to_their_longest_and_the_same_each_time() -> None:
    made = objective("xlm-roberta", "fill-mask")
    batches = made.batches(7)
    assert sum(len(batch["input_ids"]) for batch in batches) == 30
    for batch, again in zip(batches, made.batches(7), strict=True):
        assert batch["attention_mask"].sum(1).max() == batch["input_ids"].shape[1] <= 24
        assert all(torch.equal(batch[name], again[name]) for name in batch)


def test_classification_takes_the_datas_labels_and_else_the_models_own() -> None:
    labelled = [replace(example, label=index % 3) for index, example in enumerate(EXAMPLES)]
    given, own = objective("bert", "text-classification", labelled), objective("bert", "text-classification")
    assert (given.labels, own.labels) == ("data", "model")
    assert sorted(int(x) for batch in given.batches(8) for x in batch["labels"]) == sorted(i % 3 for i in range(30))
    subject = model("bert", "text-classification")
    for batch in own.batches(8):
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        assert torch.equal(subject(**inputs).logits.argmax(-1), batch["labels"])


def test_contrast_has_at_least_eight_texts_a_batch() -> None:
    made = objective("distilbert", "feature-extraction")
    assert made.labels == "model"
    assert [len(batch["input_ids"]) for batch in made.batches(2)] == [8, 8, 14]
    subject = model("distilbert", "feature-extraction")
    batch = made.batches(8)[0]
    inputs = {name: value for name, value in batch.items() if name != "reference"}
    hidden = subject(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    embedding = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
    assert torch.allclose(embedding, batch["reference"], atol=1e-5)
    expected = cross_entropy(embedding @ embedding.T / 0.05, torch.arange(len(embedding)))
    assert torch.allclose(made.loss(subject, batch), expected, atol=1e-4)


def test_too_little_is_refused() -> None:
    with pytest.raises(InvalidData, match="at least 2"):
        objective("bert", "feature-extraction", [Example("alone")])
    with pytest.raises(InvalidData, match="could be masked"):
        objective("bert", "fill-mask", [Example("\u4e16\u754c")])  # unknown to the tokenizer


def test_a_tokenizer_without_mask_token_is_refused() -> None:
    words = type("Words", (), {"mask_token_id": None})()
    with pytest.raises(InvalidInput, match="no mask token"):
        mask_words(words, [], 10, 0)
