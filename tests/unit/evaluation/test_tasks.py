from __future__ import annotations

from typing import Any

import pytest

from prunectl.errors import InvalidInput, UnsupportedArchitecture
from prunectl.evaluation.tasks import task_of, text_limit


def config(architecture: str | None, **more: Any) -> dict[str, Any]:
    return {"model_type": "bert", **({"architectures": [architecture]} if architecture else {}), **more}


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("XLMRobertaForMaskedLM", "fill-mask"),
        ("BertForSequenceClassification", "text-classification"),
        ("DistilBertModel", "feature-extraction"),
        (None, "feature-extraction"),
    ],
)
def test_the_head_decides(architecture: str | None, task: str) -> None:
    assert task_of(config(architecture)) == task
    assert task_of(config(architecture), task) == task
    assert task_of(config(architecture), "feature-extraction", labels="label") == "feature-extraction"


def test_labels_need_a_classification_head() -> None:
    assert task_of(config("BertForSequenceClassification"), labels="label") == "text-classification"
    with pytest.raises(InvalidInput) as caught:
        task_of(config("BertForMaskedLM"), labels="label")
    assert caught.value.field == "data"
    assert caught.value.hint == "use a fine-tuned checkpoint, or --task fill-mask"
    assert task_of(config("BertForMaskedLM"), "fill-mask", labels="label") == "fill-mask"


def test_a_task_that_the_head_cannot_do_is_refused_with_those_it_can() -> None:
    with pytest.raises(InvalidInput, match="it can do fill-mask and feature-extraction") as caught:
        task_of(config("BertForMaskedLM"), "text-classification")
    assert (caught.value.field, caught.value.value) == ("task", "text-classification")
    with pytest.raises(InvalidInput) as caught:
        task_of(config("BertForMaskedLM"), "mask-fill")
    assert caught.value.hint is not None


def test_a_single_output_is_a_regression_and_has_no_classes() -> None:
    regression = config("BertForSequenceClassification", id2label={"0": "LABEL_0"})
    assert task_of(regression) == "feature-extraction"
    with pytest.raises(InvalidInput):
        task_of(regression, "text-classification")


def test_other_heads_are_unsupported() -> None:
    with pytest.raises(UnsupportedArchitecture, match="BertForMultipleChoice"):
        task_of(config("BertForMultipleChoice"))


@pytest.mark.parametrize(
    ("more", "requested", "limit"),
    [
        ({"max_position_embeddings": 512}, None, 128),
        ({"max_position_embeddings": 64}, None, 64),
        ({"max_position_embeddings": 512}, 512, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512, 512),
        ({"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}, None, 64),
        ({}, None, 128),
        ({}, 4096, 4096),
    ],
)
def test_text_limit(more: dict[str, Any], requested: int | None, limit: int) -> None:
    assert text_limit(config("BertModel", **more), requested) == limit


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(InvalidInput, match="bench-seq 600 is more than the model's 512 positions") as caught:
        text_limit(config("BertModel", max_position_embeddings=512), 600, field="bench_seq")
    assert caught.value.field == "bench_seq"
