"""Models that have learnt something: measured, pruned, and measured again."""

from __future__ import annotations

import pytest
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from prunectl.evaluation import quality
from prunectl.evaluation.data import builtin_python_docs, split
from prunectl.evaluation.objectives import objective_for
from prunectl.pruning import engine
from prunectl.recipe import Recipe
from support.training import LENGTH, Trained, labelled_texts, train_xlmr_mlm

CALIBRATION = 128


def test_a_masked_language_model_beats_guessing_and_stays_better_when_pruned_by_scores(xlmr_mlm: Trained) -> None:
    assert xlmr_mlm.loss < xlmr_mlm.guess - 0.3
    held_out = xlmr_mlm.held_out[:256]
    seen = {example.text for example in xlmr_mlm.held_out}
    calibration = [example for example in builtin_python_docs() if example.text not in seen][:CALIBRATION]
    words = AutoTokenizer.from_pretrained(xlmr_mlm.directory)
    found: dict[str, dict[str, quality.Quality]] = {}
    for scorer in ("taylor", "random"):
        model = AutoModelForMaskedLM.from_pretrained(xlmr_mlm.directory)
        said = quality.reference(model, words, "fill-mask", held_out, max_length=LENGTH, seed=0)
        objective = objective_for("fill-mask", words, examples=calibration, max_length=LENGTH, seed=0, model=model)
        recipe = Recipe(heads=0.25, ffn=0.25, scorer=scorer, refit=False)
        engine.prune(model, recipe, objective.batches(32), objective.loss)
        found[scorer] = quality.evaluate(model, words, "fill-mask", held_out, max_length=LENGTH, seed=0, reference=said)
    assert found["taylor"]["eval_loss"].value < xlmr_mlm.guess
    assert found["taylor"]["eval_loss"].value < found["random"]["eval_loss"].value
    assert found["taylor"]["eval_agreement"].value > found["random"]["eval_agreement"].value


def test_a_classifier_beats_the_commonest_class_and_keeps_most_of_it(classifier: Trained) -> None:
    assert classifier.accuracy > classifier.guess + 0.15
    seen = {example.text for example in classifier.held_out}
    calibration = [example for example in labelled_texts() if example.text not in seen][:CALIBRATION]
    words = AutoTokenizer.from_pretrained(classifier.directory)
    model = AutoModelForSequenceClassification.from_pretrained(classifier.directory)
    task = "text-classification"
    said = quality.reference(model, words, task, classifier.held_out, max_length=LENGTH, seed=0)
    before = quality.summarise(said, said, seed=0)
    assert before["eval_accuracy"].value == pytest.approx(classifier.accuracy)
    objective = objective_for(task, words, examples=calibration, max_length=LENGTH, seed=0, model=model)
    engine.prune(model, Recipe(heads=0.25, ffn=0.25, refit=False), objective.batches(32), objective.loss)
    after = quality.evaluate(model, words, task, classifier.held_out, max_length=LENGTH, seed=0, reference=said)
    measures = quality.compare(before, after)
    assert set(measures) == {"eval_loss", "eval_accuracy", "eval_f1", "eval_agreement"}
    assert measures["eval_accuracy"].after > classifier.guess + 0.1  # type: ignore[operator]
    assert measures["eval_agreement"].after > 0.5  # type: ignore[operator]


def test_training_texts_and_held_out_texts_are_apart() -> None:
    train, held_out = split(builtin_python_docs(), n_evaluation=512, n_calibration=None, seed=0)
    assert len(held_out) == 512 and not {e.text for e in train} & {e.text for e in held_out}


def test_training_is_the_same_each_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    once, again = (train_xlmr_mlm(tmp_path_factory.mktemp("model"), steps=2) for _ in range(2))
    assert once.loss == again.loss
