"""The pages for people: nothing without a token, nothing that can be changed, nothing that a browser would run."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from prunectl.attention import PAGE
from prunectl.wiring import Services
from support import service as support
from support.service import SECRETS


@pytest.fixture
def browser(ada: TestClient) -> TestClient:
    """Somebody's browser: no bearer header, and a jar of cookies."""
    return TestClient(ada.app, raise_server_exceptions=False)


@pytest.fixture
def signed_in(browser: TestClient) -> TestClient:
    response = browser.post("/ui/session", data={"token": SECRETS["ada"]}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/ui")
    return browser


@pytest.fixture
def pruned(ada: TestClient, services: Services, model: str) -> str:
    ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.3}, "name": "<b>bold</b>"})
    return support.succeed(services, files={"config.json": b"{}"})


@pytest.mark.parametrize("path", ["/ui", "/ui/jobs/abcd", "/ui/sweeps/abcd", "/ui/nothing", "/ui/session"])
def test_whoever_has_no_cookie_gets_the_form_alone(browser: TestClient, path: str) -> None:
    response = browser.get(path)
    assert response.status_code == 401
    assert 'name="token"' in response.text and "<table" not in response.text


def test_a_bearer_token_opens_the_pages_too(browser: TestClient) -> None:
    assert browser.get("/ui", headers={"Authorization": f"Bearer {SECRETS['ada']}"}).status_code == 200
    assert browser.get("/ui", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_the_cookie_is_for_these_pages_and_no_script(browser: TestClient) -> None:
    response = browser.post("/ui/session", data={"token": SECRETS["ada"]}, follow_redirects=False)
    cookie = response.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/ui"))
    assert "secure" not in cookie
    safe = TestClient(browser.app, base_url="https://prune.example")
    kept = safe.post("/ui/session", data={"token": SECRETS["ada"]}, follow_redirects=False).headers["set-cookie"]
    assert "secure" in kept.lower()


def test_the_api_never_takes_the_cookie(signed_in: TestClient, model: str) -> None:
    cookie = {"Cookie": f"prunectl_token={SECRETS['ada']}"}
    assert signed_in.get("/v1/jobs", headers=cookie).status_code == 401
    body = {"model": model, "recipe": {"heads": 0.3}}
    assert signed_in.post("/v1/jobs", json=body, headers=cookie).status_code == 401


@pytest.mark.parametrize("data", [{"token": "wrong"}, {"token": ""}, {}, {"token": "x" * 1000}, {"token": "é☃"}])
def test_a_wrong_token_opens_nothing(browser: TestClient, data: dict[str, str]) -> None:
    response = browser.post("/ui/session", data=data, follow_redirects=False)
    assert response.status_code == 401 and "set-cookie" not in response.headers


def test_another_site_can_sign_nobody_in_or_out(browser: TestClient) -> None:
    headers = {"Origin": "https://evil.example"}
    for path in ("/ui/session", "/ui/session/end"):
        browser.cookies.set("prunectl_token", SECRETS["ada"], path="/ui")
        response = browser.post(path, data={"token": SECRETS["ben"]}, headers=headers, follow_redirects=False)
        assert response.status_code == 403 and "set-cookie" not in response.headers
    own = {"Origin": "http://testserver"}
    assert browser.post("/ui/session", data={"token": SECRETS["ben"]}, headers=own).status_code == 200


def test_signing_out_and_a_revoked_token_end_the_session(signed_in: TestClient, services: Services) -> None:
    assert signed_in.get("/ui").status_code == 200
    assert signed_in.post("/ui/session/end").status_code == 401  # where it leads to is the form
    assert signed_in.get("/ui").status_code == 401
    signed_in.post("/ui/session", data={"token": SECRETS["ada"]})
    services.tokens.revoke_token("t-ada")
    assert signed_in.get("/ui").status_code == 401


def test_the_list_links_to_the_reports_of_ones_own_jobs(
    signed_in: TestClient, ada: TestClient, services: Services, pruned: str, model: str
) -> None:
    page = signed_in.get("/ui").text
    assert f'href="/ui/jobs/{pruned}"' in page and "&lt;b&gt;bold" in page and "<b>" not in page
    assert "accuracy 0.741" in page and "1.26x" in page
    assert 'http-equiv="refresh"' not in page
    ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": 0.4}})
    assert 'http-equiv="refresh"' in signed_in.get("/ui").text  # something is still to happen
    other = TestClient(signed_in.app)
    other.post("/ui/session", data={"token": SECRETS["ben"]})
    assert "No jobs." in other.get("/ui").text
    assert other.get(f"/ui/jobs/{pruned}").status_code == 404


def test_the_list_filters_and_pages(signed_in: TestClient, ada: TestClient, services: Services, model: str) -> None:
    ids = [ada.post("/v1/jobs", json={"model": model, "recipe": {"heads": n / 10}}).json()["id"] for n in (1, 2, 3)]
    support.fail(services)
    failed = signed_in.get("/ui", params={"state": "failed"}).text
    assert sum(id in failed for id in ids) == 1
    first = signed_in.get("/ui", params={"limit": 2, "state": ""})
    following = first.text.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&")
    second = signed_in.get(following).text
    assert sorted((id in first.text) + (id in second) for id in ids) == [1, 1, 1]
    refused = signed_in.get("/ui", params={"where": "nonsense"})
    assert refused.status_code == 422 and "nonsense" in refused.text and "<table" not in refused.text


@pytest.mark.parametrize("path", ["/ui", "/ui/jobs/{id}", "/ui/jobs/nosuch", "/ui/session"])
def test_a_page_may_run_nothing(signed_in: TestClient, pruned: str, path: str) -> None:
    response = signed_in.get(path.format(id=pruned))
    policy = response.headers.get("content-security-policy", "")
    if path == "/ui/session":  # a form's address, nothing to read
        assert response.status_code == 405
        return
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert policy.startswith("default-src 'none'; ") and "script-src" not in policy and "unsafe" not in policy
    assert response.text.count("<style") == response.text.count(f'nonce="{nonce}"')
    assert "<script" not in response.text and " style=" not in response.text
    assert response.headers["cache-control"] == "no-store"


def test_a_sweeps_page_leads_to_its_jobs(
    signed_in: TestClient, ada: TestClient, services: Services, model: str
) -> None:
    sweep = ada.post("/v1/sweeps", json={"base": {"model": model}, "grid": {"heads": [0.1, 0.2]}}).json()["id"]
    done = support.succeed(services)
    page = signed_in.get(f"/ui/sweeps/{sweep}").text
    assert f'href="/ui/jobs/{done}"' in page
    assert f'href="/ui/sweeps/{sweep}"' in signed_in.get("/ui").text


def test_the_attention_page_runs_in_a_sandbox(
    signed_in: TestClient, ada: TestClient, services: Services, pruned: str
) -> None:
    assert signed_in.get(f"/ui/jobs/{pruned}/attention").status_code == 404
    ada.post(f"/v1/jobs/{pruned}/attention", json={"text": "a list"})
    lease = support.claim(services)
    name = f"runs/{lease.job_id}/1-y"
    services.storage.write(f"{name}/{PAGE}", b"<!doctype html><script>1</script>")
    found: dict[str, Any] = support.result({"attention": services.storage.uri(f"{name}/{PAGE}")})
    services.store.succeed(lease, {**found, "metrics": {}, "structure": {"layers": []}})
    response = signed_in.get(f"/ui/jobs/{pruned}/attention")
    policy = response.headers["content-security-policy"]
    assert response.text.startswith("<!doctype html><script>1")
    assert policy.startswith("sandbox allow-scripts;") and "allow-same-origin" not in policy
    assert f"/ui/jobs/{pruned}/attention" in signed_in.get(f"/ui/jobs/{pruned}").text
