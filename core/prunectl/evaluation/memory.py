"""Memory: the peak resident memory of an evaluation above what was resident before the model was loaded.

Measured in a forked child, so that each model starts from the same floor and nothing that another left behind counts.
A fork of a process that has already run torch may hang in its thread pools: fork from a process that has only imported
it. `peaks` sees to that with a fresh process that forks once a model.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from prunectl.errors import OutOfMemory, PrunectlError

Model = TypeVar("Model")
_FAILED = 3


@dataclass(frozen=True, slots=True)
class Request:
    """A model to load in a fresh process, and the random tokens ``[batch, seq]`` of the evaluation step to run on it.

    ``loader`` names a function of one path, as ``package.module:function``.
    """

    loader: str
    path: str
    batch: int
    seq: int
    threads: int = 1


def peaks(requests: Sequence[Request], *, timeout_seconds: float = 600.0) -> list[int]:
    """Peak bytes of each request, one after the other, each in its own fork of one fresh process.

    Raises OutOfMemory where the system killed a child, PrunectlError where loading or running failed, and
    ``subprocess.TimeoutExpired``.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prunectl.evaluation.memory"],
        input=json.dumps([asdict(request) for request in requests]),
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        check=False,
    )
    if done.returncode == -9 or (done.returncode == _FAILED and "killed" in done.stdout):
        raise OutOfMemory("the system ended the memory measurement for want of memory", hint="use a smaller batch")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PrunectlError(f"the memory measurement failed: {last}")
    return [int(value) for value in json.loads(done.stdout)]


def measure_loading(load: Callable[[], Model], use: Callable[[Model], None]) -> int:
    """Peak bytes while ``load`` makes a model and ``use`` runs it, above what was resident before. See `peak_of`."""
    return peak_of(lambda: use(load()), rehearse=True)


def peak_of(function: Callable[[], None], *, rehearse: bool = False) -> int:
    """Run ``function`` in a forked child; its peak resident bytes above what was resident when it began.

    ``rehearse`` runs it once before: what a first run imports and sets up (model code, thread pools, well over 100 MB)
    would otherwise count as the model's. Raises OutOfMemory where the system killed the child, RuntimeError where
    ``function`` failed (its traceback is on stderr).
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            os.write(writing, str(_peak_here(function, rehearse)).encode())
            status = 0
        except BaseException:  # noqa: BLE001  (a forked child must not return into its parent's stack)
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -9:
        raise OutOfMemory("the system killed the process for want of memory", hint="use a smaller batch or model")
    if code != 0 or not answer:
        raise RuntimeError(f"the measured function failed (exit {code})")
    return int(answer)


def _peak_here(function: Callable[[], None], rehearse: bool) -> int:
    if rehearse:
        function()
        gc.collect()
        _return_freed_memory()
    before = _status("VmRSS")
    if before is not None and _reset_peak():
        function()
        return max(0, (_status("VmHWM") or 0) - before)
    return _polled(function)


def _reset_peak() -> bool:
    """Set this process's high-water mark back to what is resident now; False where the system won't."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _return_freed_memory() -> None:
    """Ask glibc to give freed memory back, or the measured run would reuse it unseen; other libraries do so alone."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _status(name: str) -> int | None:
    """Bytes of a line of /proc/self/status."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _polled(function: Callable[[], None]) -> int:
    """The fallback: look every 5 ms. It misses shorter peaks."""
    import psutil

    process = psutil.Process()
    before = peak = process.memory_info().rss
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        ended.set()
        watcher.join()
    return max(0, max(peak, process.memory_info().rss) - before)


def _serve(requests: Sequence[Request]) -> list[int]:
    """What the fresh process does: import everything first, so that no library counts as a model's memory."""
    import torch
    import transformers  # noqa: F401

    def measured(request: Request) -> int:
        module, _, name = request.loader.partition(":")
        load: Callable[[Path], Any] = getattr(importlib.import_module(module), name)

        def use(model: Any) -> None:
            torch.set_num_threads(request.threads)
            generator = torch.Generator().manual_seed(0)
            ids = torch.randint(0, model.config.vocab_size, (request.batch, request.seq), generator=generator)
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=torch.ones_like(ids))

        return measure_loading(lambda: load(Path(request.path)), use)

    return [measured(request) for request in requests]


def _main() -> int:
    try:
        answer = _serve([Request(**request) for request in json.load(sys.stdin)])
    except OutOfMemory:
        sys.stdout.write("killed")
        return _FAILED
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
