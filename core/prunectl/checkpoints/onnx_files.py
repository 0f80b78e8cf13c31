"""ONNX files of a pruned model: exported by torch, quantized and run by onnxruntime.

``onnx/model.onnx`` computes what the torch model computes, whatever heads and neurons each layer keeps, for any number of
texts and tokens; ``onnx/model_quantized.onnx`` holds its matrices and embeddings as int8 and quantizes activations as it
runs (dynamic quantization) or by scales that it holds, too (static quantization). Both are single files that onnxruntime
alone runs. Needs the extra ``onnx``.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from prunectl.errors import EngineUnavailable, InvalidData, UnsupportedArchitecture
from prunectl.evaluation.inputs import made_up

INSTALL = "pip install 'prunectl[worker,onnx]'"
MODEL, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"
_MAX_BYTES = 2**31 - 2**24
"""What a single file, one protocol buffer, can hold."""


class OnnxModel:
    """An exported model that onnxruntime runs, called as the torch model it came from.

    Gives ``last_hidden_state`` ``[batch, tokens, hidden]`` for a bare encoder, else ``logits``.
    """

    main_input_name = "input_ids"
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, path: Path, config: Any, *, threads: int) -> None:
        runtime: Any = _library("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        self.config = config
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [given.name for given in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name

    @property
    def base_model(self) -> OnnxModel:
        return self

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> ModelOutput:
        """``input_ids`` and the others are ``[batch, tokens]``; what isn't given is no padding and the first text."""
        [found] = self._session.run([self._output], _fed(self._inputs, input_ids, attention_mask, token_type_ids))
        return ModelOutput({self._output: torch.from_numpy(found)})

    __call__ = forward


class _FirstOutput(nn.Module):
    """What is exported: the model's first output alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)[0]
        return found


def export(model: PreTrainedModel, path: Path, *, token_types: bool) -> None:
    """Write ``model``, an encoder in evaluation mode on the CPU, to ``path``.

    ``token_types`` says whether its tokenizer gives token_type_ids. Raises EngineUnavailable without the extra,
    UnsupportedArchitecture for weights that a single file can't hold.
    """
    for name in ("onnx", "onnxscript"):
        _library(name)
    size = sum(parameter.numel() * 4 for parameter in model.parameters())
    if size > _MAX_BYTES:
        raise UnsupportedArchitecture(f"an ONNX file holds 2 GB; these weights have {size} bytes", field="export")
    example = made_up(model, 2, 8)
    if token_types:
        example["token_type_ids"] = torch.zeros_like(example["input_ids"])
    free = dict.fromkeys(range(2), torch.export.Dim.DYNAMIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            _FirstOutput(model).eval(),
            (),
            kwargs=example,
            dynamo=True,
            input_names=list(example),
            output_names=["last_hidden_state" if model.get_output_embeddings() is None and _bare(model) else "logits"],
            dynamic_shapes={name: dict(free) for name in example},
            verbose=False,
        )
        program.save(str(path), external_data=False)


def runtime() -> str:
    """What runs the files, with its version. Raises EngineUnavailable without the extra."""
    return f"onnxruntime {_library('onnxruntime').__version__}"


def quantize(path: Path, target: Path) -> None:
    """Write the model in ``path`` with int8 matrices and embeddings to ``target``; one scale an output channel."""
    quantization: Any = _library("onnxruntime.quantization")
    graph = _library("onnx").load(str(path), load_external_data=False).graph
    empty = _without_entries(graph)
    with _quiet():
        quantization.quantize_dynamic(
            str(path),
            str(target),
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=[node.name for node in graph.node if empty & set(node.input)],
            extra_options={"MatMulConstBOnly": True},
        )


def quantize_static(path: Path, target: Path, texts: Sequence[Mapping[str, Tensor]]) -> None:
    """Write the model in ``path`` with int8 matrices and embeddings to ``target``; one scale an output channel, and one
    of uint8 for what each matrix multiplies, from its least to its greatest value over ``texts``.

    ``texts`` are inputs ``[1, tokens]`` of single texts without padding, whose values would count. Raises InvalidData
    where no text has a token, EngineUnavailable without the extra.
    """
    quantization: Any = _library("onnxruntime.quantization")
    onnx: Any = _library("onnx")
    texts = [text for text in texts if text["input_ids"].numel()]
    if not texts:
        raise InvalidData(
            "static quantization takes scales from calibration texts, and there are none", field="quantize"
        )

    class Reader(quantization.CalibrationDataReader):
        def __init__(self, names: Sequence[str]) -> None:
            self._left = (_fed(names, **text) for text in texts)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

    with _quiet(), tempfile.TemporaryDirectory(dir=target.parent) as folder:
        shaped = Path(folder, "shaped.onnx")
        quantization.quant_pre_process(str(path), str(shaped), skip_optimization=True, skip_symbolic_shape=True)
        graph = onnx.load(str(shaped), load_external_data=False).graph
        held = {tensor.name for tensor in graph.initializer}
        empty = _without_entries(graph)
        quantization.quantize_static(
            str(shaped),
            str(target),
            Reader([given.name for given in graph.input]),
            quant_format=quantization.QuantFormat.QDQ,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=[
                node.name
                for node in graph.node
                if empty & set(node.input) or (node.op_type == "MatMul" and not held & set(node.input))
            ],
            # What comes out of a matrix is added to a bias in float32: rounding it first only loses digits.
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )


def _without_entries(graph: Any) -> set[str]:
    """Matrices of layers that keep no head or no neuron: the quantizer can't take a scale of them."""
    return {held.name for held in graph.initializer if 0 in held.dims}


def _fed(
    names: Sequence[str], input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
) -> dict[str, Any]:
    """Inputs called ``names`` as onnxruntime takes them; what isn't given is no padding and the first text."""
    whole = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids) if attention_mask is None else attention_mask,
        "token_type_ids": torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids,
    }
    return {name: whole[name].numpy() for name in names}


def _bare(model: PreTrainedModel) -> bool:
    return model.base_model is model


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineUnavailable(
            f"{name.partition('.')[0]} can't be imported here ({error})", hint=INSTALL, field="export", value="onnx"
        ) from error


class _quiet:
    """The exporter and the quantizer advise their authors; a job's log has no use for it."""

    def __enter__(self) -> None:
        self._loggers: Mapping[logging.Logger, int] = {
            found: found.level for found in map(logging.getLogger, ("torch.onnx", "onnxscript", "onnx_ir", "root"))
        }
        for found in self._loggers:
            found.setLevel(logging.ERROR)
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *error: Any) -> None:
        self._warnings.__exit__(*error)
        for found, level in self._loggers.items():
            found.setLevel(level)
