"""Tiny seeded models with real tokenizers on disk, one for each family and task head.

`build` makes an untrained model in a fraction of a second, so unit tests may use it freely. Trained ones are in
`support.training`.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.evaluation.builtin import paragraphs

FAMILIES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
HEADS = ("fill-mask", "text-classification", "feature-extraction")

_PREFIXES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "electra": "Electra",
    "distilbert": "DistilBert",
}
_ENDINGS = {
    "fill-mask": "ForMaskedLM",
    "text-classification": "ForSequenceClassification",
    "feature-extraction": "Model",
}


def texts(count: int = 400) -> list[str]:
    """The first paragraphs of the built-in documentation; always the same on one Python release."""
    return [text for _, text in itertools.islice(paragraphs(), count)]


@functools.cache
def tokenizer(family: str, vocabulary: int = 400, sample: int = 300) -> PreTrainedTokenizerBase:
    """A tokenizer of the family's own kind (WordPiece, byte-level BPE or Unigram), trained in memory."""
    lines = texts(sample)
    if family in ("bert", "electra", "distilbert"):
        return transformers.BertTokenizer(vocab=_word_pieces(lines, vocabulary), model_max_length=64)
    if family == "roberta":
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe_trainer = trainers.BpeTrainer(
            vocab_size=max(vocabulary, 300),
            special_tokens=special,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        trained.train_from_iterator(lines, bpe_trainer)
        merges = [tuple(pair) for pair in _state(trained)["merges"]]
        return transformers.RobertaTokenizer(vocab=_by_id(trained.get_vocab()), merges=merges, model_max_length=64)
    if family == "xlm-roberta":
        trained = Tokenizer(models.Unigram())
        trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        unigram_trainer = trainers.UnigramTrainer(
            vocab_size=vocabulary,
            special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            show_progress=False,
        )
        trained.train_from_iterator(lines, unigram_trainer)
        pieces = [(piece, float(score)) for piece, score in _state(trained)["vocab"]]
        return transformers.XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=64)
    raise ValueError(f"no tokenizer for {family!r}: choose from {', '.join(FAMILIES)}")


def config(
    family: str, head: str, *, layers: int = 2, heads: int = 4, hidden: int = 32, ffn: int = 48, **more: Any
) -> Any:
    """A configuration in the family's own attribute names. ``hidden`` is a multiple of ``heads``."""
    words = tokenizer(family)
    common: dict[str, Any] = {
        "vocab_size": len(words),
        "pad_token_id": words.pad_token_id,
        "max_position_embeddings": 70,
    }
    if family == "distilbert":
        common |= {"n_layers": layers, "n_heads": heads, "dim": hidden, "hidden_dim": ffn}
    else:
        common |= {
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "hidden_size": hidden,
            "intermediate_size": ffn,
        }
    if family == "electra":
        common |= {"embedding_size": hidden // 2}
    if family in ("roberta", "xlm-roberta"):
        common |= {"type_vocab_size": 1, "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    if head == "text-classification":
        common |= {"num_labels": 3}
    common |= more
    if "id2label" in common:
        common.pop("num_labels", None)
        common["label2id"] = {name: index for index, name in common["id2label"].items()}
    return getattr(transformers, _PREFIXES[family] + "Config")(**common)


def model(family: str, head: str, *, seed: int = 0, **shape: Any) -> PreTrainedModel:
    """An untrained model in eval mode; biases and norms are random too, so that a forgotten bias shows in a test."""
    name = _PREFIXES[family] + _ENDINGS[head]
    random_state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        built = getattr(transformers, name)(config(family, head, **shape)).eval()
        with torch.no_grad():
            for key, parameter in built.named_parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
                elif "embedding" not in key:
                    parameter.mul_(4.0)  # the usual 0.02 leaves attention uniform and outputs too alike to compare
    finally:
        torch.random.set_rng_state(random_state)
    return built


def build(directory: Path, family: str = "bert", head: str = "fill-mask", *, seed: int = 0, **shape: Any) -> Path:
    """Write config.json, model.safetensors and the tokenizer's files; returns ``directory``.

    ``shape`` takes layers, heads, hidden, ffn and any attribute of the configuration, such as
    ``id2label={0: "no", 1: "yes"}``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    model(family, head, seed=seed, **shape).save_pretrained(directory)
    tokenizer(family).save_pretrained(directory)
    return directory


def _word_pieces(lines: list[str], size: int) -> dict[str, int]:
    """Every character and the most frequent words: unlike the trainer's, the same in every process."""
    words = collections.Counter(word for line in lines for word in re.findall(r"\w+|[^\w\s]", line.lower()))
    letters = sorted({letter for word in words for letter in word})
    frequent = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *frequent]
    return {piece: index for index, piece in enumerate(pieces[:size])}


def _state(trained: Tokenizer) -> dict[str, Any]:
    return dict(json.loads(trained.to_str())["model"])


def _by_id(vocabulary: dict[str, int]) -> dict[str, int]:
    return dict(sorted(vocabulary.items(), key=lambda entry: entry[1]))
