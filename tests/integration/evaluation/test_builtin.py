"""The texts that ship with Python, all of them."""

from __future__ import annotations

import itertools

from prunectl.evaluation.builtin import MINIMUM_WORDS, paragraphs
from prunectl.evaluation.data import builtin_python_docs


def test_there_are_thousands_of_distinct_texts_in_a_fixed_order() -> None:
    texts = [example.text for example in builtin_python_docs()]
    assert len(texts) > 4000
    assert len(set(texts)) == len(texts)
    assert all(len(text) > 2 * MINIMUM_WORDS and "\n" not in text for text in texts)
    assert sum("assert" in text.lower() for text in texts) > 10
    assert texts[:500] == [text for _, text in itertools.islice(paragraphs(), 500)]
