"""Losses: the same value and gradient as torch's, without its copies."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from prunectl.evaluation.losses import token_loss


@pytest.mark.parametrize("tokens", [1, 31, 32, 70])
def test_value_and_gradient_are_those_of_cross_entropy(tokens: int) -> None:
    draw = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, 5, generator=draw, requires_grad=True)
    words = torch.randn(5, 40, generator=draw)
    labels = torch.randint(0, 40, (tokens,), generator=draw)
    expected = cross_entropy(hidden @ words, labels)
    [gradient] = torch.autograd.grad(3 * expected, hidden)
    loss = token_loss(hidden @ words, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * loss, hidden)[0], gradient)


def test_without_a_gradient_the_logits_stay() -> None:
    logits, labels = torch.randn(4, 6), torch.tensor([0, 1, 2, 3])
    before = logits.clone()
    torch.testing.assert_close(token_loss(logits, labels), cross_entropy(before, labels))
    with torch.no_grad():
        token_loss(logits.requires_grad_(), labels)
    assert torch.equal(logits.detach(), before)


def test_a_second_backward_pass_is_refused() -> None:
    hidden = torch.randn(3, 4, requires_grad=True)
    loss = token_loss(2 * hidden, torch.tensor([0, 1, 2]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
