"""Kombu's file transport, with messages that appear whole and are taken by one reader.

Kombu writes a message under its final name, so a reader can see an empty one, and moves what it has read into a second
folder that grows. Here a message is renamed into place when it is complete, and whoever unlinks it has it.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from queue import Empty
from time import time_ns
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import filesystem
from kombu.utils.json import dumps, loads


class Channel(filesystem.Channel):
    """A channel whose queues are the files ``<time>_<uuid>.<queue>.msg`` of one folder."""

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]  # two bases disagree
        folder = Path(self.data_folder_out)
        # The wall clock, unlike the monotonic one, goes on over a reboot. Order is a courtesy: rings are all alike.
        name = f"{time_ns():020d}_{uuid.uuid4().hex}"
        partial = folder / f"{name}.partial"
        try:
            try:
                partial.write_bytes(dumps(payload).encode())
                partial.rename(folder / f"{name}.{queue}.msg")
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            raise ChannelError(f"can't write a message into {folder}: {error.strerror}") from error

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for path in sorted(Path(self.data_folder_in).glob(f"*.{queue}.msg")):
            try:
                payload = path.read_bytes()
                path.unlink()
            except FileNotFoundError:
                continue  # another reader was faster
            return loads(payload.decode())
        raise Empty


class Transport(filesystem.Transport):
    Channel = Channel
