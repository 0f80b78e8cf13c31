"""Tags of words and answers to questions: what is asked, what is counted, and a whole job on each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score

from prunectl.checkpoints import load_pruned
from prunectl.errors import CorruptWeights, InvalidInput
from prunectl.evaluation import macs, quality, squad
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import UNLABELLED
from prunectl.evaluation.heads import head_for
from prunectl.evaluation.heads.answers import context_of
from prunectl.evaluation.objectives import objective_for
from prunectl.evaluation.tasks import Task
from prunectl.pruning import planning
from prunectl.pruning.axes import check_export
from prunectl.recipe import Recipe
from support import pipeline
from support.models import ENCODERS, TOKEN_HEADS, build, config, model, texts, tokenizer

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
NAMED = {"id2label": dict(enumerate(NAMES))}


def tagged(count: int = 24, words: int = 10) -> list[Example]:
    draw = np.random.default_rng(0)
    found = []
    for text in texts(count):
        cut = tuple(text.split()[:words])
        tags = tuple(int(tag) for tag in draw.integers(0, len(NAMES), len(cut)))
        found.append(Example(" ".join(cut), words=cut, tags=tags))
    return found


def asked(count: int = 24) -> list[Example]:
    """Questions of one word: which one follows."""
    found = []
    for text in texts(count):
        words = text.split()
        place = next(index for index in range(2, len(words)) if len(words[index]) > 4)
        start = len(" ".join(words[:place])) + 1
        found.append(Example(f"What follows {words[place - 1]}?", text, answers=((words[place], start),)))
    return found


EXAMPLES: dict[Task, list[Example]] = {"token-classification": tagged(), "question-answering": asked()}


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("task", TOKEN_HEADS)
def test_every_encoder_has_the_head(family: str, task: Task) -> None:
    more: dict[str, Any] = NAMED if task == "token-classification" else {}
    subject = model(family, task, **more)
    plan = subject.config.to_dict() | {"architectures": [type(subject).__name__]}
    assert planning.count_parameters(plan) == macs.parameters(subject)
    assert planning.count_macs(plan, 20) == macs.count(subject, 20)
    examples = EXAMPLES[task][:8]
    for given in (examples, [Example(e.text, e.text_pair, words=e.words) for e in examples]):
        made = objective_for(task, tokenizer(family), examples=given, max_length=48, seed=0, model=subject)
        assert made.labels == ("data" if given is examples else "model")
        sum((made.loss(subject, batch) for batch in made.batches(4)), torch.zeros(())).backward()
        assert all(p.grad is not None for n, p in subject.named_parameters() if "attention" in n and p.dim() == 2)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "deberta-v2"])
def test_a_word_is_tagged_at_its_first_token(family: str) -> None:
    words = tokenizer(family)
    examples = tagged(6)
    found = head_for("token-classification").ask(
        model(family, "token-classification", **NAMED), words, examples, max_length=64, seed=0
    )
    assert found.targets is not None
    longer = 0
    for example, row, labels in zip(examples, found.rows, found.targets, strict=True):
        numbered = [(place, index) for index, place in enumerate(row["places"]) if place != UNLABELLED]
        assert [place for place, _ in numbered] == list(range(len(example.words or ())))
        assert [labels[index] for _, index in numbered] == list(example.tags or ())
        assert sum(label != UNLABELLED for label in labels) == len(numbered)
        starts = [index for _, index in numbered]
        for (number, start), stop in zip(numbered, [*starts[1:], len(labels) - 1], strict=True):
            spelt = words.decode(row["input_ids"][start:stop]).replace(" ", "")
            wanted = (example.words or ())[number]
            assert spelt == (wanted.lower() if family == "bert" else wanted)
            longer += stop - start > 1
    assert longer, "some word has more tokens than one"


def test_tags_are_scored_as_seqeval_scores_them() -> None:
    subject, words = model("bert", "token-classification", seed=3, **NAMED), tokenizer("bert")
    examples = tagged()
    found = quality.evaluate(subject, words, "token-classification", examples, max_length=64, seed=0)
    expected, predicted, right = [], [], []
    with torch.no_grad():
        for example in examples:
            encoded = words(list(example.words or ()), is_split_into_words=True, return_tensors="pt")
            said = subject(**encoded).logits[0].argmax(-1).tolist()
            places = encoded.word_ids(0)
            first = [places.index(number) for number in range(len(example.words or ()))]
            expected.append([NAMES[int(tag)] for tag in example.tags or ()])
            predicted.append([NAMES[said[place]] for place in first])
            right += [a == b for a, b in zip(expected[-1], predicted[-1], strict=True)]
    assert found["eval_f1"].value == pytest.approx(f1_score(expected, predicted))
    assert 0 < found["eval_f1"].value < 1
    assert found["eval_accuracy"].value == pytest.approx(np.mean(right))
    assert found["eval_f1"].stderr is not None and found["eval_f1"].n == 24


def test_the_error_of_entity_f1_is_that_of_resampled_texts() -> None:
    examples = tagged(200)
    said = quality.reference(
        model("bert", "token-classification", seed=3, **NAMED), tokenizer("bert"), "token-classification", examples,
        max_length=64, seed=0,
    )  # fmt: skip
    other = quality.reference(
        model("bert", "token-classification", seed=4, **NAMED), tokenizer("bert"), "token-classification", examples,
        max_length=64, seed=0,
    )  # fmt: skip
    draws = np.random.default_rng(0).integers(0, len(examples), (2000, len(examples)))

    def resampled(of: quality.Reference) -> Any:
        a = of.arrays
        return np.array([2 * a["hits"][d].sum() / (a["found"][d].sum() + a["true"][d].sum()) for d in draws])

    found = quality.summarise(said, other, seed=0)["eval_f1"]
    assert found.stderr == pytest.approx(resampled(said).std(), rel=0.15)
    assert found.difference_stderr == pytest.approx((resampled(said) - resampled(other)).std(), rel=0.15)


def test_words_beyond_the_limit_count_nowhere() -> None:
    subject, words = model("bert", "token-classification", **NAMED), tokenizer("bert")
    whole = tagged(12, words=8)
    cut = quality.reference(subject, words, "token-classification", whole, max_length=8, seed=0)
    read = cut.arrays["predicted"] >= 0
    assert 0 < read.sum() < len(read) == sum(len(e.words or ()) for e in whole)
    found = quality.summarise(cut, cut, seed=0)
    right = cut.arrays["predicted"][read] == cut.arrays["expected"][read]
    assert found["eval_accuracy"].value == pytest.approx(right.mean())
    assert found["eval_agreement"].value == 1.0


def test_parts_of_speech_have_no_entities() -> None:
    subject = model("bert", "token-classification", id2label={0: "NOUN", 1: "VERB", 2: "X", 3: "DET", 4: "ADJ"})
    found = quality.evaluate(subject, tokenizer("bert"), "token-classification", tagged(), max_length=64, seed=0)
    assert set(found) == {"eval_loss", "eval_accuracy"}


def test_a_long_context_is_read_in_windows_and_its_answer_found_anywhere() -> None:
    subject, words = model("bert", "question-answering"), tokenizer("bert")
    long = " ".join(texts(6))
    example = Example("Which?", long, answers=((long.split()[-1], len(long) - len(long.split()[-1])),))
    head = head_for("question-answering")
    found = head.ask(subject, words, [example], max_length=64, seed=0)
    assert len(found.rows) > 3 and set(found.owners) == {0}
    seen = np.zeros(len(long), dtype=bool)
    for row, offsets in zip(found.rows, found.beside, strict=True):
        assert len(row["input_ids"]) <= 64
        for place, (start, stop) in zip(row["places"], offsets, strict=True):
            if place != UNLABELLED:
                seen[start:stop] = True
    assert all(seen[index] for index, letter in enumerate(long) if not letter.isspace())
    learnt = head.learn(found, "calibration")
    assert len(learnt.rows) == 1 and learnt.targets is not None
    first, last = learnt.targets[0]
    assert long[learnt.beside[0][first][0] : learnt.beside[0][last][1]] == long.split()[-1]
    assert quality.evaluate(subject, words, "question-answering", [example], max_length=64, seed=0)["eval_f1"].n == 1


def test_an_answer_is_the_best_span_of_the_context() -> None:
    subject, words = model("distilbert", "question-answering", seed=2), tokenizer("distilbert")
    examples = [replace(example, text_pair=(example.text_pair or "")[:40]) for example in asked(8)]
    said = quality.reference(subject, words, "question-answering", examples, max_length=64, seed=0)
    rated = []
    with torch.no_grad():
        for index, example in enumerate(examples):
            given = words(example.text, example.text_pair, return_offsets_mapping=True, return_tensors="pt")
            offsets = given.pop("offset_mapping")[0].tolist()
            inside = [place for place, part in enumerate(given.sequence_ids(0)) if part == 1]
            found = subject(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
            start, end = found.start_logits[0], found.end_logits[0]
            spans = [(a, b) for a in inside for b in inside if a <= b < a + 30]
            best = max(spans, key=lambda span: float(start[span[0]] + end[span[1]]))
            assert said.arrays["start"][index] == offsets[best[0]][0]
            assert said.arrays["end"][index] == offsets[best[1]][1]
            text = context_of(example)[offsets[best[0]][0] : offsets[best[1]][1]]
            rated.append(squad.scores(text, [answer for answer, _ in example.answers or ()]))
    found = quality.summarise(said, None, seed=0)
    assert found["eval_exact_match"].value == pytest.approx(np.mean([exact for exact, _ in rated]))
    assert found["eval_f1"].value == pytest.approx(np.mean([f1 for _, f1 in rated]))


def test_no_answer_is_given_only_where_some_question_has_none() -> None:
    subject, words = model("bert", "question-answering"), tokenizer("bert")
    with torch.no_grad():  # sure of the first token, so of no answer
        subject.qa_outputs.weight.zero_()
        subject.qa_outputs.bias.zero_()
    answerable = asked(6)
    said = quality.reference(subject, words, "question-answering", answerable, max_length=64, seed=0)
    assert (said.arrays["start"] >= 0).all()
    none = [*answerable[:-1], replace(answerable[-1], answers=())]
    hook = subject.qa_outputs.register_forward_hook(
        lambda _m, _i, output: output + (torch.arange(output.shape[1]) == 0)[None, :, None]
    )
    said = quality.reference(subject, words, "question-answering", none, max_length=64, seed=0)
    hook.remove()
    assert (said.arrays["start"] == -1).all()
    assert said.arrays["exact"].tolist() == [0.0] * 5 + [1.0]


METRICS = {
    "token-classification": {"eval_loss", "eval_accuracy", "eval_f1", "eval_agreement"},
    "question-answering": {"eval_exact_match", "eval_f1", "eval_agreement"},
}


def rows_of(task: str, count: int = 60) -> str:
    if task == "token-classification":
        records = [{"tokens": e.words, "ner": [NAMES[int(t)] for t in e.tags or ()]} for e in tagged(count)]
    else:
        records = [
            {"question": e.text, "passage": e.text_pair, "answers": {"text": [a], "answer_start": [s]}}
            for e in asked(count)
            for a, s in e.answers or ()
        ]
    return "\n".join(map(json.dumps, records))


@pytest.mark.parametrize(("family", "task"), [("xlm-roberta", TOKEN_HEADS[0]), ("bert", TOKEN_HEADS[1])])
def test_a_job(family: str, task: Task, tmp_path: Path) -> None:
    more: dict[str, Any] = NAMED if task == "token-classification" else {}
    source = build(tmp_path / "source", family, task, **more)
    data = pipeline.upload(tmp_path, rows_of(task), "rows.jsonl")
    columns = ("tags=ner",) if task == "token-classification" else ("context=passage",)
    result, directory = pipeline.run(
        source, {"heads": 0.5, "ffn": 0.3, "recover": "finetune", "recover_epochs": 1}, tmp_path, data=data,
        columns=columns, max_drop=1.0,
    )  # fmt: skip
    assert {name for name, measure in result.metrics.items() if measure.n is not None} == METRICS[task]
    assert result.conditions["task"] == task and result.conditions["primary_metric"] == "eval_f1"
    assert result.labels == "data" and result.gate is not None and result.gate.passed
    for name in METRICS[task] - {"eval_agreement"}:
        measure = result.metrics[name]
        assert measure.before is not None and measure.stderr is not None and measure.difference_stderr is not None
        assert measure.n == 24
    assert f"pipeline_tag: {task}" in (directory / "README.md").read_text()
    assert type(load_pruned(directory)).__name__.endswith(type(model(family, task, **more)).__name__)


@pytest.mark.parametrize("task", TOKEN_HEADS)
def test_a_job_without_labels_is_fidelity(task: Task, tmp_path: Path) -> None:
    more: dict[str, Any] = NAMED if task == "token-classification" else {}
    source = build(tmp_path / "source", "distilbert", task, **more)
    corpus = pipeline.upload(tmp_path, "\n".join(texts(80)[40:]))
    recipe = {"heads": 0.5, "recover": "distill", "recover_epochs": 1, "recover_data": corpus}
    result, _ = pipeline.run(source, recipe, tmp_path)
    assert result.labels == "model" and result.conditions["primary_metric"] == "eval_agreement"
    assert {name for name, measure in result.metrics.items() if measure.n is not None} == {"eval_agreement"}


@pytest.mark.parametrize("task", TOKEN_HEADS)
def test_a_smaller_vocabulary_cuts_words_otherwise_and_they_are_still_paired(task: Task, tmp_path: Path) -> None:
    more: dict[str, Any] = NAMED if task == "token-classification" else {}
    source = build(tmp_path / "source", "xlm-roberta", task, **more)
    corpus = pipeline.upload(tmp_path, "\n".join(texts(8)))
    result, _ = pipeline.run(
        source, {"vocab": corpus}, tmp_path, data=pipeline.upload(tmp_path, rows_of(task), "rows.jsonl"),
        columns=("tags=ner", "context=passage"), max_length=16 if task == "token-classification" else 64,
    )  # fmt: skip
    assert result.conditions["retokenised_examples"] > 0
    assert result.metrics["eval_f1"].n == result.metrics["eval_agreement"].n == 24
    assert result.metrics["eval_f1"].difference_stderr is not None


def test_the_exported_file_of_a_tagger_is_judged_by_its_tags(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    source = build(tmp_path / "source", "bert", "token-classification", **NAMED)
    data = pipeline.upload(tmp_path, rows_of("token-classification"), "rows.jsonl")
    result, _ = pipeline.run(source, {"heads": 0.5, "export": "onnx"}, tmp_path, data=data, columns=("tags=ner",))
    for name in METRICS["token-classification"]:
        assert result.metrics[f"onnx_{name}"].after == pytest.approx(result.metrics[name].after, abs=1e-4)


def test_the_file_of_an_answerer_would_lack_half_and_is_refused() -> None:
    described = config("bert", "question-answering").to_dict() | {"architectures": ["BertForQuestionAnswering"]}
    with pytest.raises(InvalidInput, match="an answer is two"):
        check_export(described, Recipe(heads=0.5, export="onnx"))


def test_weights_that_are_not_finite_are_said_to_be() -> None:
    subject = model("bert", "question-answering")
    with torch.no_grad():
        subject.qa_outputs.bias.fill_(float("nan"))
    with pytest.raises(CorruptWeights):
        quality.evaluate(subject, tokenizer("bert"), "question-answering", asked(4), max_length=64, seed=0)
