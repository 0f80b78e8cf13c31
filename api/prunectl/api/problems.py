"""RFC 9457 problem documents for every error, and the one table from kinds to statuses."""

from __future__ import annotations

import http
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_problem.error import Problem
from fastapi_problem.handler import ExceptionHandler, add_exception_handler, new_exception_handler
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from prunectl.api.query import ListParameters
from prunectl.errors import DiskFull, InvalidInput, Kind, PrunectlError
from prunectl.schemas import ProblemView
from prunectl.validation import plain, refusal

log = logging.getLogger(__name__)

STATUS: dict[Kind, int] = {
    Kind.INVALID: 422,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.TOO_LARGE: 413,
    Kind.UNAVAILABLE: 503,
    # What would fail the job (an unsupported architecture, a gated repository), seen while the request is answered:
    # nothing is queued, and sending the same again can't help.
    Kind.FAILED: 422,
}

_HTTP_CODES = {400: "bad_request", 404: "route_not_found", 405: "method_not_allowed"}
_HTTP_HINTS = {404: "GET /openapi.json lists the routes", 405: "GET /openapi.json lists each route's methods"}


def status_of(error: PrunectlError) -> int:
    """The HTTP status of a domain error."""
    if isinstance(error, DiskFull):
        return http.HTTPStatus.INSUFFICIENT_STORAGE
    return STATUS[error.kind]


def problem_of(error: PrunectlError) -> Problem:
    """A domain error as a problem document, with its code, hint and ``errors[]``."""
    status = status_of(error)
    errors: list[dict[str, Any]] = []
    if isinstance(error, InvalidInput):
        errors = error.errors
    elif error.field is not None:
        errors = [{"field": error.field, "value": error.value, "message": error.message}]
    headers = {"WWW-Authenticate": "Bearer"} if status == http.HTTPStatus.UNAUTHORIZED else None
    return _problem(status, error.code, error.message, hint=error.hint, errors=errors, headers=headers)


def problem_response(error: PrunectlError) -> JSONResponse:
    """The same as a response, for middleware, which runs outside the exception handlers."""
    problem = problem_of(error)
    headers = {"content-type": "application/problem+json", **(problem.headers or {})}
    return JSONResponse(problem.marshal(), status_code=problem.status, headers=headers)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem document, and say so in its OpenAPI description."""
    handler = new_exception_handler(
        logger=log,
        handlers={PrunectlError: _domain_error},
        http_exception_handler=_http_error,
        request_validation_handler=_validation_error,
    )
    # Last in the table, so that the particular handlers win: a fault's text is for the log, not for the caller.
    handler.handlers[Exception] = _fault
    add_exception_handler(app, handler, generic_swagger_defaults=False)
    app.add_exception_handler(PrunectlError, handler)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problem documents that a route answers with."""
    media = {"application/problem+json": {"schema": ProblemView.model_json_schema()}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": media} for status in statuses}


def _problem(
    status: int,
    code: str,
    detail: str,
    *,
    hint: str | None = None,
    errors: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> Problem:
    return Problem(
        http.HTTPStatus(status).phrase,
        type_="about:blank",
        detail=_clean(detail),
        status=status,
        headers=headers,
        code=code,
        hint=None if hint is None else _clean(hint),
        errors=[_clean_entry(entry) for entry in errors or []],
    )


def _domain_error(_handler: ExceptionHandler, _request: Request, error: PrunectlError) -> Problem:
    return problem_of(error)


def _http_error(_handler: ExceptionHandler, request: Request, error: HTTPException) -> Problem:
    status = error.status_code
    code = _HTTP_CODES.get(status, http.HTTPStatus(status).phrase.lower().replace(" ", "_"))
    detail = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers) if error.headers else None
    return _problem(status, code, detail, hint=_HTTP_HINTS.get(status), headers=headers)


def _validation_error(_handler: ExceptionHandler, _request: Request, error: RequestValidationError) -> Problem:
    findings = error.errors()
    if findings and findings[0]["type"] == "json_invalid":
        reason = findings[0].get("ctx", {}).get("error", findings[0]["msg"])
        return _problem(422, "json_invalid", f"the body is not JSON: {reason}")
    if findings and isinstance(findings[0].get("input"), bytes):
        return _problem(
            422, "json_expected", "the body is not declared as JSON", hint="send Content-Type: application/json"
        )
    in_query = any(finding["loc"][:1] == ("query",) for finding in findings)
    return problem_of(refusal(findings, ListParameters.model_fields if in_query else None))


def _fault(_handler: ExceptionHandler, _request: Request, _error: Exception) -> Problem:
    return _problem(500, "internal_error", "prunectl met a fault of its own; its log has the details")


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _clean_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _clean(item) if isinstance(item, str) and key in ("message", "hint") else plain(item)
        for key, item in entry.items()
        if item is not None or key == "value"
    }
