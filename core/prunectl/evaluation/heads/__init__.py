"""Heads by task: what each is asked, its loss and its metrics."""

from __future__ import annotations

from prunectl.evaluation.heads.answers import AnswerHead
from prunectl.evaluation.heads.base import Asked, Head, Labels
from prunectl.evaluation.heads.classes import ClassHead
from prunectl.evaluation.heads.embeddings import EmbeddingHead
from prunectl.evaluation.heads.language import LanguageHead
from prunectl.evaluation.heads.tags import TagHead
from prunectl.evaluation.tasks import Task

HEADS: dict[Task, type[Head]] = {
    "fill-mask": LanguageHead,
    "text-generation": LanguageHead,
    "text2text-generation": LanguageHead,
    "text-classification": ClassHead,
    "image-classification": ClassHead,
    "token-classification": TagHead,
    "question-answering": AnswerHead,
    "feature-extraction": EmbeddingHead,
}


def head_for(task: Task) -> Head:
    return HEADS[task](task)


__all__ = ["HEADS", "Asked", "Head", "Labels", "head_for"]
