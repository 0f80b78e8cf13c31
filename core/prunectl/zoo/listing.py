"""The models under the zoo roots, as ``prunectl models`` shows them. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from prunectl.errors import PrunectlError
from prunectl.evaluation.tasks import architecture_of, task_of
from prunectl.pruning.architectures import family_of, shape_of
from prunectl.schemas import ModelView
from prunectl.zoo.directory import check, local_config, weight_files
from prunectl.zoo.resolve import zoo_names


def list_models(zoo_roots: Iterable[Path]) -> list[ModelView]:
    """One entry a model, sorted by name. A broken one is listed with ``prunable`` false and the reason."""
    return [_view(name, path) for name, path in sorted(zoo_names(zoo_roots).items())]


def _view(name: str, path: Path) -> ModelView:
    view = ModelView(name=name, path=str(path), prunable=False)
    try:
        config = local_config(path)
        view.architecture = architecture_of(config)
        view.family = family_of(config).model_type
        view.task = task_of(config)
        shape = shape_of(config)
        view.layers, view.heads, view.ffn = shape.layers, shape.heads, shape.ffn
        view.model_bytes = sum(file.stat().st_size for file in weight_files(path))
        view.parameters = sum(math.prod(size) for _, size in check(path).values())
        view.prunable = True
        if "prunectl" in config:
            view.prunable, view.reason = False, "it is already pruned"
    except (PrunectlError, OSError) as error:
        view.reason = str(error)
    return view
