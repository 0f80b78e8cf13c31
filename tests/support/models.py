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
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.evaluation.builtin import paragraphs

FAMILIES = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
"""Encoders that differ in names and embeddings alone."""
HEADS = ("fill-mask", "text-classification", "feature-extraction")
TOKEN_HEADS = ("token-classification", "question-answering")
"""What every encoder has besides."""
OTHER_ENCODERS = ("albert", "deberta-v2", "mpnet")
DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
TRANSLATORS = ("bart", "mbart", "marian", "t5", "mt5")
ENCODERS = (*FAMILIES, *OTHER_ENCODERS)
EVERY_FAMILY = (*ENCODERS, *DECODERS, *TRANSLATORS, "vit")

_PREFIXES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "electra": "Electra",
    "distilbert": "DistilBert",
    "albert": "Albert",
    "deberta-v2": "DebertaV2",
    "mpnet": "MPNet",
    "gpt2": "GPT2",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "bart": "Bart",
    "mbart": "MBart",
    "marian": "Marian",
    "t5": "T5",
    "mt5": "MT5",
    "vit": "ViT",
}
_ENDINGS = {
    "fill-mask": "ForMaskedLM",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "feature-extraction": "Model",
    "text-generation": "ForCausalLM",
    "text2text-generation": "ForConditionalGeneration",
    "image-classification": "ForImageClassification",
}
_OTHER_CLASSES = {
    ("gpt2", "text-generation"): "GPT2LMHeadModel",
    ("marian", "text2text-generation"): "MarianMTModel",
}


def heads_of(family: str) -> tuple[str, ...]:
    """The tasks that a family has a class for, its usual one first."""
    if family == "vit":
        return ("image-classification", "feature-extraction")
    if family in DECODERS:
        return ("text-generation", "text-classification", "feature-extraction")
    if family in TRANSLATORS:
        more = () if family == "marian" else ("text-classification",)
        return ("text2text-generation", *more, "feature-extraction")
    return HEADS


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
        # The trainer adds up in an order that differs from run to run: some scores by some 1e-4, and so the ids.
        found = [(piece, round(float(score), 2)) for piece, score in _state(trained)["vocab"]]
        special, pieces = found[:4], sorted(found[4:], key=lambda item: (-item[1], item[0]))
        return transformers.XLMRobertaTokenizer(vocab=[*special, *pieces, ("<mask>", 0.0)], model_max_length=64)
    if family in EVERY_FAMILY and family != "vit":
        return _byte_level(family, lines, max(vocabulary, 300))
    raise ValueError(f"no tokenizer for {family!r}: choose from {', '.join(EVERY_FAMILY)}")


def config(
    family: str, head: str, *, layers: int = 2, heads: int = 4, hidden: int = 32, ffn: int = 48, **more: Any
) -> Any:
    """A configuration in the family's own attribute names. ``hidden`` is a multiple of ``heads``.

    What sets a family apart is there: grouped queries, a head size of its own (T5, Qwen3), stacks that differ (BART),
    relative positions (DeBERTa).
    """
    common: dict[str, Any] = {}
    if family == "vit":
        common |= {"image_size": 12, "patch_size": 4}
    else:
        words = tokenizer(family)
        common |= {
            "vocab_size": len(words),
            "pad_token_id": words.pad_token_id,
            "max_position_embeddings": 70,
        }
    if family == "distilbert":
        common |= {"n_layers": layers, "n_heads": heads, "dim": hidden, "hidden_dim": ffn}
    elif family == "gpt2":
        common |= {"n_layer": layers, "n_head": heads, "n_embd": hidden, "n_inner": ffn, "n_positions": 70}
        common.pop("max_position_embeddings")
    elif family in ("t5", "mt5"):
        common |= {"num_layers": layers, "num_heads": heads, "d_model": hidden, "d_ff": ffn, "d_kv": 6}
        common |= {"num_decoder_layers": layers + 1, "decoder_start_token_id": words.pad_token_id}
        common.pop("max_position_embeddings")
    elif family in TRANSLATORS:
        common |= {"d_model": hidden, "decoder_start_token_id": words.eos_token_id, "num_labels": 2}
        for name, more_layers, more_ffn in (("encoder", 0, 0), ("decoder", 1, 16)):
            common |= {f"{name}_layers": layers + more_layers, f"{name}_ffn_dim": ffn + more_ffn}
            common |= {f"{name}_attention_heads": heads}
        common |= {"decoder_attention_heads": max(heads // 2, 1)} if family == "bart" else {}
    else:
        common |= {
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "hidden_size": hidden,
            "intermediate_size": ffn,
        }
    if family in DECODERS[1:]:
        common |= {"num_key_value_heads": max(heads // 2, 1)}
    if family == "qwen3":
        common |= {"head_dim": hidden // heads * 2}
    if family == "deberta-v2":
        common |= {
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        }
        common |= {"pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "type_vocab_size": 0}
    if family in (*DECODERS, *TRANSLATORS):
        common |= {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    if family in ("electra", "albert"):
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
    name = _OTHER_CLASSES.get((family, head), _PREFIXES[family] + _ENDINGS[head])
    random_state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        built = getattr(transformers, name)(config(family, head, **shape)).eval()
        with torch.no_grad():
            for key, parameter in built.named_parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
                elif "embedding" not in key and family not in ("t5", "mt5"):  # T5 starts at full size
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
    if family == "vit":
        described = {"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 12}}
        (directory / "preprocessor_config.json").write_text(json.dumps(described))
    else:
        tokenizer(family).save_pretrained(directory)
    return directory


def _byte_level(family: str, lines: list[str], size: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE in the form that any family can use: texts end in ``</s>`` but for decoders."""
    trained = Tokenizer.from_str(_byte_pairs(tuple(lines), size))
    if family not in DECODERS:
        start = "<s> " if family in OTHER_ENCODERS else ""
        ids = [(token, trained.token_to_id(token)) for token in ("<s>", "</s>")]
        trained.post_processor = processors.TemplateProcessing(
            single=f"{start}$A </s>", pair=f"{start}$A </s> $B </s>", special_tokens=ids
        )
    names = {
        f"{name}_token": f"<{sign}>" for name, sign in {"pad": "pad", "bos": "s", "eos": "/s", "unk": "unk"}.items()
    }
    if family in OTHER_ENCODERS:
        names |= {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],  # GPT-2 would add an embedding for token types
        **names,
    )


@functools.cache
def _byte_pairs(lines: tuple[str, ...], size: int) -> str:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(lines, trainer)
    return str(trained.to_str())


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
