"""Reports and pictures over HTTP: whole files, for those who may see the jobs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from prunectl.wiring import Services
from support import service as support


@pytest.fixture
def pruned(ada: TestClient, services: Services, model: str) -> str:
    ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.3}})
    return support.succeed(services, gate=True)


def test_a_jobs_report_is_html_that_a_browser_runs_nothing_of(ada: TestClient, pruned: str) -> None:
    response = ada.get(f"/v1/jobs/{pruned}/report")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "sandbox" in response.headers["content-security-policy"]
    assert pruned in response.text and "0.741" in response.text


def test_a_sweeps_report_has_its_jobs(ada: TestClient, services: Services, model: str) -> None:
    sweep = ada.post("/v1/sweeps", json={"base": {"model": model}, "grid": {"heads": [0.1, 0.2]}}).json()
    first = support.succeed(services)
    page = ada.get(f"/v1/sweeps/{sweep['id']}/report").text
    assert first in page and "1 succeeded" in page and "<circle" in page


def test_some_jobs_side_by_side(ada: TestClient, services: Services, pruned: str, model: str) -> None:
    ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.4}})
    other = support.succeed(services)
    page = ada.get("/v1/compare/report", params={"ids": f"{pruned},{other}"}).text
    assert "Report of 2 jobs" in page and other in page
    assert ada.get("/v1/compare/report").status_code == 422


def test_the_importance_is_a_picture(ada: TestClient, pruned: str) -> None:
    drawn = ada.get(f"/v1/jobs/{pruned}/importance")
    assert drawn.headers["content-type"].startswith("image/svg+xml") and drawn.text.startswith("<svg")
    assert ada.get(f"/v1/jobs/{pruned}/importance", params={"format": "gif"}).status_code == 422


def test_the_importance_as_png(ada: TestClient, pruned: str) -> None:
    pytest.importorskip("resvg_py")
    drawn = ada.get(f"/v1/jobs/{pruned}/importance", params={"format": "png"})
    assert drawn.headers["content-type"] == "image/png"
    assert drawn.content.startswith(b"\x89PNG\r\n\x1a\n") and len(drawn.content) > 1000


def test_a_job_without_heads_to_show_is_a_conflict(ada: TestClient, model: str) -> None:
    queued = ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.5}}).json()["id"]
    assert ada.get(f"/v1/jobs/{queued}/importance").status_code == 409
    assert "The job is queued." in ada.get(f"/v1/jobs/{queued}/report").text


def test_reports_of_others_are_not_there(client_of: Callable[[str], TestClient], pruned: str) -> None:
    for path in ("report", "importance"):
        assert client_of("ben").get(f"/v1/jobs/{pruned}/{path}").status_code == 404
    assert client_of("ben").get("/v1/compare/report", params={"ids": pruned}).status_code == 404
