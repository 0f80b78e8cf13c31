"""The table of families against the configuration classes of transformers, and against TextPruner's own table."""

from __future__ import annotations

import pytest
import transformers
from textpruner.model_map import MODEL_MAP

from prunectl.pruning.architectures import FAMILIES, shape_of, textpruner_families


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_those_of_the_configuration_class(family: str) -> None:
    config = transformers.CONFIG_MAPPING[family]()
    assert shape_of({"model_type": family}) == shape_of(config.to_dict())


def test_textpruner_families_are_those_of_its_model_map_whose_configurations_its_pruner_can_read() -> None:
    # Its pruner asks every configuration for intermediate_size, which those of BART and T5 don't have.
    readable = [name for name in FAMILIES if hasattr(transformers.CONFIG_MAPPING[name](), "intermediate_size")]
    assert textpruner_families() == [name for name in FAMILIES if name in MODEL_MAP and name in readable]
