"""Curve: what the solver would keep at each budget, all from the scores of one gradient pass.

A budget's point is what `prunectl.pruning.masks.masks_within` answers for it. Importance is a prediction of the scorer, in
whose unit heads and neurons add up (Kwon et al. 2022, section 4.1); what a model of that size is worth, only its
evaluation says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunectl.errors import InvalidInput
from prunectl.pruning import budgets, planning
from prunectl.pruning.blocks import Block
from prunectl.pruning.masks import masks_within
from prunectl.pruning.scores import Scores
from prunectl.recipe import Recipe

TARGETS = tuple(twentieth / 20 for twentieth in range(1, 20))
"""Shares of the multiply-adds that stay."""


def curve(
    scores: Scores, recipe: Recipe, blocks: Sequence[Block], config: Mapping[str, Any], seq: int
) -> list[dict[str, Any]]:
    """A point for each of `TARGETS` that can be met, ascending, JSON-serialisable; batch 1 x ``seq`` tokens.

    ``target_macs`` is the share asked for, ``macs`` what the answer has, ``importance_kept`` the share of all units'
    scores that stays, ``heads_kept`` and ``ffn_kept`` ``[blocks]``. ``config`` and ``blocks`` are those of the model that
    was scored; the recipe's ``min_heads``, ``min_ffn`` and ``multiple_of`` hold. Raises CorruptWeights for scores that
    aren't finite.
    """
    costs = budgets.unit_costs(config, recipe, seq)
    whole = planning.count_macs(config, seq)
    total = sum(
        float(scores.heads[row, : block.heads_total].sum() + scores.ffn[row, : block.ffn_total].sum())
        for row, block in enumerate(blocks)
    )
    points: list[dict[str, Any]] = []
    for target in TARGETS:
        try:
            masks = masks_within(scores, recipe, blocks, costs, planning.share(target, whole))
        except InvalidInput:  # what can't be removed costs more
            continue
        assert masks.heads is not None and masks.ffn is not None
        heads = [masks.heads[row, : block.heads_total] for row, block in enumerate(blocks)]
        ffn = [masks.ffn[row, : block.ffn_total] for row, block in enumerate(blocks)]
        kept = sum(
            float(
                scores.heads[row, : len(heads[row])][heads[row]].sum()
                + scores.ffn[row, : len(ffn[row])][ffn[row]].sum()
            )
            for row in range(len(blocks))
        )
        heads_kept, ffn_kept = [int(mask.sum()) for mask in heads], [int(mask.sum()) for mask in ffn]
        points.append(
            {
                "target_macs": target,
                "macs": planning.count_macs(config, seq, heads_kept, ffn_kept),
                "macs_total": whole,
                "importance_kept": kept / total if total else 1.0,
                "heads_kept": heads_kept,
                "ffn_kept": ffn_kept,
            }
        )
    return points
