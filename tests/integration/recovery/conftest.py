from __future__ import annotations

from support.training import classifier, xlmr_mlm

__all__ = ["classifier", "xlmr_mlm"]
