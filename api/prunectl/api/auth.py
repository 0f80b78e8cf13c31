"""Who is calling: bearer tokens, looked up by their SHA-256, and as whom the service is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated

from fastapi import Depends, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from prunectl.api import browser
from prunectl.api.problems import problem_response
from prunectl.errors import PrunectlError, Unauthenticated
from prunectl.jobs.ports import TokenStore
from prunectl.jobs.service import Caller

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_INCLUDED = {"read": {"read"}, "submit": {"read", "submit"}, "admin": {"read", "submit", "admin"}}

# Only describes the scheme in OpenAPI; `Authentication` has checked the token before any route is looked for.
_bearer = HTTPBearer(auto_error=False, description="A token of `prunectl tokens create`")


def scopes_of(granted: Iterable[str]) -> frozenset[str]:
    """Every scope that ``granted`` includes: read, in submit, in admin."""
    return frozenset().union(*(_INCLUDED.get(scope, set()) for scope in granted))


class Authentication:
    """Refuses every request without a live token, before routing and before a byte of the body is read.

    As middleware, so that an unknown route, a malformed body and a missing token can't be told apart from outside.
    """

    def __init__(self, app: ASGIApp, tokens: TokenStore) -> None:
        self.app = app
        self.tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        if browser.is_page(scope["path"]):
            await self._page(scope, receive, send)
            return
        try:
            caller = await self._caller(Headers(scope=scope).get("authorization", ""))
        except PrunectlError as error:
            await problem_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A page for people: signed in by a cookie; whoever isn't gets the form, wherever they wanted to go.

        A bearer token does, too, as everywhere else.
        """
        if scope["path"] != browser.SIGN_IN or scope["method"] != "POST":  # that is the form itself
            headers = Headers(scope=scope)
            try:
                if "authorization" in headers:
                    caller = await self._caller(headers["authorization"])
                else:
                    caller = await caller_of(self.tokens, browser.token_in(headers))
            except PrunectlError:
                await browser.sign_in_page()(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    async def _caller(self, authorization: str) -> Caller:
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer":
            secret = ""
        return await caller_of(self.tokens, secret)


async def caller_of(tokens: TokenStore, secret: str) -> Caller:
    """Whose token ``secret`` is. Raises Unauthenticated where it is nobody's any more."""
    hint = "set PRUNECTL_API_TOKEN to a token of `prunectl tokens create`"
    if not secret.strip():
        raise Unauthenticated("this service needs a bearer token", hint=hint)
    digest = hashlib.sha256(secret.strip().encode("latin-1", "replace")).hexdigest()
    token = await run_in_threadpool(tokens.token_by_secret, digest)
    if token is None:
        raise Unauthenticated("the token is unknown, expired or revoked", hint=hint)
    return Caller(owner=token.owner, scopes=scopes_of(token.scopes))


def current_caller(request: Request, _token: HTTPAuthorizationCredentials | None = Security(_bearer)) -> Caller:
    """The caller that `Authentication` found. What its scopes allow is the service's to say."""
    found: Caller = request.state.caller
    return found


CurrentCaller = Annotated[Caller, Depends(current_caller)]
