"""A model's directory: which of its files belong to the model, what they must be, and their digest. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunectl.errors import CorruptWeights, InvalidInput, MissingTokenizer, MissingWeights, ModelNotFound, UnsafeWeights
from prunectl.pruning.architectures import FAMILIES
from prunectl.recipe import digest_of
from prunectl.zoo.safetensors_header import Header, read_header

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
# Any one of these sets is a tokenizer.
TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("sentencepiece.bpe.model",),
    ("spiece.model",),
    ("tokenizer.model",),
    ("spm.model",),
    ("source.spm", "target.spm", "vocab.json"),
)
PATTERNS = ("*.safetensors", "*.json", "vocab.txt", "merges.txt", "*.model", "*.spm")
"""What is fetched from a Hub: no pickle, no code, no other framework's weights."""
MAX_JSON_BYTES = 64 * 2**20


def model_files(directory: Path) -> list[Path]:
    """The files at the directory's top that make up the model: weights, configuration, tokenizer. Sorted by name."""
    return sorted(
        entry for entry in directory.iterdir() if any(entry.match(pattern) for pattern in PATTERNS) and entry.is_file()
    )


def local_config(directory: Path) -> dict[str, Any]:
    """config.json as it is. Raises ModelNotFound where there is none, InvalidInput (``model``) where it is broken."""
    path = directory / CONFIG
    if not path.is_file():
        raise ModelNotFound(
            f"{directory.name} is a directory without {CONFIG}, so it is no model",
            hint=f"name the directory that holds {CONFIG} and {WEIGHTS}",
            field="model",
            value=directory.name,
        )
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model's file; raises InvalidInput (field ``model``) for anything else."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InvalidInput(f"{path.name} has over {MAX_JSON_BYTES} bytes", field="model", value=path.name)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path.name} is not JSON: {error}", field="model", value=path.name) from error
    if not isinstance(content, dict):
        raise InvalidInput(f"{path.name} is not a JSON object", field="model", value=path.name)
    return content


def check(directory: Path) -> Header:
    """Every tensor's dtype and shape, once the directory has what a job needs.

    Raises ModelNotFound (no configuration), MissingWeights, UnsafeWeights (pickled ones only), CorruptWeights and
    MissingTokenizer.
    """
    config = local_config(directory)
    header: Header = {}
    for path in weight_files(directory):
        header |= read_header(path)
    if not _reads_images(config) and not has_tokenizer({entry.name for entry in directory.iterdir()}):
        raise MissingTokenizer(
            f"{directory.name} has no tokenizer: none of {', '.join(' + '.join(names) for names in TOKENIZERS)}",
            hint="save it beside the weights: tokenizer.save_pretrained(directory)",
            field="model",
        )
    return header


def weight_files(directory: Path) -> list[Path]:
    """model.safetensors, or the shards that its index names; raises MissingWeights or UnsafeWeights."""
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / WEIGHTS_INDEX).is_file():
        refuse_missing(directory.name, [entry.name for entry in directory.iterdir()])
    shards = read_json(directory / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(shards, Mapping) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CorruptWeights(f"{WEIGHTS_INDEX} has no weight_map from tensors to files", field="model")
    names = sorted(set(shards.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CorruptWeights(
                f"{WEIGHTS_INDEX} names {name!r}, which is no safetensors file beside it", field="model"
            )
        if not (directory / name).is_file():
            raise MissingWeights(
                f"{WEIGHTS_INDEX} names {name}, which isn't there", hint="fetch the model again", field="model"
            )
    return [directory / name for name in names]


def refuse_missing(model: str, names: list[str]) -> None:
    """Raise what fits a model whose files ``names`` have no safetensors weights."""
    pickled = sorted(name for name in names if name.endswith(PICKLED) and not name.startswith("training_args"))
    if pickled:
        raise UnsafeWeights(
            f"{model} has its weights only as {', '.join(pickled[:3])}; prunectl reads nothing but safetensors, "
            "because a pickle can run code",
            hint="where you trust it, convert it once: AutoModel….from_pretrained(…).save_pretrained(new directory)",
            field="model",
        )
    raise MissingWeights(f"{model} has no {WEIGHTS}", hint=f"copy {WEIGHTS} beside {CONFIG}", field="model")


def _reads_images(config: Mapping[str, Any]) -> bool:
    """Whether a known family reads images, which no tokenizer cuts; an unknown one is refused elsewhere."""
    family = FAMILIES.get(str(config.get("model_type")))
    return family is not None and family.input_name == "pixel_values"


def has_tokenizer(names: set[str]) -> bool:
    return any(names.issuperset(needed) for needed in TOKENIZERS)


def model_digest(directory: Path) -> str:
    """``sha256:…`` over names and contents of weights, configuration and tokenizer."""
    contents = {}
    for path in model_files(directory):
        with path.open("rb") as file:
            contents[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest_of(contents)


def stat_digest(directory: Path) -> str:
    """A digest that changes when a file of the model does, from sizes and times alone: cheap enough for each submit."""
    stats = {path.name: path.stat() for path in model_files(directory)}
    return digest_of({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()})
