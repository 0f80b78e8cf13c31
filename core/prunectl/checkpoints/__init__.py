"""What a result looks like on disk: saved whole, loaded in any process, proven equal."""

from typing import Any


def load_pruned(path: Any, **kwargs: Any) -> Any:
    """Load a pruned checkpoint directory; see `prunectl.checkpoints.load.load_pruned`."""
    from prunectl.checkpoints.load import load_pruned as load

    return load(path, **kwargs)


__all__ = ["load_pruned"]
