from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from prunectl.pruning.packing import Budget, budget_of, divided, packed, weight_of


def cost(lengths: list[int], groups: list[list[int]], budget: Budget) -> float:
    sizes = [(len(rows), len(rows) * max(lengths[row] for row in rows)) for rows in groups]
    if any(size > budget.tokens and number > 1 for number, size in sizes):
        return float("inf")
    return sum(size + budget.overhead for _, size in sizes)


@pytest.mark.parametrize("budget", [Budget(40, 0), Budget(40, 12), Budget(10_000, 30), Budget(1, 5)])
@pytest.mark.parametrize("seed", range(4))
def test_no_way_of_cutting_costs_less(seed: int, budget: Budget) -> None:
    lengths = torch.randint(1, 30, (9,), generator=torch.Generator().manual_seed(seed)).tolist()
    groups = packed(lengths, budget)
    assert sorted(row for rows in groups for row in rows) == list(range(9))
    order = sorted(range(9), key=lambda row: -lengths[row])
    ways = []
    for cuts in product([False, True], repeat=8):
        ways.append([[order[0]]])
        for row, cut in zip(order[1:], cuts, strict=True):
            if cut:
                ways[-1].append([])
            ways[-1][-1].append(row)
    assert cost(lengths, groups, budget) == min(cost(lengths, way, budget) for way in ways)


def batch(lengths: list[int], *, width: int = 20, **more: Any) -> dict[str, Any]:
    mask = (torch.arange(width) < torch.tensor(lengths).unsqueeze(1)).long()
    ids = (torch.arange(len(lengths) * width).view(-1, width) + 1) * mask
    return {"input_ids": ids, "attention_mask": mask, **more}


def test_each_part_is_as_wide_as_its_longest_example_and_none_is_lost() -> None:
    given = batch([3, 20, 4, 19], labels=torch.tensor([0, 1, 2, 3]))
    long, short = divided(given, Budget(1_000, 1))
    assert long["labels"].tolist() == [1, 3] and long["input_ids"].shape == (2, 20)
    assert short["labels"].tolist() == [2, 0] and short["input_ids"].shape == (2, 4)
    assert short["attention_mask"].sum(1).tolist() == [4, 3]
    assert torch.equal(short["input_ids"][1, :3], given["input_ids"][0, :3])
    assert weight_of(long) == weight_of(short) == 2


def test_the_budget_bounds_a_part_of_more_than_one_example() -> None:
    parts = divided(batch([20] * 7), Budget(60, 5))
    assert sorted(len(part["input_ids"]) for part in parts) == [1, 3, 3]
    assert len(divided(batch([20] * 3), Budget(5, 5))) == 3


def test_columns_that_nobody_needs_go_even_from_a_single_part() -> None:
    labels = torch.full((2, 20), -100)
    labels[:, 1] = 7
    [part] = divided(batch([4, 5], labels=labels), Budget(1_000, 100))
    assert part["input_ids"].shape == part["labels"].shape == (2, 5)
    assert weight_of(part) == 2


def test_what_gains_nothing_stays_as_it_is() -> None:
    given = batch([20, 19, 20])
    assert divided(given, Budget(1_000, 100)) == [given]
    pictures = {"pixel_values": torch.zeros(4, 3, 8, 8)}
    assert divided(pictures, Budget(1, 0)) == [pictures]


def test_a_loss_that_compares_examples_keeps_them_together() -> None:
    given = batch([3, 20], reference=torch.zeros(2, 8))
    assert divided(given, Budget(1, 0)) == [given]


def test_padding_on_the_left_keeps_every_column() -> None:
    given = batch([3, 4])
    given["attention_mask"] = given["attention_mask"].flip(1)
    assert all(part["input_ids"].shape[1] == 20 for part in divided(given, Budget(20, 0)))


def test_what_a_decoder_reads_and_should_say_keeps_its_columns() -> None:
    given = batch([3, 20], decoder_input_ids=torch.ones(2, 20), labels=torch.ones(2, 20, dtype=torch.long))
    _, short = divided(given, Budget(1_000, 1))
    assert short["input_ids"].shape == (1, 3)
    assert short["decoder_input_ids"].shape == short["labels"].shape == (1, 20)


def test_an_output_over_a_large_vocabulary_makes_passes_fewer() -> None:
    small, large = (
        BertForMaskedLM(BertConfig(vocab_size=words, hidden_size=16, num_hidden_layers=2, num_attention_heads=2))
        for words in (5_000, 50_000)
    )
    headless = budget_of(small.bert)
    assert headless.overhead < budget_of(small).overhead < budget_of(large).overhead
    assert headless.tokens <= budget_of(small).tokens < budget_of(large).tokens
    # Its weights over those of the layers, which are the rest but for what it shares with the embeddings.
    rest = sum(weight.numel() for weight in large.parameters()) - 50_000 * 16
    assert budget_of(large).overhead == headless.overhead + round(60 * 50_000 * 16 / rest)
