"""What stands on top of each family's layers, by the ending of the class name. No torch."""

from __future__ import annotations

from prunectl.pruning.family import Linear, TaskHead

_POOLER = Linear("hidden", "hidden", positions="one")
_TRANSFORM = Linear("hidden", "hidden")
_LABELS = Linear("labels", "hidden", positions="one")
_CLASSIFIER = TaskHead(linears=(_POOLER, _LABELS))
_VECTORS = ("hidden", "hidden")  # of a LayerNorm

_MARKS = Linear("labels", "hidden")
_EVERY_TOKEN = {"ForTokenClassification": TaskHead((_MARKS,)), "ForQuestionAnswering": TaskHead((_MARKS,))}
"""Classes of each token; of an answer, whether it begins or ends there."""

ROBERTA_HEADS = {
    "ForMaskedLM": TaskHead((_TRANSFORM,), _VECTORS, vocabulary_projection="hidden", separate_bias=True),
    "ForSequenceClassification": _CLASSIFIER,
    **_EVERY_TOKEN,
    "Model": TaskHead(linears=(_POOLER,)),
}
BERT_HEADS = {
    **ROBERTA_HEADS,
    "ForPreTraining": TaskHead(
        (_POOLER, _TRANSFORM, Linear("two", "hidden", positions="one")),
        _VECTORS,
        vocabulary_projection="hidden",
        separate_bias=True,
    ),
}
_NARROW = Linear("embedding", "hidden")
ELECTRA_HEADS = {
    "ForMaskedLM": TaskHead((_NARROW,), ("embedding",) * 2, vocabulary_projection="embedding"),
    "ForSequenceClassification": _CLASSIFIER,
    **_EVERY_TOKEN,
    "ForPreTraining": TaskHead((_TRANSFORM, Linear("one", "hidden"))),
    "Model": TaskHead(),
}
DISTILBERT_HEADS = {
    "ForMaskedLM": TaskHead((_TRANSFORM,), _VECTORS, vocabulary_projection="hidden"),
    "ForSequenceClassification": _CLASSIFIER,
    **_EVERY_TOKEN,
    "Model": TaskHead(),
}
ALBERT_HEADS = {
    "ForMaskedLM": TaskHead((_NARROW,), ("embedding",) * 2, vocabulary_projection="embedding", separate_bias=True),
    "ForSequenceClassification": _CLASSIFIER,
    **_EVERY_TOKEN,
    "ForPreTraining": TaskHead(
        (_POOLER, _NARROW, Linear("two", "hidden", positions="one")),
        ("embedding",) * 2,
        vocabulary_projection="embedding",
        separate_bias=True,
    ),
    "Model": TaskHead(linears=(_POOLER,)),
}
DEBERTA_HEADS = {
    "ForMaskedLM": ALBERT_HEADS["ForMaskedLM"],
    "ForSequenceClassification": _CLASSIFIER,
    **_EVERY_TOKEN,
    "Model": TaskHead(),
}
_SCORES = TaskHead(linears=(Linear("labels", "hidden", bias="zero"),))
_LANGUAGE_MODEL = TaskHead(vocabulary_projection="hidden", vocabulary_bias=False)
LLAMA_HEADS = {"ForCausalLM": _LANGUAGE_MODEL, "ForSequenceClassification": _SCORES, "Model": TaskHead()}
GPT2_HEADS = {"LMHeadModel": _LANGUAGE_MODEL, "ForSequenceClassification": _SCORES, "Model": TaskHead()}
BART_HEADS = {
    "ForConditionalGeneration": _LANGUAGE_MODEL,
    "ForSequenceClassification": _CLASSIFIER,
    "Model": TaskHead(),
}
T5_HEADS = {**BART_HEADS, "EncoderModel": TaskHead(stacks=("encoder",))}
VIT_HEADS = {"ForImageClassification": TaskHead(linears=(_LABELS,)), "Model": TaskHead(linears=(_POOLER,))}
