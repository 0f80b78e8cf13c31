"""Least squares with a ridge towards the old weights, from sums over rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from prunectl.pruning.blocks import Matrix


@dataclass(slots=True)
class Moments:
    """Sums over rows x ``[inputs (+ 1)]`` and y ``[hidden]``: x x^T, x y^T, y y; in double precision."""

    gram: Tensor
    cross: Tensor
    square: Tensor

    @classmethod
    def of(cls, inputs: int, outputs: int, device: torch.device) -> Moments:
        kind: Any = {"dtype": torch.float64, "device": device}
        return cls(torch.zeros(inputs, inputs, **kind), torch.zeros(inputs, outputs, **kind), torch.zeros((), **kind))

    def add(self, x: Tensor, y: Tensor) -> None:
        self.gram += x.T @ x
        self.cross += x.T @ y
        self.square += y.double().square().sum()

    def errors(self, old: Tensor, others: Iterable[Tensor]) -> tuple[float, list[float]]:
        """``sum ||y - x weights||^2`` for the weights ``old`` and for each of ``others``, all ``[inputs (+ 1), hidden]``.

        How much the others' differ has its square term in single precision, which is some 1e-6 of that term.
        """
        missing = self.cross - self.gram @ old
        error = float(self.square - (old * (self.cross + missing)).sum())
        gram = self.gram.float()
        steps = ((other - old, (other - old).float()) for other in others)
        return error, [
            error - 2 * float((step * missing).sum()) + float((short * (gram @ short)).sum()) for step, short in steps
        ]

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.gram + other.gram, self.cross + other.cross, self.square + other.square)


def gathered(rows: Iterable[tuple[Tensor, ...]], at_least: int) -> Iterator[tuple[Tensor, ...]]:
    """The same rows, ``at_least`` so many at once but for the last: a product of few costs nearly as much."""
    waiting: list[tuple[Tensor, ...]] = []
    for some in rows:
        waiting.append(some)
        if sum(len(part[0]) for part in waiting) >= at_least:
            yield tuple(torch.cat(parts) for parts in zip(*waiting, strict=True))
            waiting = []
    if waiting:
        yield tuple(torch.cat(parts) for parts in zip(*waiting, strict=True))


def weights_of(matrix: Matrix, kept: Tensor) -> Tensor:
    """Kept columns of the matrix, transposed, with the bias as a last row where there is one: double ``[inputs (+ 1),
    hidden]``.
    """
    weight = matrix.weight if isinstance(matrix, Conv1D) else matrix.weight.T
    rows = weight.detach()[kept.to(weight.device)]
    if matrix.bias is not None:
        rows = torch.cat([rows, matrix.bias.detach().unsqueeze(0)])
    return rows.double()


def write(matrix: Matrix, kept: Tensor, weights: Tensor) -> None:
    weight = matrix.weight if isinstance(matrix, Conv1D) else matrix.weight.T
    weight[kept.to(weight.device)] = weights[: len(kept)].to(weight.dtype)
    if matrix.bias is not None:
        matrix.bias.copy_(weights[-1])


def solve(moments: Moments, old: Tensor, matrix: Matrix, ridges: Sequence[float]) -> Iterator[Tensor]:
    """The weights ``[inputs (+ 1), hidden]`` for each ridge, in units of the mean diagonal of X^T X."""
    sizes = moments.gram.diagonal()
    inputs = sizes[:-1] if matrix.bias is not None else sizes
    size = (float(inputs.mean()) or 1.0) if len(inputs) else 0.0
    missing = moments.cross - moments.gram @ old
    for ridge in ridges:
        penalty = torch.zeros_like(sizes)
        penalty[: len(inputs)] = ridge * size
        # The bias is held back in its own unit: free, it grows against columns that are nearly constant, until float32
        # can't tell their sum.
        penalty[len(inputs) :] = ridge * sizes[len(inputs) :]
        factor = torch.linalg.cholesky(moments.gram + torch.diag(penalty))
        yield old + torch.cholesky_solve(missing, factor)
