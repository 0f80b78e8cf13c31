"""The table of families, and that planning needs no torch."""

from __future__ import annotations

from typing import Any

import pytest

from prunectl.errors import UnsupportedArchitecture
from prunectl.pruning.architectures import FAMILIES, architecture_of, family_of, shape_of


def test_an_unknown_family_is_named_with_those_that_are_known() -> None:
    with pytest.raises(UnsupportedArchitecture, match="'mamba'") as caught:
        family_of({"model_type": "mamba"})
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in FAMILIES)


@pytest.mark.parametrize(("written", "meant"), [("xlmroberta", "xlm-roberta"), ("distil-bert", "distilbert")])
def test_a_misspelt_family_gets_its_neighbour(written: str, meant: str) -> None:
    with pytest.raises(UnsupportedArchitecture) as caught:
        family_of({"model_type": written})
    assert f"did you mean {meant}?" in str(caught.value.hint)


@pytest.mark.parametrize("config", [{}, {"model_type": None}, {"model_type": ["bert"]}])
def test_a_config_without_a_usable_model_type(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedArchitecture):
        family_of(config)


@pytest.mark.parametrize("key", ["is_decoder", "add_cross_attention"])
def test_decoders_are_refused(key: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=key):
        family_of({"model_type": "bert", key: True})


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_size": 10, "num_attention_heads": 3},
        {"hidden_size": 0},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 10**12},
        {"intermediate_size": "3072"},
        {"num_attention_heads": True},
        {"vocab_size": 1.5},
    ],
)
def test_sizes_that_no_model_can_have(wrong: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedArchitecture):
        shape_of({"model_type": "bert", **wrong})


def test_an_unknown_class_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnsupportedArchitecture, match="BertForMultipleChoice") as caught:
        FAMILIES["bert"].head_of("BertForMultipleChoice")
    assert "BertForMaskedLM" in str(caught.value.hint)


def test_a_config_without_architectures_means_the_bare_encoder() -> None:
    assert architecture_of({"model_type": "xlm-roberta"}) == "XLMRobertaModel"
    assert (
        architecture_of({"model_type": "xlm-roberta", "architectures": ["XLMRobertaForMaskedLM"]})
        == "XLMRobertaForMaskedLM"
    )


def test_distilbert_answers_to_the_common_names_too() -> None:
    shape = shape_of({"model_type": "distilbert", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3})
    assert (shape.hidden, shape.heads, shape.layers) == (64, 4, 3)
