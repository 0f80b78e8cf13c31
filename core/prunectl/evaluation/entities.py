"""Entities among tagged words, as seqeval finds them. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seqeval.metrics.sequence_labeling import get_entities

_PREFIXES = ("B-", "I-", "E-", "S-")


def has_entities(names: Iterable[str]) -> bool:
    """Whether the classes are O and places in an entity (``B-PER``); parts of speech have no entities to count."""
    return all(name == "O" or name.startswith(_PREFIXES) for name in names)


def entity_counts(expected: Sequence[str], predicted: Sequence[str]) -> tuple[int, int, int]:
    """(entities in both, predicted, expected) of a text's tags; kind and both ends must match.

    The rule of the CoNLL-2000 shared task's conlleval: an entity also begins where an I- follows another kind or O.
    """
    true, found = (set(get_entities(list(tags))) for tags in (expected, predicted))
    return len(true & found), len(found), len(true)
