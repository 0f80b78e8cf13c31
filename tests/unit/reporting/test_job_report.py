"""A job's report: every figure with its error, what went, and nothing that a browser would load or run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from prunectl.reporting import heat_map
from prunectl.reporting.job_report import job_report, row_of, short_name, verdict
from prunectl.schemas import BlockStructure, ErrorView, JobView, ModelRef, Structure

STRUCTURE = Structure(
    layers=[
        BlockStructure(
            index=0,
            heads_kept=[0, 2],
            heads_total=3,
            ffn_kept=40,
            ffn_total=64,
            head_scores=[0.4, 0.1, 0.9],
            ffn_scores=[0.0, 0.1, 0.2, 0.3, 0.4],
        ),
        BlockStructure(index=2, heads_kept=[], heads_total=3, ffn_kept=0, ffn_total=64, head_scores=[0.0, 0.0, 0.0]),
    ],
    removed_layers=[1],
)


def job(**more: Any) -> JobView:
    given: dict[str, Any] = {
        "id": "01job",
        "state": "succeeded",
        "owner": "ada",
        "model": ModelRef(name="org/tiny", digest="sha256:abc"),
        "recipe": {"heads": 0.5, "scorer": "taylor", "seed": 0},
        "recipe_digest": "sha256:def",
        "evaluation": {"task": "auto"},
        "queue": "cpu",
        "priority": 0,
        "attempt": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "device": "cpu",
        "metrics": {
            "parameters": {"before": 1000, "after": 900},
            "latency_p50_seconds": {"before": 0.02, "after": 0.01},
            "eval_accuracy": {"before": 0.8, "after": 0.79, "stderr": 0.02, "n": 500, "difference_stderr": 0.01},
            "eval_loss": {"before": 1.0, "after": 1.5, "stderr": 0.02, "n": 500, "difference_stderr": 0.01},
        },
        "structure": STRUCTURE,
        "artifacts": {"checkpoint": "file:///store/runs/01job/a1-x"},
        "conditions": {"machine": "a CPU", "versions": {"torch": "2.13"}, "seed": 0},
    }
    return JobView.model_validate(given | more)


def test_a_model_that_is_smaller_but_not_faster_is_called_so() -> None:
    slow = job().metrics | {"speedup": {"after": 0.99, "stderr": 0.01}}
    tone, said = verdict(job(metrics=slow))
    assert tone == ""
    assert "It is smaller but not faster: parameters 1.0k to 900 (-10%), yet speedup 0.99x" in said
    assert "smaller but not" not in verdict(job(metrics=slow | {"speedup": {"after": 1.5, "stderr": 0.01}}))[1]


class Outline(HTMLParser):
    """Tags that are open at the end, and everything that would be loaded or run."""

    VOID = frozenset({"meta", "br", "input", "rect", "path", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action") or name.startswith("on"):
                self.loaded.append((name, value or ""))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def outline(page: str) -> Outline:
    found = Outline()
    found.feed(page)
    return found


def test_the_page_is_whole_and_loads_nothing() -> None:
    page = job_report(job())
    found = outline(page)
    assert found.open == []
    assert found.loaded == []
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_quality_has_its_error_and_a_mark_where_it_is_within_two() -> None:
    accuracy = row_of("eval_accuracy", job().metrics["eval_accuracy"])
    assert (accuracy.change, accuracy.tone, accuracy.stderr, accuracy.n) == ("~-0.0100", "", "0.02", "500")
    loss = row_of("eval_loss", job().metrics["eval_loss"])
    assert (loss.change, loss.tone) == ("+0.5000", "bad")


def test_a_timing_of_unknown_error_is_neither_good_nor_bad() -> None:
    assert row_of("latency_p50_seconds", {"before": 0.02, "after": 0.01}).tone == ""
    assert row_of("parameters", {"before": 1000, "after": 900}).tone == "good"
    assert row_of("macs", {"before": 10, "after": 10}).tone == ""


def test_the_heat_map_crosses_what_went_and_names_layers_that_are_gone() -> None:
    root = ElementTree.fromstring(heat_map.svg(STRUCTURE))
    space = {"svg": "http://www.w3.org/2000/svg"}
    said = [title.text for title in root.iterfind(".//svg:title", space)]
    assert [text for text in said if text and "layer 0" in text] == [
        "layer 0, head 0, kept, score 0.4",
        "layer 0, head 1, removed, score 0.1",
        "layer 0, head 2, kept, score 0.9",
    ]
    assert sum("removed, score" in (text or "") for text in said) == 4
    assert "this layer was removed" in said
    shades = [rect.get("fill-opacity") for rect in root.iterfind(".//svg:g/svg:rect[@rx]", space)]
    assert shades[:3] == ["0.667", "0.333", "1.000"]  # roots of 4/9, 1/9, 1
    labels = [text.text for text in root.iterfind(".//svg:text", space)]
    assert labels.index("layer 0") < labels.index("layer 1") < labels.index("layer 2")


def test_a_heat_map_without_scores_still_shows_what_stayed() -> None:
    bare = Structure(layers=[BlockStructure(index=0, heads_kept=[1], heads_total=2, ffn_kept=4, ffn_total=4)])
    drawn = heat_map.svg(bare)
    assert "heads were not ranked" in drawn
    assert ElementTree.fromstring(drawn) is not None


def test_a_negative_score_is_the_palest() -> None:
    block = STRUCTURE.layers[0].model_copy(update={"head_scores": [-1.0, 0.5, 1.0]})
    assert heat_map.heat_map(Structure(layers=[block])).cells[0].shade == 0.0


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}"])
def test_texts_of_others_stay_texts(hostile: str) -> None:
    page = job_report(
        job(
            name=hostile,
            model=ModelRef(name=hostile),
            evaluation={"data": hostile},
            conditions={hostile: hostile, "versions": {hostile: hostile}},
        )
    )
    found = outline(page)
    assert found.loaded == [] and "<script" not in page
    if "{{" in hostile:
        assert hostile in page


def test_a_failed_job_has_a_report_that_says_why() -> None:
    failed = job(
        state="failed",
        metrics={},
        structure=None,
        artifacts={},
        conditions={},
        error=ErrorView(code="weights_corrupt", message="the weights are torn", hint="fetch them again"),
    )
    page = job_report(failed)
    assert "The job is failed." in page and "weights_corrupt" in page and "fetch them again" in page
    assert "How to load" not in page


def test_a_gate_is_the_verdict() -> None:
    condition = {"metric": "eval_accuracy", "op": ">=", "limit": 0.7, "value": 0.79, "passed": False, "bound": 0.69}
    page = job_report(job(gate={"passed": False, "conditions": [condition]}))
    assert re.search(r'class="verdict bad">The gate is not met \(0 of 1\): ', page)


def test_a_directory_is_named_by_its_last_part_and_a_hub_id_in_full() -> None:
    assert short_name("/data/models/tiny/") == "tiny"
    assert short_name("org/tiny") == "org/tiny"
