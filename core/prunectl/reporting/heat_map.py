"""The importance of heads as a picture: a row a layer, a column a head, crosses where a head went."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from prunectl.reporting.rendering import render
from prunectl.schemas import BlockStructure, Structure

CELL = 26
LEFT, TOP, BELOW = 110, 30, 46
FONT = "system-ui, 'DejaVu Sans', Arial, sans-serif"


@dataclass(frozen=True, slots=True)
class Cell:
    """One head. ``shade`` 0 to 1, None where it was not ranked; ``said`` is what a pointer or a screen reader is told."""

    x: int
    y: int
    shade: float | None
    kept: bool
    said: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    width: int
    height: int
    rows: list[tuple[int, str]]
    columns: list[tuple[int, int]]
    cells: list[Cell]
    removed: list[tuple[int, int]]
    """Rows of layers that went as a whole: place and width."""
    most: float | None
    """The score of the darkest cell; None: nothing was ranked."""


def heat_map(structure: Structure) -> HeatMap:
    """What `svg` draws. Layers that went are rows of their own, before a decoder's in an encoder-decoder."""
    blocks = structure.layers
    scores = [score for block in blocks for score in block.head_scores or ()]
    most = max(scores, default=None)
    heads = max((block.heads_total for block in blocks), default=0)
    rows: list[tuple[int, str]] = []
    cells: list[Cell] = []
    gone: list[tuple[int, int]] = []
    for place, entry in enumerate(_rows(structure)):
        y = TOP + place * CELL
        if isinstance(entry, int):
            rows.append((y, f"layer {entry}"))
            gone.append((y, heads * CELL))
            continue
        rows.append((y, label(entry, blocks)))
        cells += [_cell(entry, head, y, most, rows[-1][1]) for head in range(entry.heads_total)]
    return HeatMap(
        width=LEFT + max(heads * CELL, 380) + 20,
        height=TOP + len(rows) * CELL + BELOW,
        rows=rows,
        columns=[(LEFT + head * CELL, head) for head in range(heads)],
        cells=cells,
        removed=gone,
        most=most,
    )


def svg(structure: Structure, *, standalone: bool = True) -> str:
    """The heat map as SVG; ``standalone`` with colours of its own, else with the page's."""
    return render("heat_map.svg.j2", map=heat_map(structure), standalone=standalone, cell=CELL, left=LEFT, font=FONT)


def label(block: BlockStructure, blocks: list[BlockStructure]) -> str:
    """``layer 3``; with the stack and the kind where a model has several."""
    parts: list[str] = []
    if len({other.stack for other in blocks}) > 1:
        parts.append(block.stack)
    if block.attention == "cross":
        parts.append("cross")
    return " ".join([*parts, str(block.index)]) if parts else f"layer {block.index}"


def _rows(structure: Structure) -> list[BlockStructure | int]:
    """Blocks, and numbers of layers that went, in order. Of two stacks, only what is left is shown."""
    blocks = structure.layers
    if len({block.stack for block in blocks}) > 1:
        return list(blocks)
    rows: list[BlockStructure | int] = [*blocks, *structure.removed_layers]
    return sorted(rows, key=lambda row: row if isinstance(row, int) else row.index)


def _cell(block: BlockStructure, head: int, y: int, most: float | None, row: str) -> Cell:
    score = block.head_scores[head] if block.head_scores else None
    kept = head in block.heads_kept
    # Scores fall off steeply: the root leaves the small ones apart. Scores of magnitude or chance may be below 0.
    shade = None if score is None or not most or most <= 0 else sqrt(max(0.0, score) / most)
    said = f"{row}, head {head}, {'kept' if kept else 'removed'}"
    return Cell(LEFT + head * CELL, y, shade, kept, said if score is None else f"{said}, score {score:.4g}")
