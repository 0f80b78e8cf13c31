"""Every axis in one recipe, for every family: proved step by step, saved, and loaded again in each of its ways."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import pytest
import textpruner
import torch
import transformers
from torch import Tensor

from prunectl.checkpoints import load_pruned, manifest, save
from prunectl.checkpoints.load import load_original
from prunectl.evaluation import macs
from prunectl.pruning import textpruner_vocabulary
from prunectl.pruning.vocabulary import Vocabulary, reduce
from prunectl.recipe import Recipe
from prunectl.schemas import Result
from prunectl.worker import measuring, steps
from prunectl.worker.report import Report
from support import pipeline
from support.models import DECODERS, EVERY_FAMILY, TRANSLATORS, build, heads_of, texts
from support.pruning import batches, loss, output

CORPUS = texts(8)


class Given:
    """An objective over fixed batches."""

    labels = "model"

    def __init__(self, given: list[dict[str, Tensor]]) -> None:
        self._given = given

    def batches(self, _size: int) -> list[dict[str, Tensor]]:
        return self._given

    def loss(self, model: Any, batch: Any) -> Tensor:
        return loss(model, batch)


def pruned(family: str, directory: Path, **recipe: Any) -> tuple[steps.Outcome, Any, dict[str, Tensor], list[str]]:
    """(what the steps did, the model in memory, the probe, the steps)."""
    source = build(directory / "source", family, heads_of(family)[0], layers=3)
    model = load(source)
    vocabulary, words = None, None
    if "vocab" in recipe:
        words = transformers.AutoTokenizer.from_pretrained(source)
        keep = textpruner_vocabulary.kept_ids(words, CORPUS) if recipe.get("engine") == "textpruner" else None
        vocabulary = reduce(source, CORPUS, model.config.to_dict(), directory / "tokenizer", keep=keep)
    probe = _probe(model, vocabulary)
    taken: list[str] = []
    with open(os.devnull, "wb") as sink:
        outcome = steps.run(
            model,
            Recipe(**recipe),
            tokenizer=words,
            vocabulary=vocabulary,
            probe=probe,
            make_objective=lambda current: Given(batches(current)),  # type: ignore[arg-type, return-value]
            report=Report(sink.fileno()),
            workspace=directory / "engine",
            batch_size=4,
            after_step=lambda step, _model: taken.append(step),
        )
    save.save(
        model,
        source=source,
        directory=directory / "small",
        recipe=Recipe(**recipe),
        pruned=outcome.pruned,
        provenance={},
    )
    return outcome, model, probe, taken


def _probe(model: Any, vocabulary: Vocabulary | None) -> dict[str, Tensor]:
    probe = batches(model, 1)[0]
    if vocabulary is None:
        return probe
    generator = torch.Generator().manual_seed(1)
    entries = len(vocabulary.rows)
    return {
        name: torch.randint(5, entries, value.shape, generator=generator) if name.endswith("input_ids") else value
        for name, value in probe.items()
    }


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_all_axes_compose_and_load_again(family: str, tmp_path: Path) -> None:
    vocab = {} if family == "vit" else {"vocab": "builtin:python-docs"}
    outcome, model, probe, taken = pruned(
        family, tmp_path, layers=1, heads=0.4, ffn=0.4, weights=0.3, scorer="activation", **vocab
    )
    assert taken == [*(["vocabulary"] if vocab else []), "layers", "heads+ffn", "weights"]
    loaded = load_pruned(tmp_path / "small")
    assert torch.equal(output(loaded, probe), outcome.expected)
    document = manifest.read_manifest(tmp_path / "small")
    assert len(document["removed_layers"]) == 1
    assert document["weights"]["zeroed"] == int(0.3 * document["weights"]["total"])
    assert macs.nonzero_parameters(model) < macs.parameters(model)
    if vocab:
        assert len(document["vocabulary"]) == model.config.vocab_size < outcome.pruned.structure.vocabulary_total  # type: ignore[operator]
    if family != "albert":
        stacks = {block.stack for block in outcome.pruned.structure.layers}
        [gone] = document["removed_layers"]
        kept = {(block.stack, block.index) for block in outcome.pruned.structure.layers}
        assert ("encoder" if gone < 3 and "encoder" in stacks else "decoder", gone % 3) not in kept


PLAIN: list[dict[str, Any]] = [
    {"layers": "0,"}, {"weights": 0.5, "scorer": "wanda"}, {"vocab": "builtin:python-docs"},
    {"layers": 1, "weight_pattern": "2:4", "vocab": "builtin:python-docs"},
]  # fmt: skip
OFTEN = ("bert", "xlm-roberta", "gpt2", "t5", "bart", "albert", "deberta-v2")
PLAIN_CASES = [
    *((family, recipe) for family in OFTEN for recipe in PLAIN),
    *((family, PLAIN[-1]) for family in EVERY_FAMILY if family not in (*OFTEN, "vit")),
]


@pytest.mark.parametrize(
    ("family", "recipe"), PLAIN_CASES, ids=lambda value: "+".join(value) if isinstance(value, dict) else value
)
def test_what_keeps_its_shapes_loads_without_prunectl(family: str, recipe: dict[str, Any], tmp_path: Path) -> None:
    outcome, _, probe, _ = pruned(family, tmp_path, **recipe)
    small = tmp_path / "small"
    assert not (small / "modeling_prunectl.py").exists()
    assert "auto_map" not in manifest.read_json(small / "config.json")
    usual = "AutoModelForSeq2SeqLM" if family in TRANSLATORS else "AutoModelForMaskedLM"
    usual = "AutoModelForCausalLM" if family in DECODERS else usual
    plain = getattr(transformers, usual).from_pretrained(small).eval()
    torch.testing.assert_close(output(plain, probe), outcome.expected, rtol=0, atol=1e-6)
    bare = transformers.AutoModel.from_pretrained(small).eval()
    taken = inspect.signature(bare.forward).parameters
    assert torch.isfinite(output(bare, {name: value for name, value in probe.items() if name in taken})).all()
    words = transformers.AutoTokenizer.from_pretrained(small)
    assert max(index for text in CORPUS for index in words(text)["input_ids"]) < plain.config.vocab_size


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_textpruners_own_vocabulary_pruner_gives_the_same_model(family: str, tmp_path: Path) -> None:
    recipe = {"vocab": "builtin:python-docs", "heads": 0.3, "engine": "textpruner"}
    outcome, model, probe, taken = pruned(family, tmp_path, **recipe)
    assert taken == ["vocabulary", "heads+ffn"]
    source = tmp_path / "source"
    words = transformers.AutoTokenizer.from_pretrained(source)
    settings = textpruner.GeneralConfig(use_device="cpu", output_dir=str(tmp_path / "library"))
    library = textpruner.VocabularyPruner(load(source), words, general_config=settings)
    library.prune(dataiter=CORPUS, save_model=False)
    assert outcome.pruned.vocabulary is not None
    assert list(outcome.pruned.vocabulary.kept) == list(library.pruned_token_ids)
    assert torch.equal(model.get_input_embeddings().weight, library.model.get_input_embeddings().weight)
    assert torch.equal(output(load_pruned(tmp_path / "small"), probe), outcome.expected)


def load(source: Path) -> Any:
    return load_original(source, json.loads((source / "config.json").read_text()))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "BENCH_SECONDS", 0.2)


def test_a_job_keeps_a_ledger_and_proves_the_sum_of_its_steps(tmp_path: Path, quick: None) -> None:
    source = build(tmp_path / "source", "bert", "fill-mask", layers=4)
    recipe = {"vocab": pipeline.upload(tmp_path, "\n".join(texts(120))), "layers": 2, "ffn": 0.5, "weights": 0.5}
    result, checkpoint = pipeline.run(source, recipe, tmp_path, data="builtin:python-docs")
    assert [row.step for row in result.ledger] == ["original", "vocabulary", "layers", "heads+ffn", "weights"]
    sizes = [(row.parameters, row.nonzero_parameters) for row in result.ledger]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1][0] == sizes[-2][0]
    assert _last(result) == _metrics(result)
    assert len({row.n for row in result.ledger}) == 1, "all rows are of the same texts"
    names = [stage.name for stage in result.stages]
    assert len(names) == len(set(names)), "a stage that is entered again goes on"
    assert result.conditions["reload_max_abs_difference"] <= 1e-5
    assert "retokenised_examples" in result.conditions
    card = (checkpoint / "README.md").read_text()
    assert "## Step by step" in card and "vocabulary entries" in card and "set to zero" in card


def test_a_job_that_only_drops_layers_says_so_and_loads_plainly(tmp_path: Path, quick: None) -> None:
    source = build(tmp_path / "source", "distilbert", "text-classification", layers=4)
    result, checkpoint = pipeline.run(source, {"layers": "1,2"}, tmp_path)
    assert result.structure.removed_layers == [1, 2]
    assert [block.index for block in result.structure.layers] == [0, 3]
    assert [row.step for row in result.ledger] == ["original", "layers"]
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint)
    assert plain.config.n_layers == 2
    assert "trust_remote_code" not in (checkpoint / "README.md").read_text()


def _last(result: Result) -> tuple[Any, ...]:
    row = result.ledger[-1]
    return row.parameters, row.nonzero_parameters, row.model_bytes, row.value, row.stderr, row.n


def _metrics(result: Result) -> tuple[Any, ...]:
    found = result.metrics[result.ledger[-1].metric]
    sizes = [result.metrics[name].after for name in ("parameters", "nonzero_parameters", "model_bytes")]
    return (*sizes, found.after, found.stderr, found.n)
