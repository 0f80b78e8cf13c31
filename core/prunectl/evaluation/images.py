"""Images as a model takes them: pictures of the data, or, where none are given, noise that a name alone determines.

On noise a model of images is measured by its likeness to the unpruned model; what it gets right, noise can't tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoImageProcessor, ViTImageProcessorPil

from prunectl.errors import InvalidInput
from prunectl.evaluation import pictures
from prunectl.evaluation.data import Example
from prunectl.evaluation.inputs import CHANNELS

COARSE = 4
"""Cells of the coarse noise along a side: smooth patches of colour vary more from image to image than pixels do."""


def random_images(count: int) -> list[Example]:
    """Names of ``count`` images, always the same."""
    return [Example(f"random image {number}") for number in range(count)]


def pixels(name: str, size: tuple[int, int]) -> Tensor:
    """The image of this name, ``[channels, height, width]``, normalised as processors leave images: mean about 0, one
    half of its variance in coarse patches of colour and one half in single pixels.
    """
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
    height, width = size
    coarse = draw.standard_normal((CHANNELS, COARSE, COARSE), dtype=np.float32)
    spread = coarse.repeat(-(-height // COARSE), axis=1).repeat(-(-width // COARSE), axis=2)[:, :height, :width]
    fine = draw.standard_normal((CHANNELS, height, width), dtype=np.float32)
    return torch.from_numpy(np.sqrt(np.float32(0.5)) * (spread + fine))


@dataclass(frozen=True)
class Prepared:
    """A picture and the checkpoint's image processor; its pixels are made when they are needed, not kept."""

    name: str
    content: bytes
    processor: Any
    size: tuple[int, int]

    def pixels(self) -> Tensor:
        """``[channels, height, width]``.

        Raises InvalidData (field ``data``) for a picture that can't be decoded, InvalidInput (field ``model``) where
        the checkpoint's processor makes another size than its model takes.
        """
        image = pictures.decoded(self.name, self.content, field="data")
        found: Tensor = self.processor(image, return_tensors="pt")["pixel_values"][0]
        if tuple(found.shape) != (CHANNELS, *self.size):
            raise InvalidInput(
                f"preprocessor_config.json makes images of {list(found.shape)}, and config.json says that the model "
                f"takes {[CHANNELS, *self.size]}",
                hint="mend the checkpoint's preprocessor_config.json, or remove it",
                field="model",
            )
        return found


def prepared(examples: Sequence[Example], model: Path, size: tuple[int, int]) -> list[Example]:
    """The examples with their pictures ready for the model in the directory ``model``, by its own
    preprocessor_config.json; where it has none, scaled to ``size`` (height, width) and from -1 to 1, as ViT is trained.

    Raises InvalidInput (field ``model``) for a preprocessor_config.json that can't be used.
    """
    if not any(isinstance(example.image, bytes) for example in examples):
        return list(examples)
    processor = _processor(model, size)
    return [
        replace(example, image=Prepared(example.text, example.image, processor, size))
        if isinstance(example.image, bytes)
        else example
        for example in examples
    ]


def pixels_of(example: Example, size: tuple[int, int]) -> Tensor | Prepared:
    """What a row holds of an example: its picture, to be decoded when its batch is made, or its noise."""
    return example.image if isinstance(example.image, Prepared) else pixels(example.text, size)


def tensor_of(found: Tensor | Prepared) -> Tensor:
    return found.pixels() if isinstance(found, Prepared) else found


def _processor(model: Path, size: tuple[int, int]) -> Any:
    if not (model / "preprocessor_config.json").is_file():
        return ViTImageProcessorPil(size={"height": size[0], "width": size[1]})
    try:
        return AutoImageProcessor.from_pretrained(model, local_files_only=True, backend="pil")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"preprocessor_config.json can't be used: {error}", field="model") from error
