"""``/ui``: the service as pages to read. Nothing can be changed here."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from prunectl.api import browser
from prunectl.api.auth import CurrentCaller, caller_of
from prunectl.api.dependencies import Comparisons, Jobs, Sweeps
from prunectl.api.problems import status_of
from prunectl.api.query import ListParameters
from prunectl.attention import PAGE
from prunectl.comparison import quality_of
from prunectl.errors import NotFound, PrunectlError
from prunectl.reporting.job_report import job_report, row_of, short_name
from prunectl.reporting.sweep_report import recipe_text, sweep_report
from prunectl.schemas import ACTIVE_STATES, JobView
from prunectl.storage.layout import published_name

router = APIRouter(prefix=browser.ROOT, include_in_schema=False)

REFRESH_SECONDS = 10
# The page of attention draws by scripts of its own. In this sandbox they are of no site: no cookie, no request.
_SANDBOX = "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


@router.post("/session")
async def sign_in(request: Request) -> Response:
    """Keep the token of the form in a cookie, and go to the list."""
    try:
        browser.refuse_other_sites(request)
        token = await browser.posted_token(request)
        await caller_of(request.app.state.services.tokens, token)
    except PrunectlError as error:
        return browser.sign_in_page(wrong=True) if status_of(error) == 401 else _refusal(error)
    response = RedirectResponse(browser.ROOT, status_code=303)
    browser.remember(response, request, token)
    return response


@router.post("/session/end")
def sign_out(request: Request) -> Response:
    try:
        browser.refuse_other_sites(request)
    except PrunectlError as error:
        return _refusal(error)
    response = RedirectResponse(browser.ROOT, status_code=303)
    browser.forget(response)
    return response


@router.get("")
def list_jobs(parameters: Annotated[ListParameters, Query()], caller: CurrentCaller, sweeps: Sweeps) -> HTMLResponse:
    """One page of jobs; takes what ``GET /v1/jobs`` takes."""

    def shown() -> HTMLResponse:
        found = sweeps.jobs(caller, parameters.query())
        asked = parameters.model_dump(exclude_defaults=True, exclude={"cursor"})
        following = {**asked, "cursor": found.next_cursor}
        return browser.page(
            "jobs.html.j2",
            jobs=[_row(job) for job in found.items],
            asked=asked,
            next=f"{browser.ROOT}?{urlencode(following, doseq=True)}" if found.next_cursor else None,
            refresh=REFRESH_SECONDS if any(job.state in ACTIVE_STATES for job in found.items) else None,
            owner=caller.owner,
            sign_out=browser.SIGN_OUT,
        )

    return _or_refusal(shown)


@router.get("/jobs/{ref}")
def show_job(ref: str, caller: CurrentCaller, jobs: Jobs) -> HTMLResponse:
    """The job's report."""
    nonce = secrets.token_urlsafe(16)
    return _or_refusal(lambda: browser.answer(job_report(jobs.show(caller, ref), nonce=nonce), nonce))


@router.get("/sweeps/{ref}")
def show_sweep(ref: str, caller: CurrentCaller, sweeps: Sweeps, comparisons: Comparisons) -> HTMLResponse:
    """The sweep's report."""
    nonce = secrets.token_urlsafe(16)

    def shown() -> HTMLResponse:
        sweep = sweeps.show(caller, ref)
        found = comparisons.compare(caller, (), sweep.id)
        return browser.answer(sweep_report(sweep, found, nonce=nonce), nonce)

    return _or_refusal(shown)


@router.get("/jobs/{ref}/attention")
def show_attention(ref: str, caller: CurrentCaller, jobs: Jobs) -> HTMLResponse:
    """The picture of the job's attention that was drawn last."""

    def shown() -> HTMLResponse:
        job = jobs.show(caller, ref)
        name = published_name(job.artifacts.get("attention", ""))
        if name is None:
            raise NotFound(
                f"no attention of job {job.id} was drawn", hint=f'prunectl attention {job.id} --text "…" draws it'
            )
        source, _ = jobs.open_artifact(caller, name.split("/")[1], PAGE)
        with source as file:
            return HTMLResponse(file.read(), headers={**browser.PRIVATE, "Content-Security-Policy": _SANDBOX})

    return _or_refusal(shown)


def _row(job: JobView) -> dict[str, Any]:
    quality = quality_of([job.metrics], [job.conditions])
    sizes = row_of("model_bytes", job.metrics["model_bytes"]) if "model_bytes" in job.metrics else None
    return {
        "id": job.id,
        "name": job.name,
        "model": short_name(job.model.name),
        "recipe": f"attention of {job.attention['of'][-8:]}" if job.attention else recipe_text(job.recipe),
        "state": "gate not met" if job.gate and not job.gate.passed else job.state,
        "tone": "bad" if job.state == "failed" or (job.gate and not job.gate.passed) else "",
        "stage": f"{job.stage} {job.progress:.0%}" if job.state == "running" and job.stage else "",
        "quality": (quality, row_of(quality, job.metrics[quality])) if quality else None,
        "speedup": job.metrics.get("speedup", {}).get("after"),
        "size": sizes,
        "sweep": job.sweep_id,
        "created": job.created_at,
    }


def _or_refusal(shown: Callable[[], HTMLResponse]) -> HTMLResponse:
    try:
        return shown()
    except PrunectlError as error:
        return _refusal(error)


def _refusal(error: PrunectlError) -> HTMLResponse:
    return browser.page("refused.html.j2", status=status_of(error), message=error.message, hint=error.hint)
