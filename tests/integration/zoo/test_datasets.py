"""Data sets from the Hub, against a local server that speaks its protocol, and a job that evaluates on one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from prunectl.errors import HubForbidden, HubUnavailable, InvalidData
from prunectl.evaluation.data import builtin_python_docs
from prunectl.zoo import datasets
from prunectl.zoo.datasets import HubData
from prunectl.zoo.hub import HubSettings
from support import pipeline
from support.hub_server import HubServer
from support.models import build

TEXTS = [example.text for example in builtin_python_docs()[:60]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    top = tmp_path / "reviews"
    for split, rows in (("train", TEXTS[:40]), ("test", TEXTS[40:])):
        (top / "data").mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps({"text": text, "label": number % 3}) + "\n" for number, text in enumerate(rows))
        (top / "data" / f"{split}.jsonl").write_text(lines)
    with HubServer().running() as server:
        server.add("datasets/acme/reviews", top)
        yield server


@pytest.fixture
def settings(hub: HubServer, tmp_path: Path) -> HubSettings:
    return HubSettings(endpoint=hub.endpoint, home=str(tmp_path / "home"))


def test_only_the_split_is_fetched_and_once(hub: HubServer, settings: HubSettings) -> None:
    [path] = datasets.fetch(HubData("acme/reviews"), settings, field="data")
    assert path.name == "test.jsonl"
    assert len(path.read_text().splitlines()) == 20
    hub.forget()
    assert datasets.fetch(HubData("acme/reviews"), settings, field="data") == [path]
    assert hub.bodies() == 0
    offline = HubSettings(endpoint="http://127.0.0.1:9", home=settings.home, offline=True)
    assert datasets.fetch(HubData("acme/reviews", "test"), offline, field="data") == [path]


def test_what_the_hub_lacks_or_refuses(
    hub: HubServer, settings: HubSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "ATTEMPTS", 1)
    for ask in (datasets.look, datasets.fetch):
        with pytest.raises(InvalidData, match="no data set 'acme/other'") as caught:
            ask(HubData("acme/other"), settings, field="data")
        assert caught.value.errors[0]["field"] == "data"
        with pytest.raises(InvalidData, match="no revision 'v9'"):
            ask(HubData("acme/reviews", None, "v9"), settings, field="data")
        with pytest.raises(HubUnavailable):
            ask(HubData("acme/reviews"), HubSettings(endpoint="http://127.0.0.1:9"), field="data")
    hub.add("datasets/acme/secret", tmp_path / "reviews", private=True)
    with pytest.raises(HubForbidden, match="data set"):
        datasets.look(HubData("acme/secret"), settings, field="data")
    datasets.look(HubData("acme/secret"), HubSettings(endpoint=hub.endpoint, token=hub.token), field="data")


def test_a_job_on_one(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = build(tmp_path / "source", "bert", "text-classification")
    environment = {"hf_endpoint": hub.endpoint, "hf_home": str(tmp_path / "home")}
    result, _ = pipeline.run(
        source, {"heads": 0.5}, tmp_path, environment=environment, data="acme/reviews", calibration="acme/reviews:train"
    )
    assert result.labels == "data"
    assert result.metrics["eval_accuracy"].n == 20
