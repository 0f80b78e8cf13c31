"""The model card: README.md with the Hub's YAML front matter and the measured table. No torch."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from prunectl.evaluation.tasks import kind_of
from prunectl.schemas import Measure, Result
from prunectl.zoo.datasets import HubData

_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?$")
_AUTO_CLASSES = {
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "ForPreTraining": "AutoModelForPreTraining",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "MTModel": "AutoModelForSeq2SeqLM",
    "ForImageClassification": "AutoModelForImageClassification",
}
_UNITS = {"_seconds": "s", "_bytes": "bytes", "_per_second": "/s"}


def render(manifest: dict[str, Any], result: Result, model_name: str, architecture: str, *, plain: bool = False) -> str:
    """README.md of a checkpoint. ``base_model`` is left out where the model was a path, which the Hub would refuse.

    ``plain``: the directory loads without a modelling file.
    """
    title = model_name.rstrip("/").rpartition("/")[2] or model_name
    results = _eval_results(manifest, result)
    front = ModelCardData(
        model_name=f"{title}, pruned" if results else None,
        eval_results=results or None,
        base_model=model_name.partition("@")[0] if _HUB_NAME.match(model_name) else None,
        library_name="transformers",
        tags=["prunectl", "pruned", "model-compression"],
        pipeline_tag=result.conditions.get("task"),
    )
    body = _BODY.format(
        title=title,
        model=model_name,
        removed=_removed(result),
        recipe=", ".join(f"{name}={value}" for name, value in manifest["recipe"].items()),
        digest=result.model_digest,
        table="\n".join(_row(name, measure) for name, measure in result.metrics.items()),
        conditions="\n".join(f"- {name}: {_text(value)}" for name, value in result.conditions.items()),
        auto=_auto_class(architecture),
        without=(_PLAIN if plain else _REMOTE).format(auto=_auto_class(architecture)),
        ledger=_ledger(result),
    )
    return f"---\n{front.to_yaml()}\n---\n\n{body}"


_BODY = """# {title}, pruned

[prunectl](https://pypi.org/project/prunectl/) removed {removed} from `{model}`.

- recipe: `{recipe}`
- digest of the original: `{digest}`

## Measured

| metric | before | after | standard error | n |
|---|---|---|---|---|
{table}

{conditions}

{ledger}## How to load

```python
from prunectl.checkpoints import load_pruned

model = load_pruned("path/to/this/directory")
```

{without}

`prunectl.json` lists what stayed and what went, by the original model's names and numbers; `sha256sum -c SHA256SUMS`
checks the files.
"""
_PLAIN = """Without prunectl, as any other model:

```python
from transformers import {auto}

model = {auto}.from_pretrained("path/to/this/directory")
```"""
_REMOTE = """Without prunectl, through the small `modeling_prunectl.py` that lies beside the weights:

```python
from transformers import {auto}

model = {auto}.from_pretrained("path/to/this/directory", trust_remote_code=True)
```"""
_LEDGER = """## Step by step

| after | parameters | not zero | bytes | {metric} | standard error | n |
|---|---|---|---|---|---|---|
{rows}

"""


def _eval_results(manifest: dict[str, Any], result: Result) -> list[EvalResult]:
    """What was measured on the labels of a data set of the Hub, for the card's ``model-index``.

    The Hub's newer ``.eval_results`` isn't written: it is for data sets that are registered as benchmarks, whose
    leaderboards would get a value that was measured in another way, as a rule on a part of the data.
    """
    source = HubData.parse(str((manifest.get("evaluation") or {}).get("data") or ""))
    task = result.conditions["task"]
    # What scores are taken from says nothing of pairs, and a language model's text is what is right about it.
    if source is None or (result.labels != "data" and task not in ("feature-extraction", "text-generation")):
        return []
    return [
        EvalResult(
            task_type=task,
            dataset_type=source.repo_id,
            dataset_name=source.repo_id,
            dataset_split=source.split,
            dataset_revision=source.revision,
            metric_type=metric,
            metric_name=f"{metric}, n = {measure.n}, standard error {_number(measure.stderr)}",
            metric_value=measure.after,
            metric_args=arguments,
        )
        for name, (metric, arguments) in kind_of(task).hub_metrics.items()
        if (measure := result.metrics.get(name)) is not None and measure.after is not None
    ]


def _auto_class(architecture: str) -> str:
    for suffix, auto in _AUTO_CLASSES.items():
        if architecture.endswith(suffix):
            return auto
    return "AutoModel"


def _removed(result: Result) -> str:
    structure = result.structure
    layers = structure.layers
    heads, neurons = sum(b.heads_total for b in layers), sum(b.ffn_total for b in layers)
    heads_gone = heads - sum(len(b.heads_kept) for b in layers)
    neurons_gone = neurons - sum(b.ffn_kept for b in layers)
    parts = []
    if structure.vocabulary_kept is not None and structure.vocabulary_total is not None:
        gone = structure.vocabulary_total - structure.vocabulary_kept
        parts.append(f"{gone} of {structure.vocabulary_total} vocabulary entries")
    if structure.removed_layers:
        parts.append(f"the layers {', '.join(map(str, structure.removed_layers))}")
    if heads_gone:
        parts.append(f"{heads_gone} of {heads} attention heads")
    if neurons_gone:
        parts.append(f"{neurons_gone} of {neurons} feed-forward neurons")
    if structure.weights_zeroed:
        parts.append(f"{structure.weights_zeroed} of {structure.weights_total} weights (set to zero)")
    return " and ".join(parts) or "nothing"


def _ledger(result: Result) -> str:
    if len(result.ledger) < 3:  # before and after stand in the table above
        return ""
    rows = [
        f"| {row.step} | "
        + " | ".join(
            _number(value)
            for value in (row.parameters, row.nonzero_parameters, row.model_bytes, row.value, row.stderr, row.n)
        )
        + " |"
        for row in result.ledger
    ]
    return _LEDGER.format(metric=result.ledger[0].metric, rows="\n".join(rows))


def _row(name: str, measure: Measure) -> str:
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")
    label = f"{name} ({unit})" if unit else name
    cells = (_number(measure.before), _number(measure.after), _number(measure.stderr), _number(measure.n))
    return f"| {label} | " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{int(value):,}" if float(value).is_integer() and abs(value) >= 1000 else f"{value:.6g}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)
