"""What language models and models of images are asked, and how they are measured."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from prunectl.errors import InvalidInput
from prunectl.evaluation import encoding, images, outputs, quality
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import UNLABELLED, ask
from prunectl.evaluation.inputs import made_up
from prunectl.evaluation.objectives import objective_for
from prunectl.evaluation.tasks import refuse_builtin, task_of, text_limit
from support.models import heads_of, model, texts, tokenizer

EXAMPLES = [Example(text) for text in texts(16)]
KINDS = ("albert", "gpt2", "llama", "bart", "t5", "vit")
"""A family of each kind: what the others of a kind share with it is not run again."""


def words_of(family: str) -> Any:
    return None if family == "vit" else tokenizer(family)


def examples_of(family: str) -> list[Example]:
    return images.random_images(16) if family == "vit" else EXAMPLES


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("GPT2Model", "feature-extraction"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("MarianMTModel", "text2text-generation"),
        ("MarianModel", "feature-extraction"),
        ("T5EncoderModel", "feature-extraction"),
        ("ViTForImageClassification", "image-classification"),
    ],
)
def test_the_head_decides(architecture: str, task: str) -> None:
    assert task_of({"architectures": [architecture]}) == task


@pytest.mark.parametrize("family", KINDS)
def test_every_head_has_a_loss_with_a_gradient_and_metrics_with_error_and_count(family: str) -> None:
    for head in heads_of(family):
        subject, words, examples = model(family, head), words_of(family), examples_of(family)
        made = objective_for(head, words, examples=examples, max_length=24, seed=0, model=subject)
        loss = sum((made.loss(subject, batch) for batch in made.batches(8)), torch.zeros(()))
        loss.backward()
        gradients = [p.grad for name, p in subject.named_parameters() if "attention" in name.lower() and p.dim() == 2]
        assert all(gradient is not None for gradient in gradients)
        reference = quality.reference(subject, words, head, examples, max_length=24, batch_size=5, seed=0)
        again = quality.evaluate(
            subject, words, head, examples, max_length=24, batch_size=16, seed=0, reference=reference
        )
        asked = {
            "text-generation": {"eval_loss", "eval_accuracy", "eval_perplexity", "eval_agreement"},
            "text2text-generation": {"eval_loss", "eval_accuracy", "eval_agreement"},
            "fill-mask": {"eval_loss", "eval_accuracy", "eval_agreement"},
            "feature-extraction": {"eval_cosine", "eval_overlap_at_10"},
        }.get(head, {"eval_agreement"})
        assert set(again) == asked
        assert all(found.n == 16 and found.stderr is not None for found in again.values())
        likeness = again.get("eval_agreement", again.get("eval_cosine"))
        assert likeness is not None and likeness.value == pytest.approx(1.0, abs=1e-5), "padding changes nothing"


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_the_loss_of_a_language_model_is_its_own(family: str) -> None:
    subject, words = model(family, "text-generation"), tokenizer(family)
    found = quality.evaluate(subject, words, "text-generation", EXAMPLES, max_length=24, seed=0)
    losses, right = [], []
    with torch.no_grad():
        for example in EXAMPLES:
            ids = words(example.text, truncation=True, max_length=24, return_tensors="pt")["input_ids"]
            logits = subject(input_ids=ids).logits[0, :-1]
            losses += cross_entropy(logits, ids[0, 1:], reduction="none").tolist()
            right += (logits.argmax(-1) == ids[0, 1:]).tolist()
    assert found["eval_loss"].value == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert found["eval_accuracy"].value == pytest.approx(sum(right) / len(right))
    assert found["eval_perplexity"].value == pytest.approx(math.exp(found["eval_loss"].value))


@pytest.mark.parametrize("family", ["mbart", "marian", "t5"])
def test_the_loss_of_a_pair_is_the_models_own(family: str) -> None:
    subject, words = model(family, "text2text-generation"), tokenizer(family)
    pairs = [Example(first.text, second.text) for first, second in zip(EXAMPLES[::2], EXAMPLES[1::2], strict=True)]
    made = objective_for("text2text-generation", words, examples=pairs, max_length=24, seed=0, model=subject)
    assert made.labels == "data"
    found = quality.evaluate(subject, words, "text2text-generation", pairs, max_length=24, seed=0)
    total, count = 0.0, 0
    with torch.no_grad():
        for example in pairs:
            given = {"truncation": True, "max_length": 24, "return_tensors": "pt"}
            labels = words(example.text_pair, **given)["input_ids"]
            loss = subject(input_ids=words(example.text, **given)["input_ids"], labels=labels).loss
            total, count = total + float(loss) * labels.numel(), count + labels.numel()
    assert found["eval_loss"].value == pytest.approx(total / count, abs=1e-5)


def test_without_pairs_a_text_is_its_own_target() -> None:
    subject, words = model("t5", "text2text-generation"), tokenizer("t5")
    rows, labels = ask("text2text-generation", subject, words, EXAMPLES, max_length=24, seed=0)
    assert [row["input_ids"] for row in rows] == labels, "this tokenizer has no mask token"
    assert all(
        row["decoder_input_ids"] == [words.pad_token_id, *target[:-1]] for row, target in zip(rows, labels, strict=True)
    )
    denoiser = tokenizer("deberta-v2")  # any tokenizer with a mask token
    rows, labels = ask("text2text-generation", subject, denoiser, EXAMPLES, max_length=24, seed=0)
    masked = sum(row["input_ids"].count(denoiser.mask_token_id) for row in rows)
    assert 0.05 < masked / sum(map(len, labels)) < 0.2
    assert all(denoiser.mask_token_id not in target for target in labels)


def test_a_text_of_one_token_asks_nothing_of_a_language_model() -> None:
    subject, words = model("gpt2", "text-generation"), tokenizer("gpt2")
    _, labels = ask("text-generation", subject, words, [Example("a"), Example("a b")], max_length=8, seed=0)
    assert labels[0] == [UNLABELLED] and labels[1][-1] == UNLABELLED


def test_a_classifier_without_padding_reads_each_text_alone() -> None:
    subject, words = model("gpt2", "text-classification"), tokenizer("gpt2")
    inputs = encoding.probe(subject, words, EXAMPLES[:4], 16)
    expected = outputs.class_logits(subject, inputs)
    subject.config.pad_token_id = None
    torch.testing.assert_close(outputs.class_logits(subject, inputs), expected, rtol=0, atol=1e-5)
    assert encoding.probe(subject, words, EXAMPLES[:4], 16)["input_ids"].shape[0] == 1


def test_images_depend_on_their_name_alone() -> None:
    first, other = images.pixels("random image 0", (12, 10)), images.pixels("random image 1", (12, 10))
    assert first.shape == (3, 12, 10) and torch.equal(first, images.pixels("random image 0", (12, 10)))
    assert not torch.allclose(first, other) and abs(float(first.std()) - 1) < 0.4


def test_texts_are_refused_where_images_are_needed() -> None:
    with pytest.raises(InvalidInput, match="takes images") as caught:
        refuse_builtin({"model_type": "vit"}, "calibration")
    assert caught.value.field == "calibration"
    refuse_builtin({"model_type": "bert"}, "data")


@pytest.mark.parametrize("family", KINDS)
def test_made_up_inputs_go_through_every_head(family: str) -> None:
    for head in heads_of(family):
        subject = model(family, head)
        inputs = made_up(subject, 3, 12, seed=1)
        with torch.no_grad():
            assert subject(**inputs)[0].shape[0] == 3
        if "input_ids" in inputs:
            assert (
                inputs["input_ids"].shape == (3, 12) and not (inputs["input_ids"] == subject.config.pad_token_id).any()
            )


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"model_type": "gpt2", "n_positions": 70}, 70),
        ({"model_type": "mpnet", "max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ({"model_type": "t5", "n_positions": 16}, 128),
        ({"model_type": "vit"}, 128),
    ],
)
def test_text_limits(config: dict[str, Any], limit: int) -> None:
    assert text_limit(config) == limit
