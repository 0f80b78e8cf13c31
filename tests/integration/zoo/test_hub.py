"""Models from the Hub, against a local server that speaks its protocol."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.file_download
import pytest

from prunectl.errors import (
    CorruptWeights,
    DiskFull,
    HubForbidden,
    HubUnavailable,
    InvalidInput,
    MissingTokenizer,
    MissingWeights,
    ModelNotFound,
    UnsafeWeights,
)
from prunectl.zoo import fetch as fetching
from prunectl.zoo.config import read_config
from prunectl.zoo.fetch import fetch, model_digest
from prunectl.zoo.resolve import HubSettings, Located, locate
from support.hub_server import HubServer
from support.models import build


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer().running() as server:
        yield server


@pytest.fixture
def settings(hub: HubServer, tmp_path: Path) -> HubSettings:
    return HubSettings(endpoint=hub.endpoint, home=str(tmp_path / "home"))


@pytest.fixture
def original(tmp_path: Path) -> Path:
    directory = build(tmp_path / "original", "xlm-roberta")
    (directory / "README.md").write_text("not fetched")
    (directory / "pytorch_model.bin").write_bytes(b"not fetched either")
    return directory


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda _: None)


def find(name: str, settings: HubSettings, **options: object) -> Located:
    return locate(name, zoo_roots=(), hub=settings, **options)  # type: ignore[arg-type]


def test_a_model_is_found_pinned_and_fetched_with_its_own_files_alone(
    hub: HubServer, settings: HubSettings, original: Path
) -> None:
    repository = hub.add("acme/tiny", original)
    located = find("acme/tiny", settings)
    assert (located.kind, located.repo_id, located.revision) == ("hub", "acme/tiny", repository.commit)
    assert located.identity == f"hub:acme/tiny@{repository.commit}"
    seen: list[float] = []
    path = fetch(located, settings, progress=seen.append)
    assert sorted(entry.name for entry in path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (path / "model.safetensors").read_bytes() == (original / "model.safetensors").read_bytes()
    assert model_digest(path) == model_digest(original)
    assert seen[-1] == 1.0 and seen == sorted(seen)
    assert any(request.path.startswith("/cdn/") for request in hub.requests)


def test_a_name_without_organisation_is_a_hub_id(hub: HubServer, settings: HubSettings, original: Path) -> None:
    hub.add("xlm-roberta-base", original)
    assert find("xlm-roberta-base", settings).repo_id == "xlm-roberta-base"


def test_only_the_configuration_is_read_for_a_plan(hub: HubServer, settings: HubSettings, original: Path) -> None:
    hub.add("acme/tiny", original)
    config = read_config(find("acme/tiny", settings), settings)
    assert config["architectures"] == ["XLMRobertaForMaskedLM"]
    assert hub.bodies() == len((original / "config.json").read_bytes())


def test_a_second_fetch_downloads_no_file(hub: HubServer, settings: HubSettings, original: Path) -> None:
    hub.add("acme/tiny", original)
    first = fetch(find("acme/tiny", settings), settings)
    hub.forget()
    assert fetch(find("acme/tiny", settings), settings) == first
    assert hub.bodies() == 0


def test_a_revision_is_the_commit_that_it_named(
    hub: HubServer, settings: HubSettings, original: Path, tmp_path: Path
) -> None:
    old = hub.add("acme/tiny", original)
    new = hub.add("acme/tiny", build(tmp_path / "new", "xlm-roberta", seed=1), tags={"v1": old.commit})
    tagged, newest = find("acme/tiny@v1", settings), find("acme/tiny", settings)
    assert (tagged.revision, newest.revision) == (old.commit, new.commit)
    assert fetch(tagged, settings) != fetch(newest, settings)
    assert fetch(newest.pinned_to(tagged.identity), settings) == fetch(tagged, settings)


@pytest.mark.parametrize(
    ("name", "message"), [("acme/absent", "no model 'acme/absent'"), ("acme/tiny@v9", "no revision 'v9'")]
)
def test_what_the_hub_does_not_have_is_not_found(
    hub: HubServer, settings: HubSettings, original: Path, name: str, message: str
) -> None:
    hub.add("acme/tiny", original)
    with pytest.raises(ModelNotFound, match=message) as caught:
        find(name, settings)
    assert caught.value.field == "model"


def test_a_name_near_one_of_the_zoo_is_hinted(settings: HubSettings, tmp_path: Path) -> None:
    build(tmp_path / "zoo" / "tiny-bert")
    with pytest.raises(ModelNotFound) as caught:
        locate("tiny-bart", zoo_roots=[tmp_path / "zoo"], hub=settings)
    assert caught.value.hint == "did you mean tiny-bert?"


def test_a_repository_without_configuration_is_no_model(hub: HubServer, settings: HubSettings, original: Path) -> None:
    (original / "config.json").unlink()
    hub.add("acme/tiny", original)
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        read_config(find("acme/tiny", settings), settings)


@pytest.mark.parametrize("token", [None, "hf_wrong"])
@pytest.mark.parametrize("kind", ["private", "gated"])
def test_a_closed_repository_needs_the_right_token(
    hub: HubServer, settings: HubSettings, original: Path, kind: str, token: str | None
) -> None:
    hub.add("acme/tiny", original, **{kind: True})
    refused = HubSettings(hub.endpoint, settings.home, token=token)
    with pytest.raises(HubForbidden) as caught:
        find("acme/tiny", refused)
    assert "HF_TOKEN" in str(caught.value.hint)
    assert "hf_wrong" not in f"{caught.value} {refused!r}"
    allowed = HubSettings(hub.endpoint, settings.home, token=hub.token)
    assert fetch(find("acme/tiny", allowed), allowed).is_dir()


def test_the_token_of_this_process_is_never_sent(
    hub: HubServer, settings: HubSettings, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.add("acme/tiny", original, private=True)
    with pytest.raises(HubForbidden):
        find("acme/tiny", settings)
    assert all("Authorization" not in request.headers for request in hub.requests)


@pytest.mark.parametrize("times", [1, 3])
def test_a_dropped_connection_resumes_where_it_stopped(
    hub: HubServer, settings: HubSettings, original: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # of 10 MB, what arrived would be lost
    hub.add("acme/tiny", original)
    hub.drops = times
    path = fetch(find("acme/tiny", settings), settings)
    assert (path / "model.safetensors").read_bytes() == (original / "model.safetensors").read_bytes()
    parts = [request for request in hub.requests if request.path.startswith("/cdn/") and request.method == "GET"]
    assert len(parts) == times + 1
    assert all("Range" in part.headers or "range" in part.headers for part in parts[1:])
    # At most the chunk that was under way is sent twice.
    assert sum(part.sent for part in parts) <= (original / "model.safetensors").stat().st_size + 1024 * times


def test_a_hub_that_fails_for_a_while_is_asked_again(
    hub: HubServer, settings: HubSettings, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "wait_random_exponential", lambda **_: lambda _state: 0.0)
    hub.add("acme/tiny", original)
    located = find("acme/tiny", settings)
    hub.fails = 2
    assert fetch(located, settings).is_dir()


def test_a_hub_that_stays_away_is_unavailable(
    hub: HubServer, settings: HubSettings, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "wait_random_exponential", lambda **_: lambda _state: 0.0)
    hub.add("acme/tiny", original)
    located = find("acme/tiny", settings)
    hub.fails = 1000
    with pytest.raises(HubUnavailable):
        fetch(located, settings)


class TestOutOfReach:
    @pytest.fixture(params=["offline", "unreachable"])
    def cut_off(self, request: pytest.FixtureRequest, settings: HubSettings) -> HubSettings:
        if request.param == "offline":
            return HubSettings(settings.endpoint, settings.home, offline=True)
        return HubSettings("http://127.0.0.1:9", settings.home)  # the discard port: nobody listens

    def test_a_warm_cache_serves(
        self, hub: HubServer, settings: HubSettings, original: Path, cut_off: HubSettings
    ) -> None:
        hub.add("acme/tiny", original)
        there = find("acme/tiny@main", settings)
        path = fetch(there, settings)
        # huggingface_hub writes the name's commit down only where it resolved the name itself.
        read_config(Located("acme/tiny", "hub", None, "acme/tiny", "main", ""), settings)
        located = find("acme/tiny", cut_off)
        assert located.identity == there.identity
        assert fetch(located, cut_off) == path
        assert read_config(located, cut_off)["model_type"] == "xlm-roberta"

    def test_a_cold_cache_is_told(self, settings: HubSettings, cut_off: HubSettings) -> None:
        if cut_off.offline:
            with pytest.raises(ModelNotFound, match="HF_HUB_OFFLINE"):
                find("acme/tiny@v1", cut_off)
        # A service may be cut off while its workers are not.
        located = find("acme/tiny@v1", cut_off, any_directory=False)
        assert (located.revision, located.identity) == ("v1", "hub:acme/tiny@v1")
        with pytest.raises((HubUnavailable, ModelNotFound)):
            read_config(located, cut_off)


def test_only_pickled_weights_are_refused_before_they_are_downloaded(
    hub: HubServer, settings: HubSettings, original: Path
) -> None:
    (original / "model.safetensors").unlink()
    hub.add("acme/tiny", original)
    with pytest.raises(UnsafeWeights, match=r"pytorch_model\.bin") as caught:
        fetch(find("acme/tiny", settings), settings)
    assert "save_pretrained" in str(caught.value.hint)
    assert not any("pytorch_model" in request.path for request in hub.requests)


@pytest.mark.parametrize(
    ("removed", "expected"), [("model.safetensors", MissingWeights), ("tokenizer.json", MissingTokenizer)]
)
def test_a_repository_without_weights_or_tokenizer(
    hub: HubServer, settings: HubSettings, original: Path, removed: str, expected: type[Exception]
) -> None:
    (original / "pytorch_model.bin").unlink()
    (original / removed).unlink()
    hub.add("acme/tiny", original)
    with pytest.raises(expected):
        fetch(find("acme/tiny", settings), settings)


def test_truncated_weights_are_corrupt(hub: HubServer, settings: HubSettings, original: Path) -> None:
    weights = original / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    hub.add("acme/tiny", original)
    with pytest.raises(CorruptWeights, match="truncated"):
        fetch(find("acme/tiny", settings), settings)


def test_no_space_in_the_cache(
    hub: HubServer, settings: HubSettings, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("acme/tiny", original)
    located = find("acme/tiny", settings)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", full)
    with pytest.raises(DiskFull):
        fetch(located, settings)


def test_a_name_that_could_never_be_one_is_refused(hub: HubServer, settings: HubSettings) -> None:
    for name in ("a/b/c", "acme//tiny", "acme/tiny@", "acme/ti ny", "acme/..", "../x", "acme/a--b", "/nowhere/at/all"):
        with pytest.raises(InvalidInput):
            find(name, settings)
    assert hub.requests == []
