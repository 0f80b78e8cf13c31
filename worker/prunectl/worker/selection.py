"""How good a greedy search's candidate is on the examples that are chosen by."""

from __future__ import annotations

from collections.abc import Callable

from transformers import PreTrainedModel

from prunectl.evaluation import quality
from prunectl.schemas import Measure
from prunectl.worker.measuring import BATCH_SIZE, quality_of
from prunectl.worker.source import Source


def of_unpruned(model: PreTrainedModel, source: Source, seed: int) -> Callable[[PreTrainedModel], dict[str, Measure]]:
    """Note what the unpruned model says of these examples; gives what measures a smaller one against it."""
    said = quality.reference(
        model,
        source.original_tokenizer,
        source.task,
        source.selection,
        max_length=source.max_length,
        batch_size=BATCH_SIZE,
        seed=seed,
    )
    before = quality.summarise(said, said, seed=seed)

    def measure(small: PreTrainedModel) -> dict[str, Measure]:
        return quality.compare(before, quality_of(small, source, seed, said, source.selection))

    return measure
