"""SQuAD's scores of an answer in words: exact match and F1 of its words, as fractions of 1. No torch.

Rajpurkar et al. 2016, section 6.1; with unanswerable questions Rajpurkar et al. 2018: where either text is empty, both
scores are 1 if both are and 0 otherwise.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation and the articles a, an, the, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def scores(predicted: str, answers: Sequence[str]) -> tuple[float, float]:
    """(exact match, F1), each the best over ``answers``; none says that there is no answer."""
    # An answer that is nothing but articles and punctuation counts for nothing, as in the official script.
    wanted = [text for text in answers if normalised(text)] or [""]
    return max(_exact(predicted, text) for text in wanted), max(_f1(predicted, text) for text in wanted)


def _exact(predicted: str, answer: str) -> float:
    return float(normalised(predicted) == normalised(answer))


def _f1(predicted: str, answer: str) -> float:
    mine, theirs = normalised(predicted).split(), normalised(answer).split()
    if not mine or not theirs:
        return float(mine == theirs)
    shared = sum((Counter(mine) & Counter(theirs)).values())
    return 2.0 * shared / (len(mine) + len(theirs))
