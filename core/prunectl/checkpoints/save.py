"""Write a pruned model as a checkpoint directory that prunectl, and transformers without it, can load."""

from __future__ import annotations

import copy
import errno
import json
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from prunectl.checkpoints import card, manifest
from prunectl.checkpoints.manifest import CONFIG_KEY, WEIGHTS
from prunectl.checkpoints.precision import stored_weights
from prunectl.errors import DiskFull
from prunectl.pruning import depth, shapes
from prunectl.pruning.architectures import shape_of
from prunectl.pruning.blocks import base_path, find_blocks, linear
from prunectl.pruning.engine import Pruned
from prunectl.recipe import Recipe
from prunectl.schemas import Result

CARRIED = "modeling_prunectl"
REPORT = "report.html"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "spm.model",
    "source.spm",
    "target.spm",
    "chat_template.jinja",
    "preprocessor_config.json",
)
_AUTO_CLASSES = {
    "AutoModel": "MODEL_MAPPING",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "AutoModelForImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING",
    "AutoModelForPreTraining": "MODEL_FOR_PRETRAINING_MAPPING",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
}


def save(
    model: PreTrainedModel,
    *,
    source: Path,
    directory: Path,
    recipe: Recipe,
    pruned: Pruned,
    provenance: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write ``model``, cut as ``pruned`` says, to the new or empty ``directory``; tokenizer files come from ``source``,
    or are the reduced ones where the vocabulary was pruned.

    Where every tensor has the shape that the stock class gives it, plain ``AutoModel`` loads the directory and no
    modelling file is carried.

    ``dtype`` is what the weights are stored as: see `prunectl.checkpoints.precision`.
    ``provenance`` goes into prunectl.json as it is: model name and digest, data digests, versions. Raises DiskFull, and
    FileExistsError where the directory holds something. Metrics and the model card follow with `finalise`.
    """
    with _disk_full(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise FileExistsError(f"{directory} is not empty")
        config = _config(model, dtype)
        manifest.write_json(directory / "config.json", config)
        if "auto_map" in config:
            (directory / f"{CARRIED}.py").write_text(_carried(model), encoding="utf-8")
        if getattr(model, "generation_config", None) is not None:
            generation = copy.deepcopy(model.generation_config)
            if _outgrows_its_cache(model):
                generation.use_cache = False
            generation.to_json_file(directory / "generation_config.json")
        save_file(_tensors(model, dtype), directory / WEIGHTS, metadata={"format": "pt"})
        # safetensors makes it readable for its owner alone; whoever may read the rest may read the weights.
        shutil.copymode(directory / "config.json", directory / WEIGHTS)
        tokenizer = source if pruned.vocabulary is None else pruned.vocabulary.directory
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, directory / name)
        manifest.write_manifest(
            directory,
            {
                "schema_version": 1,
                "recipe": recipe.document(),
                "recipe_digest": recipe.digest,
                "seed": recipe.seed,
                "versions": _versions(),
                **provenance,
                "kept": pruned.kept,
                "removed_layers": pruned.structure.removed_layers,
                "vocabulary": None if pruned.vocabulary is None else list(pruned.vocabulary.kept),
                "weights": None if pruned.zeroed is None else asdict(pruned.zeroed),
                "metrics": {},
            },
        )
        manifest.seal(directory)


def finalise(directory: Path, result: Result, *, model_name: str, report: str | None = None) -> None:
    """Add what was measured: metrics to prunectl.json, README.md, the ``report`` as HTML, SHA256SUMS last.

    Raises DiskFull, CorruptWeights.
    """
    with _disk_full(directory):
        document = manifest.read_manifest(directory)
        config = manifest.read_json(directory / "config.json")
        document |= {
            "metrics": {name: measure.model_dump(exclude_none=True) for name, measure in result.metrics.items()},
            "conditions": result.conditions,
            "structure": result.structure.model_dump()["layers"],
            "ledger": [row.model_dump(exclude_none=True) for row in result.ledger],
        }
        if result.search is not None:
            document["search"] = result.search.model_dump(exclude_none=True)
        manifest.write_manifest(directory, document)
        (directory / "README.md").write_text(
            card.render(document, result, model_name, config["architectures"][0], plain="auto_map" not in config),
            encoding="utf-8",
        )
        if report is not None:
            (directory / REPORT).write_text(report, encoding="utf-8")
        manifest.seal(directory)
        manifest.fsync(directory)


def described_shapes(model: PreTrainedModel) -> dict[str, Any]:
    """The ``prunectl`` key of config.json: every matrix of every block that isn't as the configuration alone would make
    it, by path below the base model; see `prunectl.pruning.shapes`.
    """
    prefix = base_path(model)
    stock = shape_of(model.config.to_dict() | {"architectures": [type(model).__name__]})
    found: dict[str, Any] = {"format": 1, "linears": {}, "attributes": {}, "empty": {}, "biased": {}}
    for block, whole in zip(find_blocks(model), stock.blocks, strict=True):
        module = block.module.removeprefix(prefix)
        if block.heads_total != whole.heads_total:
            for path in dict.fromkeys((block.query, block.key, block.value, *block.positions, block.output)):
                found["linears"][path.removeprefix(prefix)] = _shape(model, path)
            if block.attributes:
                found["attributes"][module] = block.attributes
            if block.heads_total == 0:
                found["empty"][module] = block.inner_output
            elif block.shared_bias:
                found["biased"][module] = model.get_submodule(block.module).kept_heads
        if block.ffn_second is not None and block.ffn_total != whole.ffn_total:
            for path in (*block.ffn_first, block.ffn_second):
                found["linears"][path.removeprefix(prefix)] = _shape(model, path)
    return found


def _outgrows_its_cache(model: PreTrainedModel) -> bool:
    """Whether the decoder has more layers than the cache that ``generate`` would make for it.

    transformers sizes a T5's cache by the depth of its encoder, so a deeper decoder can write without a cache only.
    """
    counted = int(model.config.get_text_config(decoder=True).num_hidden_layers)
    decoders = [stack for stack in depth.stacks_of(model.config.to_dict()) if stack.name == "decoder"]
    return any(stack.layers > counted for stack in decoders)


def _config(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(model.config.to_json_string())
    document["architectures"] = [type(model).__name__]
    document["dtype"] = str(dtype).removeprefix("torch.")
    document[CONFIG_KEY] = described = described_shapes(model)
    document.pop("auto_map", None)
    if any(part for key, part in described.items() if key != "format"):
        document["auto_map"] = {auto: f"{CARRIED}.{name}" for auto, name in _auto_classes(model).items()}
    document["transformers_version"] = transformers.__version__
    document.pop("_name_or_path", None)
    return document


def _auto_classes(model: PreTrainedModel) -> dict[str, str]:
    """Auto class -> the family's class under it, for each that the family has."""
    found = {}
    for auto, mapping in _AUTO_CLASSES.items():
        stock = getattr(transformers, mapping).get(type(model.config), None)
        if stock is not None:
            found[auto] = stock.__name__
    return found


def _carried(model: PreTrainedModel) -> str:
    """The modelling file: the code that `load_pruned` runs, and one class for each of the family's auto classes."""
    names = sorted({*_auto_classes(model).values(), type(model).__name__})
    lines = "".join(f"{name} = pruned_class(transformers.{name})\n" for name in names)
    return f"{Path(shapes.__file__).read_text(encoding='utf-8')}\n\n{lines}"


def _tensors(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state, each shared tensor once, under the name that the others are tied to."""
    tied = set(model.all_tied_weights_keys)
    kept: dict[str, Tensor] = {}
    stored = stored_weights(model)
    seen = set()
    for name, tensor in sorted(model.state_dict().items(), key=lambda entry: entry[0] in tied):
        place = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape)
        if tensor.numel() and place in seen:  # tensors without elements have no storage: they only look shared
            continue
        seen.add(place)
        detached = tensor.detach()
        kept[name] = (detached.to(dtype) if name in stored else detached).contiguous()
    return kept


def _shape(model: PreTrainedModel, path: str) -> list[int]:
    return list(linear(model, path).weight.shape)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("prunectl", "torch", "transformers", "safetensors", "textpruner"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # textpruner is optional, and a source tree has no distribution
            continue
    return found


@contextmanager
def _disk_full(directory: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = error.errno if isinstance(error, OSError) else None
        if code in (errno.ENOSPC, errno.EDQUOT) or (code is None and f"os error {errno.ENOSPC}" in str(error)):
            hint = "free some space, then prunectl retry"
            raise DiskFull(f"no space left for the checkpoint in {directory}", hint=hint) from error
        raise
