"""Load checkpoints, pruned or not, without running their code and without trusting their sizes.

Every check happens on the files' headers and on the meta device, before a weight is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from prunectl.checkpoints import manifest
from prunectl.checkpoints.checks import check_shapes, check_tensors
from prunectl.checkpoints.headers import read_sizes
from prunectl.checkpoints.manifest import CONFIG_KEY
from prunectl.errors import CorruptWeights, MissingWeights, UnsupportedArchitecture
from prunectl.pruning.architectures import architecture_of, family_of, shape_of
from prunectl.pruning.shapes import pruned_class


def load_pruned(path: str | Path, **kwargs: Any) -> PreTrainedModel:
    """The pruned model in ``path``, of the class that ``architectures[0]`` names, float32, in evaluation mode.

    ``kwargs`` go to ``from_pretrained``, for example ``attn_implementation`` or ``dtype``. Needs no database, broker or
    network and runs no code from the directory. Raises MissingWeights, UnsafeWeights, CorruptWeights (damaged,
    incomplete, or not a prunectl checkpoint) and UnsupportedArchitecture.
    """
    directory = _directory(path)
    document = manifest.read_json(directory / "config.json")
    if not isinstance(document.get(CONFIG_KEY), dict):
        raise CorruptWeights(
            f"{directory} is not a prunectl checkpoint: its config.json has no {CONFIG_KEY!r}",
            hint="an unpruned model loads with transformers' AutoModel",
        )
    if (directory / manifest.SUMS).exists():
        manifest.verify(directory)
    stock = _stock_class(document)
    check_shapes(document)
    return _load(directory, document, stock, strict=True, **kwargs)


def load_original(directory: str | Path, config: Mapping[str, Any]) -> PreTrainedModel:
    """The unpruned model in ``directory``, whose config.json holds ``config``: float32, in evaluation mode.

    The class is ``architectures[0]``, or the family's bare encoder. Tensors that the class has no use for are ignored
    outside the layers, and a bare encoder may come without its pooler. Raises MissingWeights, UnsafeWeights (only
    pickles), CorruptWeights (truncated, wrong shape, missing or surplus layers) and UnsupportedArchitecture.
    """
    family_of(config).head_of(architecture_of(config))
    return _load(_directory(directory), dict(config), _stock_class(config), strict=False)


def _load(
    directory: Path, document: dict[str, Any], stock: type[PreTrainedModel], *, strict: bool, **kwargs: Any
) -> PreTrainedModel:
    sizes, layers = read_sizes(directory), shape_of(document).layers
    if layers > len(sizes):
        raise CorruptWeights(f"config.json asks for {layers} layers; the weights hold {len(sizes)} tensors")
    wanted = pruned_class(stock) if strict else stock
    config = _config(document)
    check_tensors(_built_on_meta(wanted, config), sizes, strict=strict)
    options = {"dtype": torch.float32, **kwargs}
    model = wanted.from_pretrained(directory, config=config, local_files_only=True, use_safetensors=True, **options)
    model.__class__ = stock  # the shapes are in place; what remains of the subclass is its constructor
    return cast(PreTrainedModel, model.eval())


def _directory(path: str | Path) -> Path:
    directory = Path(path)
    if not directory.is_dir():
        raise MissingWeights(f"{path} is not a directory", hint="give the directory that holds config.json")
    return directory


def _stock_class(document: Mapping[str, Any]) -> type[PreTrainedModel]:
    family, name = family_of(document), architecture_of(document)
    stock = getattr(transformers, name, None) if name.startswith(family.class_prefix) else None
    if not (isinstance(stock, type) and issubclass(stock, PreTrainedModel)):
        raise UnsupportedArchitecture(
            f"{name!r} is not a model class of the {family.model_type} family", field="architectures"
        )
    return stock


def _config(document: dict[str, Any]) -> Any:
    try:
        return transformers.CONFIG_MAPPING[document["model_type"]].from_dict(document)
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        raise CorruptWeights(f"config.json is not a valid configuration: {error}") from error


def _built_on_meta(wanted: Any, config: Any) -> PreTrainedModel:
    try:
        with torch.device("meta"), no_init_weights():
            return cast(PreTrainedModel, wanted(config))
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CorruptWeights(f"no model can be built from config.json: {error}") from error
