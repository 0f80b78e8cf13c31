"""Bytes to shared storage, published whole."""

from prunectl.storage.layout import log_name, run_name
from prunectl.storage.locations import open_storage

__all__ = ["log_name", "open_storage", "run_name"]
