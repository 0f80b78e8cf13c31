"""The TextPruner engine: the real library's scores, masks and pruner, on current transformers.

TextPruner (Yang, Cui and Chen 2022, "TextPruner: A Model Pruning Toolkit for Pre-Trained Language Models") expects
``prune_heads``, which transformers 5 no longer has, and a model that returns its loss. Both are supplied from here; the
library itself is not touched. Its steps are called one by one, because ``iterative_pruning`` writes pickles and takes
whole numbers of units a layer.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunectl.errors import EngineUnavailable
from prunectl.pruning import blocks as model_blocks
from prunectl.pruning import planning, surgery
from prunectl.pruning import scores as scoring
from prunectl.pruning.blocks import linear
from prunectl.pruning.masks import Masks
from prunectl.pruning.packing import Batch
from prunectl.pruning.scores import Loss, Progress, Scores
from prunectl.pruning.shapes import state_size
from prunectl.recipe import Recipe

INSTALL = "pip install --no-deps textpruner==1.1.post2 && pip install sentencepiece protobuf tqdm"


def supports(config: Mapping[str, Any]) -> None:
    """Raises InvalidInput, naming the families that TextPruner's model map has, where this model is not of one."""
    planning.units_to_remove(config, Recipe(heads=0.0, engine="textpruner"))


class TextPrunerEngine:
    """Drives one ``TransformerPruner``. Raises EngineUnavailable where the library isn't installed."""

    def __init__(
        self,
        model: PreTrainedModel,
        recipe: Recipe | None,
        batches: Sequence[Batch],
        loss: Loss | None,
        *,
        workspace: Path | None = None,
    ) -> None:
        self._library = library()
        self._model, self._recipe, self._batches, self._loss = model, recipe, batches, loss
        self._zeroed = Masks()
        settings = self._library.TransformerPruningConfig(pruning_method="masks")
        # Set here because its constructor warns of an unsavable model, which is true of its own save_model only.
        settings.ffn_even_masking = settings.head_even_masking = recipe is not None and recipe.even
        with ExitStack() as stack:
            # It creates its output directory at once; nothing that is called from here writes to it.
            output = workspace or stack.enter_context(TemporaryDirectory(prefix="prunectl-textpruner-"))
            self._pruner = self._library.TransformerPruner(
                LossModel(model, loss),
                transformer_pruning_config=settings,
                general_config=self._library.GeneralConfig(use_device=str(model.device), output_dir=str(output)),
            )

    def scores(self, masks: Masks, *, progress: Progress | None = None) -> Scores:
        assert self._recipe is not None
        if self._recipe.scorer_of("heads") == "random":
            # random_mask_tensor ignores the fraction unless masks are even, and draws from the global generator.
            return scoring.random(model_blocks.shape(model_blocks.find_blocks(self._model)), self._recipe.seed)
        self._zero(masks)
        # The bars it draws belong on a terminal, not in a job's log; its log messages don't pass through here.
        with _trainable(self._model), contextlib.redirect_stderr(io.StringIO()):
            heads, ffn = self._pruner.get_importance_score(_Loader(self._batches, progress))
        self._model.zero_grad(set_to_none=True)
        return Scores(heads.float().cpu(), ffn.float().cpu())

    def choose(self, ranked: Tensor, kept: int, even: bool, multiple_of: int) -> Tensor:
        if even:  # there the library ignores multiple_of
            kept = kept // ranked.size(0) // multiple_of * multiple_of * ranked.size(0)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the word "Warning" for each layer it refills
            mask = self._library.pruners.utils.generate_mask(ranked, kept, even, multiple_of=multiple_of).bool()
        return mask if even else _without_refills(mask, ranked, kept // multiple_of * multiple_of)

    def cut(self, masks: Masks) -> None:
        blocks = model_blocks.find_blocks(self._model)
        base = model_blocks.base_of(self._model)

        def prune_heads(removed: Mapping[int, Sequence[int]]) -> None:
            for index, gone in removed.items():
                kept = torch.ones(blocks[index].heads_total, dtype=torch.bool)
                kept[list(gone)] = False
                surgery.cut_heads(self._model, blocks[index], kept)

        base.prune_heads = prune_heads  # type: ignore[assignment]
        try:
            self._pruner.prune_with_masks(_float(masks.heads), _float(masks.ffn), keep_shape=False, set_masks=True)
        finally:
            del base.prune_heads
        if masks.ffn is not None:
            for block in blocks:  # it exchanges weights without telling the modules their new sizes
                for path in block.ffn_first:
                    state_size(linear(self._model, path))
                if block.ffn_second is not None:
                    state_size(linear(self._model, block.ffn_second))

    def _zero(self, masks: Masks) -> None:
        """Between iterations the removed units' weights are zeroed, by the library's own hand."""
        if masks is not self._zeroed and (masks.heads is not None or masks.ffn is not None):
            self._pruner.prune_with_masks(_float(masks.heads), _float(masks.ffn), keep_shape=True, set_masks=True)
        self._zeroed = masks


class LossModel(nn.Module):
    """A model whose output is the objective's loss, as TextPruner wants it."""

    base_model_prefix = "base"

    def __init__(self, model: PreTrainedModel, loss: Loss | None) -> None:
        super().__init__()
        self.model = model
        self.base = model_blocks.base_of(model)
        self._loss = loss

    def forward(self, **batch: Any) -> Tensor:
        assert self._loss is not None
        return self._loss(self.model, batch)


class _Loader:
    """Batches with a length, telling how far the reading is."""

    def __init__(self, batches: Sequence[Batch], progress: Progress | None) -> None:
        self._batches, self._progress = batches, progress

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self._batches):
            yield batch
            if self._progress is not None:
                self._progress((number + 1) / len(self._batches))


@contextlib.contextmanager
def _trainable(model: nn.Module) -> Iterator[None]:
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = [(module, module.training) for module in model.modules()]
    model.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)
        for module, mode in training:
            module.training = mode


def _without_refills(mask: Tensor, ranked: Tensor, kept: int) -> Tensor:
    """Take out again the unit that the library puts back into each empty layer, where the recipe lets a layer be empty.

    Refilled layers hold one unit, and it ranks below every unit that stayed by its own merit.
    """
    refilled = int(mask.sum()) - kept
    if refilled > 0:
        single = (mask.sum(1) == 1).nonzero().squeeze(1)
        best = ranked[single].masked_fill(~mask[single], float("-inf")).max(1).values
        mask[single[torch.argsort(best)[:refilled]]] = False
    return mask


def _float(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.float()


def library() -> Any:
    """The library itself; raises EngineUnavailable where it isn't installed."""
    try:
        import textpruner
        import textpruner.pruners.utils
    except ImportError as error:
        raise EngineUnavailable(
            f"engine textpruner: the library can't be imported on this worker ({error})",
            hint=INSTALL,
            field="engine",
            value="textpruner",
        ) from error
    return textpruner
