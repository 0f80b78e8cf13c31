"""Where each family's layers keep their matrices. No torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prunectl.pruning.family import Attention, FeedForward, Layers

_NORM = ("two", "hidden")  # a LayerNorm's weight and bias
_BERT_ATTENTION = Attention(
    module="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    heads_attribute="num_attention_heads",
    width_attribute="all_head_size",
    head_size_attribute="attention_head_size",
)
BERT_LAYERS = Layers(
    "encoder.layer", (_BERT_ATTENTION,), FeedForward(first=("intermediate.dense",), second="output.dense")
)
DISTILBERT_LAYERS = Layers(
    path="transformer.layer",
    attentions=(
        Attention(
            module="attention",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            output="attention.out_lin",
            heads_attribute="n_heads",
            width_attribute="dim",
            head_size_attribute="attention_head_size",
        ),
    ),
    feed_forward=FeedForward(first=("ffn.lin1",), second="ffn.lin2"),
)
ALBERT_LAYERS = Layers(
    path="encoder.albert_layer_groups",
    inner="albert_layers",
    attentions=(
        replace(
            _BERT_ATTENTION,
            module="attention",
            query="attention.query",
            key="attention.key",
            value="attention.value",
            output="attention.dense",
        ),
    ),
    feed_forward=FeedForward(first=("ffn",), second="ffn_output"),
)
DEBERTA_LAYERS = replace(
    BERT_LAYERS,
    attentions=(
        replace(
            _BERT_ATTENTION,
            query="attention.self.query_proj",
            key="attention.self.key_proj",
            value="attention.self.value_proj",
            position_projections=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
        ),
    ),
    tensors=(("relative", "hidden"), ("relative_norm", "two", "hidden"), ("convolved", "two", "hidden")),
)
MPNET_LAYERS = replace(
    BERT_LAYERS,
    attentions=(
        replace(
            _BERT_ATTENTION,
            module="attention.attn",
            query="attention.attn.q",
            key="attention.attn.k",
            value="attention.attn.v",
            output="attention.attn.o",
            shared_bias=True,
        ),
    ),
    tensors=(("buckets", "heads"),),
)
GPT2_LAYERS = Layers(
    path="h",
    stack="decoder",
    attentions=(
        Attention(
            module="attn",
            query="attn.c_attn",
            key="attn.c_attn",
            value="attn.c_attn",
            output="attn.c_proj",
            heads_attribute="num_heads",
            width_attribute="split_size",
        ),
    ),
    feed_forward=FeedForward(first=("mlp.c_fc",), second="mlp.c_proj"),
    tensors=(_NORM,),
)
_LLAMA_ATTENTION = Attention(
    module="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    group_attribute="num_key_value_groups",
    input_bias="attention_bias",
    output_bias="attention_bias",
)
LLAMA_LAYERS = Layers(
    path="layers",
    stack="decoder",
    attentions=(_LLAMA_ATTENTION,),
    feed_forward=FeedForward(
        first=("mlp.gate_proj", "mlp.up_proj"), second="mlp.down_proj", first_bias="mlp_bias", second_bias="mlp_bias"
    ),
    norms=("hidden",) * 2,
    tensors=(("hidden",),),
)
_PLAIN_GATED = replace(LLAMA_LAYERS.feed_forward, first_bias="zero", second_bias="zero")


def _like_llama(attention: Attention) -> Layers:
    return replace(LLAMA_LAYERS, attentions=(attention,), feed_forward=_PLAIN_GATED)


MISTRAL_LAYERS = _like_llama(replace(_LLAMA_ATTENTION, input_bias="zero", output_bias="zero"))
QWEN2_LAYERS = _like_llama(replace(_LLAMA_ATTENTION, input_bias="one", output_bias="zero"))
QWEN3_LAYERS = _like_llama(replace(_LLAMA_ATTENTION, norms=("head_dim",) * 2))


def _bart_attention(name: str, **more: Any) -> Attention:
    return Attention(
        module=name,
        query=f"{name}.q_proj",
        key=f"{name}.k_proj",
        value=f"{name}.v_proj",
        output=f"{name}.out_proj",
        heads_attribute="num_heads",
        **more,
    )


BART_ENCODER = Layers(
    path="encoder.layers",
    attentions=(_bart_attention("self_attn"),),
    feed_forward=FeedForward(first=("fc1",), second="fc2"),
    tensors=(("places", "hidden"), _NORM),
)
BART_DECODER = replace(
    BART_ENCODER,
    path="decoder.layers",
    stack="decoder",
    prefix="decoder_",
    attentions=(_bart_attention("self_attn"), _bart_attention("encoder_attn", kind="cross")),
    norms=("hidden",) * 6,
)
MBART_ENCODER = replace(BART_ENCODER, tensors=(*BART_ENCODER.tensors, _NORM))
MBART_DECODER = replace(BART_DECODER, tensors=(*BART_DECODER.tensors, _NORM))
MARIAN_ENCODER = replace(BART_ENCODER, tensors=(("places", "hidden"),))
MARIAN_DECODER = replace(BART_DECODER, tensors=(("places", "hidden"),))


def _t5_attention(name: str, **more: Any) -> Attention:
    return Attention(
        module=name,
        query=f"{name}.q",
        key=f"{name}.k",
        value=f"{name}.v",
        output=f"{name}.o",
        heads_attribute="n_heads",
        width_attribute="inner_dim",
        head_size_attribute="key_value_proj_dim",
        shared_bias=True,
        input_bias="zero",
        output_bias="zero",
        **more,
    )


def _t5_feed_forward(name: str) -> FeedForward:
    return FeedForward(
        first=(f"{name}.wi",),
        gated_first=(f"{name}.wi_0", f"{name}.wi_1"),
        second=f"{name}.wo",
        first_bias="zero",
        second_bias="zero",
    )


T5_ENCODER = Layers(
    path="encoder.block",
    attentions=(_t5_attention("layer.0.SelfAttention"),),
    feed_forward=_t5_feed_forward("layer.1.DenseReluDense"),
    norms=("hidden",) * 2,
    tensors=(("buckets", "heads"), ("hidden",)),
)
T5_DECODER = replace(
    T5_ENCODER,
    path="decoder.block",
    stack="decoder",
    prefix="decoder_",
    attentions=(_t5_attention("layer.0.SelfAttention"), _t5_attention("layer.1.EncDecAttention", kind="cross")),
    feed_forward=_t5_feed_forward("layer.2.DenseReluDense"),
    norms=("hidden",) * 3,
)
VIT_LAYERS = Layers(
    path="layers",
    attentions=(
        Attention(
            module="attention",
            query="attention.q_proj",
            key="attention.k_proj",
            value="attention.v_proj",
            output="attention.o_proj",
            heads_attribute="num_attention_heads",
            input_bias="qkv_bias",
        ),
    ),
    feed_forward=FeedForward(first=("mlp.fc1",), second="mlp.fc2"),
)
