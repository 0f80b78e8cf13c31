"""Preloading: what a template of runners has ready for every job, besides what its modules import anyway.

All of it is code and tables of installed packages, the same for every job; none of it computes with torch, asks for a GPU
or starts a thread.
"""

from __future__ import annotations

import importlib

# What transformers loads with the first class of any family.
_OF_EVERY_FAMILY = (
    "transformers.generation.utils",
    "transformers.masking_utils",
    "transformers.modeling_layers",
    "transformers.modeling_outputs",
    "transformers.processing_utils",
    "transformers.utils.output_capturing",
)


def preload() -> None:
    """Import the pipelines, and build what they would otherwise build once a job. Raises ImportError."""
    for module in (
        "prunectl.worker.pipeline",
        "prunectl.worker.picturing",
        "prunectl.worker.reload",
        *_OF_EVERY_FAMILY,
    ):
        importlib.import_module(module)
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from prunectl.reporting.rendering import compile_templates
    from prunectl.worker.provenance import versions

    get_checkpoint_conversion_mapping("bert")  # of any family: the table of all is built with the first
    compile_templates()
    versions()
