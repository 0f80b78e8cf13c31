"""Training pruned models: real gradients on tiny models, quality on trained ones, kills between epochs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.checkpoints import load as checkpoint_load
from prunectl.errors import InvalidData
from prunectl.evaluation import data, quality
from prunectl.evaluation.data import Example, builtin_python_docs
from prunectl.evaluation.objectives import objective_for
from prunectl.evaluation.tasks import Task
from prunectl.pruning import depth, engine, layers, weights
from prunectl.pruning.masks import Masks
from prunectl.pruning.vocabulary import load_tokenizer
from prunectl.recipe import Recipe
from prunectl.recovery.distillation import Distillation
from prunectl.recovery.recover import recover
from prunectl.recovery.training import Batch, Schedule, rate_at, train
from prunectl.zoo.directory import local_config
from support import models
from support.training import LENGTH, Trained, labelled_texts

TEXTS = [Example(example.text, label=number % 3) for number, example in enumerate(builtin_python_docs()[:60])]


class Files:
    """Keeps the state in a directory; counts, and can end the process's training after some epochs."""

    def __init__(self, directory: Path, dies_after: int | None = None) -> None:
        self._file, self._dies_after, self.saved = directory / "kept.safetensors", dies_after, 0

    def load(self, directory: Path) -> Path | None:
        return shutil.copy(self._file, directory / "resumed.safetensors") if self._file.exists() else None

    def save(self, file: Path) -> None:
        shutil.copy(file, self._file)
        self.saved += 1
        if self.saved == self._dies_after:
            raise KeyboardInterrupt


def load(directory: Path) -> PreTrainedModel:
    return checkpoint_load.load_original(directory, local_config(directory))


def prepared(
    directory: Path, recipe: Recipe, task: Task, examples: list[Example]
) -> tuple[PreTrainedModel, engine.Pruned]:
    model, words = load(directory), load_tokenizer(directory)
    objective = objective_for(task, words, examples=examples, max_length=LENGTH, seed=0, model=model)
    return model, engine.prune(model, recipe, objective.batches(16), objective.loss)


def same(first: PreTrainedModel, second: PreTrainedModel) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("task", "method"),
    [
        ("fill-mask", "finetune"),
        ("fill-mask", "distill"),
        ("text-classification", "finetune"),
        ("text-classification", "distill"),
        ("feature-extraction", "distill"),
    ],
)
def test_a_killed_training_goes_on_and_ends_as_one_undisturbed(tmp_path: Path, task: Task, method: str) -> None:
    directory = models.build(tmp_path / "model", "bert", task)
    recipe = Recipe(heads=0.5, ffn=0.5, refit=False, recover=method, recover_epochs=3, recover_rate=1e-3)  # type: ignore[arg-type]

    def trained(keeper: Files | None) -> tuple[PreTrainedModel, int]:
        model, pruned = prepared(directory, recipe, task, TEXTS[:16])
        done = recover(
            model, recipe, TEXTS, task=task, tokenizer=load_tokenizer(directory), max_length=LENGTH, pruned=pruned,
            load_teacher=lambda: load(directory), keeper=keeper, workspace=tmp_path,
        )  # fmt: skip
        assert len(done.course.points) == 4
        return model, done.course.resumed

    undisturbed, _ = trained(None)
    with pytest.raises(KeyboardInterrupt):
        trained(Files(tmp_path, dies_after=2))
    went_on = Files(tmp_path)
    model, resumed = trained(went_on)
    assert (resumed, went_on.saved) == (2, 1)
    assert same(model, undisturbed)
    assert not same(model, prepared(directory, recipe, task, TEXTS[:16])[0])


def test_a_state_of_another_model_is_not_gone_on_with(tmp_path: Path) -> None:
    directory = models.build(tmp_path / "model", "bert", "feature-extraction")
    words, keeper = load_tokenizer(directory), Files(tmp_path)
    for heads, resumed in ((0.5, 0), (0.25, 0), (0.25, 2)):
        recipe = Recipe(heads=heads, refit=False, recover="distill", recover_epochs=2)
        model, pruned = prepared(directory, recipe, "feature-extraction", TEXTS[:16])
        done = recover(
            model, recipe, TEXTS, task="feature-extraction", tokenizer=words, max_length=LENGTH, pruned=pruned,
            load_teacher=lambda: load(directory), keeper=keeper, workspace=tmp_path,
        )  # fmt: skip
        assert done.course.resumed == resumed


@pytest.mark.parametrize("task", ["feature-extraction", "text-classification"])
def test_a_bare_encoder_and_unlabelled_texts_can_only_be_distilled(tmp_path: Path, task: Task) -> None:
    directory = models.build(tmp_path / "model", "bert", task)
    recipe, examples = Recipe(heads=0.5, recover="finetune"), [Example(example.text) for example in TEXTS]
    model, pruned = prepared(directory, recipe, task, examples[:16])
    with pytest.raises(InvalidData, match="needs labels") as caught:
        recover(
            model, recipe, examples, task=task, tokenizer=load_tokenizer(directory), max_length=LENGTH, pruned=pruned,
            load_teacher=lambda: load(directory), keeper=None, workspace=tmp_path,
        )  # fmt: skip
    assert caught.value.errors[0]["field"] == "recover_data"


def test_a_student_like_its_teacher_loses_nothing_and_layers_are_matched_by_number(tmp_path: Path) -> None:
    directory = models.build(tmp_path / "model", "roberta", "fill-mask", layers=4)
    words, teacher, student = load_tokenizer(directory), load(directory), load(directory)
    objective = objective_for("fill-mask", words, examples=TEXTS[:8], max_length=LENGTH, seed=0, model=teacher)
    [batch] = objective.batches(8)
    assert float(Distillation("fill-mask", teacher).loss(student, batch)) < 1e-6
    layers.remove(student, (1, 3))
    with layers.skipped(teacher, (1, 3)):
        # What is skipped hands on what it got, so layer 2 of the teacher says what layer 1 of the student says.
        assert float(Distillation("fill-mask", teacher, removed=(1, 3)).loss(student, batch)) < 1e-6
    assert float(Distillation("fill-mask", teacher, removed=(1, 3)).loss(student, batch)) > 1e-4


def test_zeroed_weights_stay_zero(tmp_path: Path) -> None:
    directory = models.build(tmp_path / "model", "bert", "fill-mask")
    recipe = Recipe(weights=0.5, recover="distill", recover_epochs=1, recover_rate=1e-3)
    model, words = load(directory), load_tokenizer(directory)
    objective = objective_for("fill-mask", words, examples=TEXTS[:16], max_length=LENGTH, seed=0, model=model)
    zeroed = weights.zero(model, weights.choose(model, recipe, objective.batches(8), objective.loss))
    pruned = engine.apply(model, Masks())
    before = {path: model.get_parameter(f"{path}.weight").detach().clone() for path in weights.prunable(model)}
    recover(
        model, recipe, TEXTS, task="fill-mask", tokenizer=words, max_length=LENGTH,
        pruned=engine.Pruned(pruned.masks, pruned.structure, pruned.kept, zeroed=zeroed),
        load_teacher=lambda: load(directory), keeper=None, workspace=tmp_path,
    )  # fmt: skip
    assert sum(int((was == 0).sum()) for was in before.values()) >= zeroed.zeroed > 0
    for path, was in before.items():
        now = model.get_parameter(f"{path}.weight")
        assert torch.equal(now == 0, was == 0)
        assert not torch.equal(now, was)


@pytest.mark.parametrize(("before", "kept"), [(3.0, 2), (0.5, 0)], ids=["it helped", "it never helped"])
def test_training_stops_when_it_no_longer_helps_and_the_best_epoch_stays(before: float, kept: int) -> None:
    torch.manual_seed(0)
    model = models.model("bert", "feature-extraction")
    wanted = {name: p.detach().clone() for name, p in model.named_parameters()}
    lost = iter([before, 2.0, 1.0, 1.5, 1.4, 1.3, 0.1])
    best: dict[str, Tensor] = {}

    def loss(student: PreTrainedModel, batch: Batch) -> Tensor:
        if "validation" in batch:
            value = next(lost)
            if value == min(before, 1.0):
                best.update({name: p.detach().clone() for name, p in student.named_parameters()})
            return torch.tensor(value)
        return sum((p - wanted[n] - 1).pow(2).mean() for n, p in student.named_parameters())  # type: ignore[return-value]

    course = train(
        model, loss, batches=lambda epoch: [{"training": torch.zeros(1)}] * 3,
        validation=[{"validation": torch.zeros(1)}], schedule=Schedule(6, 1e-2, 0),
    )  # fmt: skip
    assert (course.best, len(course.points)) == (
        kept,
        6,
    )  # half of the epochs without a better one than the best trained
    assert all(torch.equal(p, best[name]) for name, p in model.named_parameters())
    assert not model.training


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(step, 100) for step in range(100)]
    assert rates[9] == max(rates) == 1.0
    assert rates[:10] == sorted(rates[:10]) and rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[-1] < 0.02


def figures(
    model: PreTrainedModel, words: object, held_out: list[Example], unpruned: quality.Reference
) -> quality.Quality:
    return quality.evaluate(
        model, words, "text-classification", held_out, max_length=LENGTH, seed=0, reference=unpruned  # type: ignore[arg-type]
    )["eval_accuracy"]  # fmt: skip


@pytest.fixture
def one_thread() -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


def test_a_trained_classifier_is_won_back_without_labels(classifier: Trained, tmp_path: Path, one_thread: None) -> None:
    directory, held_out = classifier.directory, classifier.held_out
    words, teacher = load_tokenizer(directory), load(directory)
    rest = data.without(labelled_texts(), held_out, seed=0)
    unpruned = quality.reference(teacher, words, "text-classification", held_out, max_length=LENGTH, seed=0)
    recipe = Recipe(heads=0.5, ffn=0.75, refit=False, recover="distill", recover_epochs=3, recover_rate=5e-4)
    model, pruned = prepared(directory, recipe, "text-classification", rest[:128])
    shot = figures(model, words, held_out, unpruned)
    done = recover(
        model, recipe, [Example(e.text) for e in rest], task="text-classification", tokenizer=words,
        max_length=LENGTH, pruned=pruned, load_teacher=lambda: load(directory), keeper=None, workspace=tmp_path,
    )  # fmt: skip
    after = figures(model, words, held_out, unpruned)
    assert after.stderr is not None and after.difference_stderr is not None
    assert after.value > shot.value + 2 * after.stderr, (shot, after, done)
    assert after.value > classifier.accuracy - 0.01 - 2 * after.difference_stderr, (shot, after, classifier.accuracy)
    assert depth.stacks_of(layers.described(model))[0].layers == 4
