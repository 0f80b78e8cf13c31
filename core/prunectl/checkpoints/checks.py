"""Whether files and config.json of a checkpoint fit the model that they claim to be, before anything is allocated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel

from prunectl.checkpoints.headers import Sizes
from prunectl.checkpoints.manifest import CONFIG_KEY
from prunectl.errors import CorruptWeights
from prunectl.pruning.architectures import family_of, shape_of


def check_tensors(model: PreTrainedModel, sizes: Sizes, *, strict: bool) -> None:
    """Compare what the files hold with what the class, built on the meta device, expects. Raises CorruptWeights."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    held = {_modern(name, model.base_model_prefix, expected): size for name, size in sizes.items()}
    wrong = [
        f"{name} is {list(held[name])}, not {list(size)}"
        for name, size in expected.items()
        if held.get(name, size) != size
    ]
    if wrong:
        raise CorruptWeights(f"{len(wrong)} tensors have the wrong shape: {'; '.join(wrong[:3])}")
    ties = {**model.all_tied_weights_keys, **{source: target for target, source in model.all_tied_weights_keys.items()}}
    missing = [name for name in expected if name not in held and ties.get(name) not in held]
    if not strict:
        # A bare encoder is often saved without the pooler that its class has; nothing that is measured reads it.
        missing = [name for name in missing if "pooler." not in name or hasattr(model, model.base_model_prefix)]
    if missing:
        raise CorruptWeights(
            f"{len(missing)} tensors are missing: {', '.join(missing[:3])}", hint="download the model again"
        )
    layers = tuple(stack.path + "." for stack in family_of(model.config.to_dict()).stacks)
    surplus = [name for name in held if name not in expected and (strict or any(path in name for path in layers))]
    if surplus:
        raise CorruptWeights(f"{len(surplus)} tensors fit nowhere in the model: {', '.join(surplus[:3])}")


def _modern(name: str, prefix: str, expected: Mapping[str, Any]) -> str:
    """The name that a tensor gets when it is loaded: old norms renamed, the base model's prefix put on or taken off."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    candidates = (name, name.removeprefix(prefix + "."), f"{prefix}.{name}")
    return next((candidate for candidate in candidates if candidate in expected), name)


def check_shapes(document: Mapping[str, Any]) -> None:
    """The stored shapes name only what the family's table names, in sizes cutting can give; else CorruptWeights."""
    shape, shapes = shape_of(document), document[CONFIG_KEY]
    sizes: dict[str, tuple[int, int]] = {}
    attributes: dict[str, set[str]] = {}
    inner: dict[str, str | None] = {}
    for stack in family_of(document).stacks:
        for index in range(shape.layers):
            at = f"{stack.path}.{index}."
            for attention in stack.attentions:
                attributes[at + attention.module] = {attention.heads_attribute, attention.width_attribute}
                inner[at + attention.module] = attention.inner_output
                for path in (attention.query, attention.key, attention.value, attention.output):
                    sizes[at + path] = (shape.hidden, shape.hidden)
            for path in stack.feed_forward.first:
                sizes[at + path] = (shape.ffn, shape.hidden)
            sizes[at + stack.feed_forward.second] = (shape.hidden, shape.ffn)
    linears, named, empty = (shapes.get(key) for key in ("linears", "attributes", "empty"))
    if not (isinstance(linears, dict) and isinstance(named, dict) and isinstance(empty, dict)):
        raise CorruptWeights(f"{CONFIG_KEY!r} in config.json is incomplete")
    for path, size in linears.items():
        if path not in sizes or not _cut_of(size, sizes[path]):
            raise CorruptWeights(f"config.json gives {path!r} the shape {size!r}, which the original can't be cut to")
    for path, values in named.items():
        good = isinstance(values, dict) and attributes.get(path) == set(values)
        if not good or not all(isinstance(value, int) and 0 <= value <= shape.hidden for value in values.values()):
            raise CorruptWeights(f"config.json sets {values!r} on {path!r}, which is no attention of this model")
    for path, output in empty.items():
        if path not in inner or output != inner[path]:
            raise CorruptWeights(f"config.json calls {path!r} an empty attention, which this model doesn't have")


def _cut_of(size: Any, whole: tuple[int, int]) -> bool:
    if not isinstance(size, list) or len(size) != 2 or not all(type(part) is int for part in size):
        return False
    return all(0 <= part <= most for part, most in zip(size, whole, strict=True))
