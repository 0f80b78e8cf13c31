"""How a browser, which can't send a bearer header, says who it is: a cookie that holds the token, for ``/ui`` alone.

The cookie is HttpOnly, SameSite=Strict and bound to ``/ui``, where nothing can be changed: the API itself never reads it, so
no other site can make a browser submit or cancel. A token that is revoked or expires ends the session with it.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from prunectl.errors import Forbidden
from prunectl.reporting.rendering import render

ROOT = "/ui"
SIGN_IN, SIGN_OUT = "/ui/session", "/ui/session/end"
COOKIE = "prunectl_token"
MAX_TOKEN = 500


def is_page(path: str) -> bool:
    return path == ROOT or path.startswith(f"{ROOT}/")


def token_in(headers: Headers) -> str:
    """The token of the session's cookie; empty where there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


async def posted_token(request: Request) -> str:
    """The token of a sign-in form; empty where the form has none."""
    fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=10)
    token = fields.get("token", [""])[0].strip()
    return token if len(token) <= MAX_TOKEN else ""


def refuse_other_sites(request: Request) -> None:
    """Raises Forbidden for a form that another site sent: it could sign somebody in as somebody else."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Forbidden("the form was sent by another site", hint=f"open {ROOT} and sign in there")


def remember(response: Response, request: Request, token: str) -> None:
    """Until the browser is closed."""
    response.set_cookie(
        COOKIE, token, path=ROOT, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )


def forget(response: Response) -> None:
    response.delete_cookie(COOKIE, path=ROOT, httponly=True, samesite="strict")


def page(template: str, *, status: int = 200, **values: object) -> HTMLResponse:
    """A template as an answer that may load and run nothing but its own style."""
    nonce = secrets.token_urlsafe(16)
    return answer(render(template, nonce=nonce, **values), nonce, status=status)


def answer(html: str, nonce: str, *, status: int = 200) -> HTMLResponse:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(html, status_code=status, headers={**PRIVATE, "Content-Security-Policy": policy})


def sign_in_page(*, wrong: bool = False) -> HTMLResponse:
    return page("sign_in.html.j2", status=401, action=SIGN_IN, wrong=wrong)


PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin", "X-Content-Type-Options": "nosniff"}
"""``same-origin``: with ``no-referrer``, browsers send forms without their origin, and it couldn't be checked."""
