"""Bounds on what a request may carry: bytes, nesting, and the one character that no database column takes."""

from __future__ import annotations

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prunectl.api.problems import problem_response
from prunectl.errors import InvalidInput, PrunectlError, TooLarge

MAX_JSON_DEPTH = 32
UPLOAD_PREFIX = "/v1/uploads/"
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class RequestLimits:
    """Reads a body up to its limit before the route sees it; an upload streams through and is only counted."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int | None) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        upload = scope["path"].startswith(UPLOAD_PREFIX)
        declared = Headers(scope=scope).get("content-length")
        try:
            _check_target(scope)
            if upload:
                _check_declared(declared, self.max_upload_bytes)
                replay = receive
            else:
                _check_declared(declared, self.max_body_bytes)
                replay = _replay(await _whole(receive, self.max_body_bytes), receive)
        except PrunectlError as error:
            await problem_response(error)(scope, receive, send)
            return
        await self.app(scope, replay, send)


def check_json(body: bytes) -> None:
    """Raises InvalidInput for JSON nested deeper than `MAX_JSON_DEPTH`, or with a NUL in a string."""
    if _NUL_ESCAPE.search(body):
        raise InvalidInput("the body holds the character U+0000, which can't be stored", field="body")
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise InvalidInput(f"the body is nested deeper than {MAX_JSON_DEPTH} levels", field="body")


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes", hint="the service's operator sets the limit")


def _check_target(scope: Scope) -> None:
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise InvalidInput("the address holds the character U+0000", field="path")


def _check_declared(content_length: str | None, limit: int | None) -> None:
    if limit is not None and content_length is not None and content_length.isdigit() and int(content_length) > limit:
        raise too_large(limit)


async def _whole(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large(limit)
        if not message.get("more_body", False):
            check_json(bytes(body))
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
