"""No head: the embeddings of an encoder, and how well they find the passage of a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunectl.evaluation import outputs
from prunectl.evaluation.data import Example
from prunectl.evaluation.encoding import encode
from prunectl.evaluation.estimates import Array, Estimate, Mean
from prunectl.evaluation.heads.base import Answers, Asked, Batch, Head, inputs_of

TEMPERATURE = 0.05
NEIGHBOURS = 10
CUTOFF = 10
"""Ranks that retrieval looks at: recall at 1 and at 10, MRR at 10."""
_BLOCK = 1024


class EmbeddingHead(Head):
    """Answers are the row's ``embedding`` ``[1, hidden]``.

    A pair is two rows, the query's and the passage's.
    """

    target_name = "reference"
    fewest = 2  # to contrast

    def ask(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        examples: Sequence[Example],
        *,
        max_length: int,
        seed: int,
        replacements: Sequence[int] | None = None,
    ) -> Asked:
        rows = encode(model, tokenizer, examples, max_length)
        owners = list(range(len(rows)))
        if _pairs(examples):
            passages = [replace(example, text=example.positive or "", positive=None) for example in examples]
            rows += encode(model, tokenizer, passages, max_length)
            owners *= 2
        return Asked(rows, None, "model", owners)

    def targets(self, values: Sequence[Any]) -> Tensor:
        return torch.stack(list(values))

    def said(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """Embeddings at unit length ``[batch, hidden]``."""
        return outputs.embeddings(model, inputs_of(batch))

    def loss(self, said: Tensor, batch: Batch) -> Tensor:
        """In-batch contrast with the unpruned model, logits_ij = cos(e_i, r_j) / 0.05 and label i, where e are the
        model's embeddings and r the unpruned model's; the form is equation 1 of SimCSE (Gao et al. 2021) with the
        unpruned model as the second view.
        """
        logits = said @ batch["reference"].T / TEMPERATURE
        return cross_entropy(logits, torch.arange(len(logits), device=logits.device))

    def own(self, said: Tensor, batch: Batch) -> list[Any]:
        return list(said.cpu())

    def answers(self, said: Tensor, batch: Batch) -> list[Answers]:
        return [{"embedding": row[None]} for row in said.float().cpu().numpy()]

    def gather(self, asked: Asked, answers: Sequence[Answers], examples: Sequence[Example], model: Any) -> Answers:
        arrays = super().gather(asked, answers, examples, model)
        if not _pairs(examples):
            return arrays
        queries, passages = np.split(arrays["embedding"], 2)
        ranks = ranks_of(queries, passages, [e.text for e in examples], [e.positive or "" for e in examples])
        return {"embedding": queries, "passage": passages, "rank": ranks}

    def estimates(self, arrays: Mapping[str, Array], seed: int) -> dict[str, Estimate]:
        if "rank" not in arrays:
            return {}
        rank = arrays["rank"]
        each = np.arange(len(rank))
        return {
            "eval_mrr_at_10": Mean(np.where(rank <= CUTOFF, 1.0 / rank, 0.0), each),
            "eval_recall_at_1": Mean((rank <= 1).astype(np.float64), each),
            "eval_recall_at_10": Mean((rank <= CUTOFF).astype(np.float64), each),
        }

    def likeness(self, mine: Mapping[str, Array], theirs: Mapping[str, Array]) -> dict[str, Estimate]:
        """Cosine (of a pair the mean of both texts') and, from 12 texts on, the share of common neighbours."""
        text = np.arange(len(mine["embedding"]))
        both = [
            np.einsum("th,th->t", mine[name], theirs[name], dtype=np.float64)
            for name in ("embedding", "passage")
            if name in mine
        ]
        found: dict[str, Estimate] = {"eval_cosine": Mean(np.mean(both, axis=0), text)}
        if len(text) > NEIGHBOURS + 1:
            found["eval_overlap_at_10"] = Mean(_neighbour_overlap(mine["embedding"], theirs["embedding"]), text)
        return found


def ranks_of(queries: Array, passages: Array, query_texts: Sequence[str], passage_texts: Sequence[str]) -> Array:
    """The rank, from 1, of each query's own passage by cosine among all distinct passages: ``[pairs]``.

    A tie counts against it. What else answers the same query is no competitor.
    """
    first = {text: index for index, text in reversed(list(enumerate(passage_texts)))}
    distinct = sorted(first.values())
    column = {passage_texts[index]: place for place, index in enumerate(distinct)}
    answers: dict[str, set[int]] = {}
    for query, passage in zip(query_texts, passage_texts, strict=True):
        answers.setdefault(query, set()).add(column[passage])
    pool = passages[distinct]
    ranks = np.empty(len(queries), dtype=np.int64)
    for start in range(0, len(queries), _BLOCK):
        scores = queries[start : start + _BLOCK] @ pool.T
        for row, score in enumerate(scores):
            index = start + row
            own = column[passage_texts[index]]
            others = list(answers[query_texts[index]])
            beaten = score >= score[own]
            beaten[others] = False
            ranks[index] = 1 + int(beaten.sum())
    return ranks


def _pairs(examples: Sequence[Example]) -> bool:
    return all(example.positive is not None for example in examples)


def _neighbour_overlap(mine: Array, theirs: Array) -> Array:
    """Share of each text's 10 nearest neighbours by cosine that both models name: ``[texts]``."""
    shares = []
    for start in range(0, len(mine), _BLOCK):  # in blocks, for the full matrix grows with the square of the texts
        near = [_nearest(vectors, start, _BLOCK) for vectors in (mine, theirs)]
        shares += [len(np.intersect1d(a, b, assume_unique=True)) / NEIGHBOURS for a, b in zip(*near, strict=True)]
    return np.array(shares)


def _nearest(vectors: Array, start: int, size: int) -> Array:
    similarity = vectors[start : start + size] @ vectors.T
    rows = np.arange(len(similarity))
    similarity[rows, start + rows] = -np.inf  # a text isn't its own neighbour
    return np.argpartition(-similarity, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
