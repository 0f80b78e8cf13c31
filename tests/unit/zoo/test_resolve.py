from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from prunectl.errors import InvalidInput, ModelNotFound
from prunectl.zoo.resolve import HubSettings, Located, locate

HUB = HubSettings(endpoint="http://127.0.0.1:9", home="/nonexistent", token="hf_secret")


def make(directory: Path, **config: object) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    return directory


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    root = tmp_path / "zoo"
    make(root / "tiny")
    make(root / "acme" / "small")
    return root


def find(name: str, *roots: Path, cwd: Path | None = None, any_directory: bool = False) -> Located:
    return locate(name, zoo_roots=roots, cwd=cwd, any_directory=any_directory, hub=HUB)


def test_a_directory_absolute_or_from_the_submitters_directory(tmp_path: Path) -> None:
    path = make(tmp_path / "here" / "model")
    absolute = find(str(path), any_directory=True)
    assert (absolute.kind, absolute.path) == ("directory", path)
    for relative, cwd in (("model", path.parent), ("./model", path.parent), ("../here/model", path.parent)):
        located = find(relative, cwd=cwd, any_directory=True)
        assert (located.path, located.identity) == (path, absolute.identity)


def test_a_directory_goes_before_the_zoo(zoo: Path, tmp_path: Path) -> None:
    path = make(tmp_path / "cwd" / "tiny")
    assert find("tiny", zoo, cwd=path.parent, any_directory=True).path == path
    assert find("tiny", zoo, cwd=path.parent).path == zoo / "tiny"


def test_names_of_the_zoo_and_the_first_root_first(zoo: Path, tmp_path: Path) -> None:
    make(tmp_path / "other" / "tiny")
    assert find("acme/small", zoo).path == zoo / "acme" / "small"
    assert find("tiny", tmp_path / "absent", tmp_path / "other", zoo).path == tmp_path / "other" / "tiny"


def test_a_service_takes_a_path_only_inside_a_zoo_root(zoo: Path, tmp_path: Path) -> None:
    assert find(str(zoo / "tiny"), zoo).path == zoo / "tiny"
    outside = make(tmp_path / "secret")
    with pytest.raises(InvalidInput, match="outside the zoo root") as caught:
        find(str(outside), zoo)
    assert caught.value.field == "model"
    with pytest.raises(ModelNotFound):
        find(str(outside))


@pytest.mark.parametrize("name", ["../secret", "tiny/../../secret", "..", "acme/..", "/../secret"])
def test_two_dots_are_refused(zoo: Path, tmp_path: Path, name: str) -> None:
    make(tmp_path / "secret")
    with pytest.raises(InvalidInput) as caught:
        find(name, zoo)
    assert caught.value.field == "model"


def test_a_link_out_of_the_zoo_is_refused_and_one_inside_is_not(zoo: Path, tmp_path: Path) -> None:
    secret = make(tmp_path / "secret")
    (zoo / "escape").symlink_to(secret)
    (zoo / "alias").symlink_to(zoo / "tiny")
    with pytest.raises(InvalidInput, match="is outside the zoo root"):
        find("escape", zoo)
    assert find("alias", zoo).path == zoo / "tiny"


def test_a_file_that_is_a_link_out_of_the_zoo_is_refused(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"")
    (zoo / "tiny" / "model.safetensors").symlink_to(tmp_path / "weights")
    with pytest.raises(InvalidInput, match=r"has model\.safetensors outside"):
        find("tiny", zoo)


def test_a_zoo_root_may_itself_be_a_link(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(zoo)
    assert find("tiny", tmp_path / "link").path == zoo / "tiny"


def test_a_directory_without_configuration_is_told_so(zoo: Path) -> None:
    (zoo / "empty").mkdir()
    with pytest.raises(ModelNotFound, match=r"without config\.json"):
        find("empty", zoo)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "\0"])
def test_a_broken_configuration_is_refused(zoo: Path, content: str) -> None:
    (zoo / "tiny" / "config.json").write_text(content)
    with pytest.raises(InvalidInput, match=r"config\.json is not"):
        find("tiny", zoo)


@pytest.mark.parametrize("name", ["", "\0", "./tinny", "~nobody/x", "/tinny", "a/b/c", "tiny@", "ti ny", "-tiny"])
def test_what_can_be_no_name_is_not_looked_for_on_the_hub(zoo: Path, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        find(name, zoo, cwd=zoo.parent, any_directory=True)
    assert caught.value.field == "model"


def test_a_name_near_one_of_the_zoo_is_hinted(zoo: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        find("./acme/smal", zoo)
    assert caught.value.hint == "did you mean acme/small?"


def test_identity_changes_with_the_models_files_alone(zoo: Path) -> None:
    first = find("tiny", zoo).identity
    assert first.startswith(f"directory:{zoo / 'tiny'}#sha256:")
    (zoo / "tiny" / "README.md").write_text("notes")
    assert find("tiny", zoo).identity == first
    os.utime(zoo / "tiny" / "config.json", ns=(0, 0))
    touched = find("tiny", zoo).identity
    (zoo / "tiny" / "model.safetensors").write_bytes(b"")
    assert len({first, touched, find("tiny", zoo).identity}) == 3


def test_a_hub_that_cannot_be_asked_leaves_the_revision_as_typed() -> None:
    located = find("acme/small@v1.0")
    assert (located.kind, located.repo_id, located.revision) == ("hub", "acme/small", "v1.0")
    assert located.identity == "hub:acme/small@v1.0"
    assert find("acme/small").identity == "hub:acme/small@main"


def test_pinning_to_an_earlier_identity() -> None:
    located = find("acme/small")
    commit = "0" * 40
    assert located.pinned_to(f"hub:acme/small@{commit}").revision == commit
    assert located.pinned_to(f"hub:acme/other@{commit}") == located
    assert located.pinned_to("directory:/x#sha256:0") == located


def test_the_token_is_not_shown() -> None:
    assert "hf_secret" not in repr(HUB)
