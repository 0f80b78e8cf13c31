"""Whether files and config.json of a checkpoint fit the model that they claim to be, before anything is allocated."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from prunectl.checkpoints.headers import Sizes
from prunectl.checkpoints.manifest import CONFIG_KEY
from prunectl.errors import CorruptWeights
from prunectl.pruning.architectures import BlockShape, family_of, shape_of


def check_tensors(model: PreTrainedModel, sizes: Sizes, *, strict: bool) -> None:
    """Compare what the files hold with what the class, built on the meta device, expects. Raises CorruptWeights."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    renamings = [change for change in get_model_conversion_mapping(model) if isinstance(change, WeightRenaming)]
    held = {_modern(name, model.base_model_prefix, expected, renamings): size for name, size in sizes.items()}
    wrong = [
        f"{name} is {list(held[name])}, not {list(size)}"
        for name, size in expected.items()
        if held.get(name, size) != size
    ]
    if wrong:
        raise CorruptWeights(f"{len(wrong)} tensors have the wrong shape: {'; '.join(wrong[:3])}")
    ties: dict[str, set[str]] = {}
    for source, target in model.all_tied_weights_keys.items():
        ties.setdefault(target, {target}).add(source)
    tied = {name: group for group in ties.values() for name in group}
    missing = [name for name in expected if name not in held and not tied.get(name, set()) & held.keys()]
    missing = [name for name in missing if not _matches(name, model._keys_to_ignore_on_load_missing)]
    if not strict:
        # A bare encoder is often saved without the pooler that its class has; nothing that is measured reads it.
        missing = [name for name in missing if "pooler." not in name or hasattr(model, model.base_model_prefix)]
    if missing:
        raise CorruptWeights(
            f"{len(missing)} tensors are missing: {', '.join(missing[:3])}", hint="download the model again"
        )
    layers = tuple(stack.path + "." for stack in family_of(model.config.to_dict()).stacks)
    surplus = [name for name in held if name not in expected and (strict or any(path in name for path in layers))]
    surplus = [name for name in surplus if not _matches(name, model._keys_to_ignore_on_load_unexpected)]
    if surplus:
        raise CorruptWeights(f"{len(surplus)} tensors fit nowhere in the model: {', '.join(surplus[:3])}")


def _modern(name: str, prefix: str, expected: Mapping[str, Any], renamings: list[WeightRenaming]) -> str:
    """The name that a tensor gets when it is loaded: old names renamed, the base model's prefix put on or taken off."""
    if name not in expected:
        for renaming in renamings:
            name = renaming.rename_source_key(name)[0]
    candidates = (name, name.removeprefix(prefix + "."), f"{prefix}.{name}")
    return next((candidate for candidate in candidates if candidate in expected), name)


def _matches(name: str, patterns: Collection[str] | None) -> bool:
    return any(re.search(pattern, name) for pattern in patterns or ())


def check_shapes(document: Mapping[str, Any]) -> None:
    """The stored shapes name only what the family's table names, in sizes cutting can give; else CorruptWeights."""
    shapes = document[CONFIG_KEY]
    linears, named, empty, biased = (shapes.get(key, {}) for key in ("linears", "attributes", "empty", "biased"))
    if not all(isinstance(part, dict) for part in (linears, named, empty, biased)) or "linears" not in shapes:
        raise CorruptWeights(f"{CONFIG_KEY!r} in config.json is incomplete")
    blocks = {f"{block.path}.{block.entry.module}": block for block in shape_of(document).blocks}
    sizes = {path: size for block in blocks.values() for path, size in _sizes(block, shape_of(document).hidden).items()}
    for path, size in linears.items():
        if path not in sizes or not _cut_of(size, sizes[path]):
            raise CorruptWeights(f"config.json gives {path!r} the shape {size!r}, which the original can't be cut to")
    for path, values in named.items():
        if path not in blocks or not _attributes_of(values, blocks[path]):
            raise CorruptWeights(f"config.json sets {values!r} on {path!r}, which is no attention of this model")
    for path, output in empty.items():
        if path not in blocks or output != blocks[path].entry.inner_output:
            raise CorruptWeights(f"config.json calls {path!r} an empty attention, which this model doesn't have")
    for path, heads in biased.items():
        if path not in blocks or not blocks[path].entry.shared_bias or not _heads_of(heads, blocks[path]):
            raise CorruptWeights(f"config.json keeps the heads {heads!r} of {path!r}, which this model doesn't have")


def _sizes(block: BlockShape, hidden: int) -> dict[str, tuple[int, int]]:
    """The whole shape of each matrix of a block, as it is stored."""
    entry, forward = block.entry, block.layers.feed_forward
    width = block.heads_total * block.head_dim
    if entry.query == entry.key:  # Conv1D, which stores inputs first
        found = {entry.query: (hidden, 3 * width), entry.output: (width, hidden)}
        matrices = dict.fromkeys(forward.first, (hidden, block.ffn_total)) | {forward.second: (block.ffn_total, hidden)}
    else:
        found = {entry.query: (width, hidden), entry.output: (hidden, width)}
        found |= dict.fromkeys((entry.key, entry.value), (width // block.group, hidden))
        found |= dict.fromkeys(entry.position_projections, (width, hidden))
        matrices = dict.fromkeys(forward.first, (block.ffn_total, hidden)) | {forward.second: (hidden, block.ffn_total)}
    return {f"{block.path}.{path}": size for path, size in (found | (matrices if block.ffn_total else {})).items()}


def _attributes_of(values: Any, block: BlockShape) -> bool:
    names = {name for name in (block.entry.heads_attribute, block.entry.width_attribute) if name is not None}
    most = block.heads_total * block.head_dim
    return (
        isinstance(values, dict)
        and set(values) == names
        and all(type(value) is int and 0 <= value <= most for value in values.values())
    )


def _heads_of(heads: Any, block: BlockShape) -> bool:
    good = isinstance(heads, list) and all(type(head) is int and 0 <= head < block.heads_total for head in heads)
    return good and heads == sorted(set(heads))


def _cut_of(size: Any, whole: tuple[int, int]) -> bool:
    if not isinstance(size, list) or len(size) != 2 or not all(type(part) is int for part in size):
        return False
    return all(0 <= part <= most for part, most in zip(size, whole, strict=True))
