"""Reload-and-compare: the saved checkpoint, opened by a process that has never seen the model, computes the same.

The process is a `Prover`, which the runner forked before it had loaded or computed anything; where that isn't safe, it is
``python -m prunectl.worker.reload REQUEST.json``, which prints one JSON object. The same fresh process measures peak
memory, since one that has already held a model can't say what a model needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunectl.errors import ReloadMismatch
from prunectl.worker.lifeline import die_with_parent, name_process, thread_count

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PROCESS_NAME = "prunectl-reload"
TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest output where that is above 1 (fp32)."""


@dataclass(frozen=True)
class Request:
    original: str
    checkpoint: str
    probe: str
    bench_batch: int
    bench_seq: int
    threads: int
    parent_pid: int
    memory_before_bytes: int | None
    """Of the unpruned model, where it is known; None: it is measured."""


@dataclass(frozen=True)
class Reloaded:
    max_abs_difference: float
    largest_output: float
    memory_before_bytes: int
    memory_after_bytes: int


class Prover:
    """A process that waits for what it is to prove, forked while its parent had loaded no model and computed nothing."""

    def __init__(self, pid: int, request: int, answer: int) -> None:
        self._pid, self._request, self._answer = pid, request, answer

    @classmethod
    def forked(cls, *, unneeded: Sequence[int] = ()) -> Prover | None:
        """Fork it now; None where this process has more than one thread, so that a fork could hang.

        ``unneeded``: descriptors that it closes. It ends with this process.
        """
        if thread_count() != 1:
            return None
        its_request, request = os.pipe()
        answer, its_answer = os.pipe()
        parent_pid = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                die_with_parent(parent_pid)
                name_process(PROCESS_NAME)
                for descriptor in (request, answer, *unneeded):
                    os.close(descriptor)
                with os.fdopen(its_request) as asked, os.fdopen(its_answer, "w") as said:
                    if text := asked.read():
                        said.write(json.dumps(asdict(_answer(Request(**json.loads(text))))))
                status = 0
            except BaseException:  # noqa: BLE001 - it ends the process, with its traceback in the job's log
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        os.close(its_request)
        os.close(its_answer)
        return cls(pid, request, answer)

    def prove(self, request: Request) -> tuple[int, str]:
        """Its exit status as `subprocess` gives it, and what it said. It answers once."""
        with os.fdopen(self._request, "w") as asking:
            try:
                json.dump(asdict(request), asking)
                asking.flush()
            except BrokenPipeError:  # it was killed meanwhile, as its status says
                pass
        with os.fdopen(self._answer) as answering:
            said = answering.read()
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1]), said


def reload_and_compare(
    *,
    prover: Prover | None = None,
    original: Path,
    checkpoint: Path,
    scratch: Path,
    inputs: dict[str, torch.Tensor],
    expected: torch.Tensor,
    bench_batch: int,
    bench_seq: int,
    threads: int,
    memory_before_bytes: int | None = None,
) -> Reloaded:
    """Compare what the checkpoint computes in a fresh process with ``expected``; raises ReloadMismatch.

    ``prover`` is that process; None: one is started.
    ``memory_before_bytes`` is the unpruned model's peak where another job has measured it; None: it is measured, too.

    ``expected``: output of the masked (and refitted) model for ``inputs`` (each [examples, tokens]), on any device.
    """
    from safetensors.torch import save_file

    probe = scratch / "probe.safetensors"
    tensors = {f"inputs.{name}": tensor.cpu().contiguous() for name, tensor in inputs.items()}
    save_file({**tensors, "expected": expected.detach().cpu().contiguous()}, probe)
    request = Request(
        str(original), str(checkpoint), str(probe), bench_batch, bench_seq, threads, os.getpid(), memory_before_bytes
    )
    if prover is not None:
        status, said = prover.prove(request)
    else:
        status, said = _started(request, scratch / "reload.json")
    if status != 0:
        raise ReloadMismatch(
            f"the saved checkpoint could not be loaded in a fresh process (exit {status})",
            hint="the job's log has the traceback",
        )
    reloaded = Reloaded(**json.loads(said.splitlines()[-1]))
    if not reloaded.max_abs_difference <= TOLERANCE * max(1.0, reloaded.largest_output):
        raise ReloadMismatch(
            f"the reloaded checkpoint differs from the masked model by {reloaded.max_abs_difference:.3g}",
            hint="this is a defect: please report the model's architecture and the recipe",
        )
    return reloaded


def _started(request: Request, file: Path) -> tuple[int, str]:
    """The exit status and the output of a process that is started for this ``request``, which ``file`` takes."""
    file.write_text(json.dumps(asdict(request)))
    done = subprocess.run(
        [sys.executable, "-m", "prunectl.worker.reload", str(file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def _answer(request: Request) -> Reloaded:
    import torch
    from safetensors.torch import load_file
    from transformers.utils.logging import disable_progress_bar

    from prunectl.checkpoints.load import load_original, load_pruned
    from prunectl.evaluation.memory import measure_loading
    from prunectl.zoo.fetch import local_config

    disable_progress_bar()

    def use(model: PreTrainedModel) -> None:
        _evaluate_once(model, request)

    # Memory first, each in a fork of this process: after it has computed anything itself, a fork would not be safe.
    original, pid = Path(request.original), os.getpid()

    def first(load: Callable[[], PreTrainedModel]) -> Callable[[], PreTrainedModel]:
        def load_in_the_fork() -> PreTrainedModel:
            die_with_parent(pid)
            return load()

        return load_in_the_fork

    before = request.memory_before_bytes
    if before is None:
        before = measure_loading(first(lambda: load_original(original, local_config(original))), use)
    after = measure_loading(first(lambda: load_pruned(request.checkpoint)), use)
    torch.set_num_threads(request.threads)
    tensors = load_file(request.probe)
    expected = tensors.pop("expected")
    model = load_pruned(request.checkpoint)
    with torch.inference_mode():
        got = model(**{name.removeprefix("inputs."): tensor for name, tensor in tensors.items()})[0]
    return Reloaded(
        max_abs_difference=float((got - expected).abs().max()),
        largest_output=float(expected.abs().max()),
        memory_before_bytes=before,
        memory_after_bytes=after,
    )


def _evaluate_once(model: PreTrainedModel, request: Request) -> None:
    import torch

    from prunectl.evaluation.inputs import made_up

    torch.set_num_threads(request.threads)
    with torch.inference_mode():
        model(**made_up(model, request.bench_batch, request.bench_seq))


def main(arguments: list[str]) -> int:
    read: dict[str, Any] = json.loads(Path(arguments[0]).read_text())
    request = Request(**read)
    die_with_parent(request.parent_pid)  # before torch is imported: that takes seconds
    sys.stdout.write(json.dumps(asdict(_answer(request))) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
