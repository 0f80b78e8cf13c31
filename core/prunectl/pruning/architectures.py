"""The table of families: what config.json calls their sizes, and which layers and task heads they have. No torch.

A new family is one entry here (and its layers in `layouts`, where they are new), and its tests;
``docs/adding-an-architecture.md`` adds one. `prunectl.pruning.family` says what the fields of an entry mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunectl.errors import UnsupportedArchitecture, nearest
from prunectl.pruning import layouts, sizes, task_heads
from prunectl.pruning.family import Attention, Family, FeedForward, Kind, Layers, Linear, Stack, TaskHead, Words
from prunectl.pruning.sizes import MAX_LAYERS, BlockShape, ModelShape

__all__ = [
    "FAMILIES", "MAX_LAYERS", "Attention", "BlockShape", "Family", "FeedForward", "Kind", "Layers", "ModelShape",
    "Stack", "TaskHead", "architecture_of", "family_of", "shape_of", "textpruner_families",
]  # fmt: skip

_BERT_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
}
_DISTILBERT_KEYS = {
    "layers": "n_layers",
    "heads": "n_heads",
    "hidden": "dim",
    "ffn": "hidden_dim",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
}
_NO_TYPES = {word: key for word, key in _BERT_KEYS.items() if word != "types"}
_ALBERT_KEYS = {
    **_BERT_KEYS, "embedding": "embedding_size", "groups": "num_hidden_groups", "inner_layers": "inner_group_num"
}  # fmt: skip
_GPT2_KEYS = {
    "layers": "n_layer",
    "heads": "n_head",
    "hidden": "n_embd",
    "ffn": "n_inner",
    "vocab": "vocab_size",
    "positions": "n_positions",
}
_LLAMA_KEYS = {**_NO_TYPES, "kv_heads": "num_key_value_heads", "head_dim": "head_dim"}
_BART_KEYS = {
    "layers": "encoder_layers",
    "heads": "encoder_attention_heads",
    "ffn": "encoder_ffn_dim",
    "decoder_layers": "decoder_layers",
    "decoder_heads": "decoder_attention_heads",
    "decoder_ffn": "decoder_ffn_dim",
    "hidden": "d_model",
    "vocab": "vocab_size",
    "positions": "max_position_embeddings",
}
_T5_KEYS = {
    "layers": "num_layers",
    "heads": "num_heads",
    "ffn": "d_ff",
    "decoder_layers": "num_decoder_layers",
    "hidden": "d_model",
    "head_dim": "d_kv",
    "vocab": "vocab_size",
    "buckets": "relative_attention_num_buckets",
}
_VIT_KEYS = {**{word: _BERT_KEYS[word] for word in ("layers", "heads", "hidden", "ffn")}, "image": "image_size",
             "patch_size": "patch_size", "channels": "num_channels"}  # fmt: skip

_BASE: dict[str, int | str | tuple[int, str]] = {
    "layers": 12, "heads": 12, "hidden": 768, "ffn": 3072, "positions": 512, "types": 2
}  # fmt: skip
_WITHOUT_TYPES = {**_BASE, "types": 0}
_LARGE_LANGUAGE_MODEL: dict[str, Any] = {"layers": 32, "heads": 32, "hidden": 4096}
_BART_SIZES: dict[str, Any] = {
    "layers": 12, "heads": 16, "ffn": 4096, "decoder_layers": 12, "decoder_heads": 16, "decoder_ffn": 4096,
    "hidden": 1024, "positions": 1024,
}  # fmt: skip
_T5_SIZES: dict[str, Any] = {
    "decoder_layers": "layers", "decoder_heads": "heads", "decoder_ffn": "ffn", "head_dim": 64, "buckets": 32,
    "hidden": 512,
}  # fmt: skip

_EMBEDDINGS = (
    ("vocab", "embedding"), ("positions", "embedding"), ("types", "embedding"), ("two", "embedding")
)  # fmt: skip
_PROJECTION = Linear("hidden", "embedding", present="projected")
_UNTIED_STACKS = (("vocab", "hidden"), ("untied", "two", "vocab", "hidden"))
_UNTIED = {"tied": ("tie_word_embeddings", False)}
_ATTENTION_BIAS = {"attention_bias": ("attention_bias", False)}


def _bart_words(_config: Mapping[str, Any], words: Words) -> Words:
    return {"places": words["positions"] + 2}  # positions are counted from 2


def _marian_words(_config: Mapping[str, Any], words: Words) -> Words:
    return {"places": words["positions"]}


def _vit_words(_config: Mapping[str, Any], words: Words) -> Words:
    patches = (words["image"] // words["patch_size"]) ** 2
    return {"patches": patches, "places": patches + 1, "patch": words["channels"] * words["patch_size"] ** 2}


def _deberta_words(config: Mapping[str, Any], words: Words) -> Words:
    """Disentangled attention (He et al. 2021, DeBERTa, equation 4): which of its parts a configuration turns on."""
    furthest = config.get("max_relative_positions") or -1
    span = config.get("position_buckets") or -1
    span = span if span > 0 else furthest if furthest > 0 else words["positions"]
    kinds = config.get("pos_att_type") or []
    kinds = kinds.lower().split("|") if isinstance(kinds, str) else kinds
    used = sum(kind in [name.strip() for name in kinds] for kind in ("c2p", "p2c"))
    relative, shared = bool(config.get("relative_attention")), bool(config.get("share_att_key"))
    kernel, groups = config.get("conv_kernel_size") or 0, config.get("conv_groups") or 1
    return {
        "relative": 2 * span * relative,
        "relative_norm": int("layer_norm" in str(config.get("norm_rel_ebd", "none")).lower()),
        "position_projections": used * relative * (not shared),
        "position_linears": relative * (2 if shared else used),
        "position_products": relative * used,
        "convolved": int(kernel > 0),
        "convolution": words["hidden"] // groups * kernel,
    }


def _bert_like(model_type: str, title: str, base: str, prefix: str, heads: dict[str, TaskHead], vocab: int) -> Family:
    return Family(
        model_type, title, base, prefix, (layouts.BERT_LAYERS,), heads, _BERT_KEYS,
        defaults={**_BASE, "vocab": vocab}, tensors=_EMBEDDINGS, in_textpruner=True,
    )  # fmt: skip


def _llama_like(model_type: str, prefix: str, layers: Layers, **defaults: Any) -> Family:
    return Family(
        model_type, prefix, "model", prefix, (layers,), task_heads.LLAMA_HEADS, _LLAMA_KEYS,
        defaults={**_LARGE_LANGUAGE_MODEL, "kv_heads": 32, **defaults}, tensors=(("vocab", "hidden"),),
        flags={**_UNTIED, **_ATTENTION_BIAS, "mlp_bias": ("mlp_bias", False)},
    )  # fmt: skip


def _bart_like(
    model_type: str, title: str, prefix: str, stacks: tuple[Layers, Layers], vocab: int, **more: Any
) -> Family:
    return Family(
        model_type, title, "model", prefix, stacks, more.pop("heads", task_heads.BART_HEADS), _BART_KEYS,
        defaults={**_BART_SIZES, "vocab": vocab}, tensors=_UNTIED_STACKS, derive=more.pop("derive", _bart_words),
        **more,
    )  # fmt: skip


def _t5_like(model_type: str, title: str, prefix: str, **more: Any) -> Family:
    return Family(
        model_type, title, "transformer", prefix, (layouts.T5_ENCODER, layouts.T5_DECODER), task_heads.T5_HEADS,
        _T5_KEYS, defaults={**_T5_SIZES, **more.pop("defaults")}, tensors=(("vocab", "hidden"),), **more,
    )  # fmt: skip


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        _bert_like("bert", "BERT", "bert", "Bert", task_heads.BERT_HEADS, 30522),
        _bert_like("roberta", "RoBERTa", "roberta", "Roberta", task_heads.ROBERTA_HEADS, 50265),
        _bert_like("xlm-roberta", "XLM-R", "roberta", "XLMRoberta", task_heads.ROBERTA_HEADS, 30522),
        Family(
            "electra", "ELECTRA", "electra", "Electra", (layouts.BERT_LAYERS,), task_heads.ELECTRA_HEADS,
            {**_BERT_KEYS, "embedding": "embedding_size"},
            defaults={**_BASE, "vocab": 30522, "heads": 4, "hidden": 256, "ffn": 1024, "embedding": 128},
            tensors=_EMBEDDINGS, linears=(_PROJECTION,), in_textpruner=True,
        ),
        Family(
            "distilbert", "DistilBERT", "distilbert", "DistilBert", (layouts.DISTILBERT_LAYERS,),
            task_heads.DISTILBERT_HEADS, _DISTILBERT_KEYS,
            defaults={**_WITHOUT_TYPES, "vocab": 30522, "layers": 6}, tensors=_EMBEDDINGS,
        ),
        Family(
            "albert", "ALBERT", "albert", "Albert", (layouts.ALBERT_LAYERS,), task_heads.ALBERT_HEADS, _ALBERT_KEYS,
            defaults={**_BASE, "vocab": 30000, "heads": 64, "hidden": 4096, "ffn": 16384, "embedding": 128, "groups": 1,
                      "inner_layers": 1},
            tensors=_EMBEDDINGS, linears=(Linear("hidden", "embedding"),), in_textpruner=True,
        ),
        Family(
            "deberta-v2", "DeBERTa-v2", "deberta", "DebertaV2", (layouts.DEBERTA_LAYERS,), task_heads.DEBERTA_HEADS,
            {**_BERT_KEYS, "embedding": "embedding_size"},
            defaults={**_WITHOUT_TYPES, "vocab": 128100, "layers": 24, "heads": 24, "hidden": 1536, "ffn": 6144,
                      "embedding": "hidden"},
            tensors=(("vocab", "embedding"), ("has_positions", "positions", "embedding"), ("types", "embedding"),
                     ("two", "hidden")),
            linears=(Linear("hidden", "embedding", bias="zero", present="projected"),
                     Linear("hidden", "convolution", present="convolved")),
            flags={"has_positions": ("position_biased_input", True)}, derive=_deberta_words, requires={"legacy": True},
        ),
        Family(
            "mpnet", "MPNet", "mpnet", "MPNet", (layouts.MPNET_LAYERS,), task_heads.ROBERTA_HEADS,
            {**_NO_TYPES, "buckets": "relative_attention_num_buckets"},
            defaults={**_WITHOUT_TYPES, "vocab": 30527, "buckets": 32}, tensors=_EMBEDDINGS,
        ),
        Family(
            "gpt2", "GPT-2", "transformer", "GPT2", (layouts.GPT2_LAYERS,), task_heads.GPT2_HEADS, _GPT2_KEYS,
            defaults={**_BASE, "vocab": 50257, "positions": 1024, "ffn": (4, "hidden")},
            tensors=(("vocab", "hidden"), ("positions", "hidden")),
        ),
        _llama_like("llama", "Llama", layouts.LLAMA_LAYERS, kv_heads="heads", ffn=11008, vocab=32000, positions=2048),
        _llama_like("mistral", "Mistral", layouts.MISTRAL_LAYERS, kv_heads=8, ffn=14336, vocab=32000, positions=131072),
        _llama_like("qwen2", "Qwen2", layouts.QWEN2_LAYERS, ffn=22016, vocab=151936, positions=32768),
        _llama_like("qwen3", "Qwen3", layouts.QWEN3_LAYERS, head_dim=128, ffn=22016, vocab=151936, positions=32768),
        _bart_like(
            "bart", "BART", "Bart", (layouts.BART_ENCODER, layouts.BART_DECODER), 50265, usual={"num_labels": 3}
        ),
        _bart_like("mbart", "mBART", "MBart", (layouts.MBART_ENCODER, layouts.MBART_DECODER), 50265),
        _bart_like(
            "marian", "Marian", "Marian", (layouts.MARIAN_ENCODER, layouts.MARIAN_DECODER), 58101, derive=_marian_words,
            heads={"MTModel": task_heads.BART_HEADS["ForConditionalGeneration"], "Model": TaskHead()},
            requires={"share_encoder_decoder_embeddings": True},
        ),
        _t5_like("t5", "T5", "T5", defaults={"layers": 6, "heads": 8, "ffn": 2048, "vocab": 32128}),
        _t5_like(
            "mt5", "mT5", "MT5", defaults={"layers": 8, "heads": 6, "ffn": 1024, "vocab": 250112},
            usual={"feed_forward_proj": "gated-gelu"},
        ),
        Family(
            "vit", "ViT", "vit", "ViT", (layouts.VIT_LAYERS,), task_heads.VIT_HEADS, _VIT_KEYS,
            defaults={"layers": 12, "heads": 12, "hidden": 768, "ffn": 3072, "image": 224, "patch_size": 16,
                      "channels": 3},
            tensors=(("hidden",), ("places", "hidden"), ("two", "hidden")),
            linears=(Linear("hidden", "patch", positions="patches"),),
            flags={"qkv_bias": ("qkv_bias", True)}, derive=_vit_words, input_name="pixel_values",
        ),
    )
}  # fmt: skip


def textpruner_families() -> list[str]:
    """The families whose layers TextPruner's structural pruner can take, by model_type."""
    return [name for name, family in FAMILIES.items() if family.in_textpruner]


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a config.json. Raises UnsupportedArchitecture naming its model_type and the known ones."""
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        close = nearest(str(model_type), FAMILIES) if model_type else None
        raise UnsupportedArchitecture(
            f"model_type {model_type!r} can't be pruned" if model_type else "config.json names no model_type",
            hint=(f"did you mean {close}? " if close else "") + f"supported: {', '.join(FAMILIES)}",
            field="model",
            value=model_type,
        )
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise UnsupportedArchitecture(
                f"a {family.title} model with {key} is a decoder of another kind; only its usual form is supported",
                field=key,
                value=True,
            )
    for key, wanted in family.requires.items():
        if config.get(key, wanted) != wanted:
            raise UnsupportedArchitecture(
                f"a {family.title} model with {key}={config[key]!r} isn't supported, only with {wanted!r}",
                field=key,
                value=config[key],
            )
    return family


def architecture_of(config: Mapping[str, Any]) -> str:
    """``architectures[0]``, or the family's bare model where config.json names none."""
    named = config.get("architectures")
    if isinstance(named, list) and named and isinstance(named[0], str):
        return str(named[0])
    return family_of(config).class_prefix + "Model"


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The sizes in config.json, with the family's defaults where it is silent.

    Raises UnsupportedArchitecture for an unknown family or sizes that no model can have.
    """
    return sizes.read(config, family_of(config), architecture_of(config))
