"""Images where no image data is read: noise that a name and nothing else determines.

A model of images is measured by its likeness to the unpruned model on them; what it gets right, noise can't tell.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

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
