"""The tensors of a model directory, from the headers of its safetensors files: no weight is read."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from prunectl.checkpoints import manifest
from prunectl.checkpoints.manifest import WEIGHTS
from prunectl.errors import CorruptWeights, MissingWeights, UnsafeWeights

INDEX = "model.safetensors.index.json"
Sizes = dict[str, tuple[int, ...]]
"""Tensor name -> shape."""

FLOATS = {"F64", "F32", "F16", "BF16"}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def read_sizes(directory: Path) -> Sizes:
    """Every tensor of the directory's safetensors file or shards.

    Raises MissingWeights, UnsafeWeights (only pickles), and CorruptWeights for a file cut short or one of integers.
    """
    sizes: Sizes = {}
    for file in _weight_files(directory):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (not a mapping)
                    view = opened.get_slice(name)
                    if name in sizes:
                        raise CorruptWeights(f"{name} is in more than one file")
                    if view.get_dtype() not in FLOATS and not name.endswith(("position_ids", "token_type_ids")):
                        raise CorruptWeights(f"{name} has type {view.get_dtype()}; weights are floating point numbers")
                    sizes[name] = tuple(view.get_shape())
        except SafetensorError as error:
            raise CorruptWeights(
                f"{file.name} is not a whole safetensors file: {error}", hint="download or copy the file again"
            ) from error
    return sizes


def _weight_files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        shards = manifest.read_json(directory / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise CorruptWeights(f"{INDEX} has no weight_map")
        files = [manifest.inside(directory, name) for name in sorted(set(shards.values()))]
        for file in files:
            if not file.is_file():
                raise MissingWeights(f"{INDEX} names {file.name}, which is not there", hint="download the model again")
        return files
    pickles = sorted(file.name for pattern in _PICKLES for file in directory.glob(pattern))
    if pickles:
        raise UnsafeWeights(
            f"the weights are pickled ({', '.join(pickles[:3])}), and unpickling runs code; only safetensors are read",
            hint="where you trust the source, AutoModel.from_pretrained(path).save_pretrained(new_path) converts them",
        )
    raise MissingWeights(
        f"{directory} has no {WEIGHTS}", hint="a model directory holds config.json and model.safetensors"
    )
