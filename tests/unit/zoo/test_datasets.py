"""Names of data sets on the Hub, and which of a repository's files are a split."""

from __future__ import annotations

import pytest

from prunectl.errors import InvalidData, InvalidInput
from prunectl.jobs.lookup import parse_source
from prunectl.zoo.datasets import HubData, choose

FILES = [
    "README.md",
    "data/test-00000-of-00002.parquet",
    "data/test-00001-of-00002.parquet",
    "data/train-00000-of-00001.parquet",
    "csv/latest.csv",
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("acme/reviews", HubData("acme/reviews")),
        ("acme/reviews:test", HubData("acme/reviews", "test")),
        ("acme/reviews@v1.2", HubData("acme/reviews", None, "v1.2")),
        ("acme/re.views-2:dev@refs/pr/1", HubData("acme/re.views-2", "dev", "refs/pr/1")),
    ],
)
def test_names(text: str, found: HubData) -> None:
    assert HubData.parse(text) == found
    assert parse_source(text, flag="data").hub == found


@pytest.mark.parametrize("text", ["reviews", "a/b/c", "/abs/path", "a b/c", "acme/rows.csv", "acme/", "../x/y"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="org/name"):
        parse_source(text, flag="data")


@pytest.mark.parametrize(
    ("name", "field", "chosen"),
    [
        ("a/b", "data", FILES[1:3]),  # "latest" holds the letters of test, and isn't it
        ("a/b", "calibration", FILES[3:4]),
        ("a/b:train", "data", FILES[3:4]),
    ],
)
def test_a_split_is_what_the_path_names(name: str, field: str, chosen: list[str]) -> None:
    source = HubData.parse(name)
    assert source is not None
    assert choose(FILES, source, field=field) == chosen


def test_without_splits_all_files_of_one_kind_count() -> None:
    assert choose(["b.csv", "a.csv", "a.txt"], HubData("a/b"), field="data") == ["a.csv", "b.csv"]


def test_what_there_is_is_named() -> None:
    with pytest.raises(InvalidData, match="it has test, train") as caught:
        choose(FILES, HubData("a/b", "tests"), field="data")
    assert caught.value.hint == "did you mean test?"
    with pytest.raises(InvalidData, match="no file that can be read"):
        choose(["data.arrow"], HubData("a/b"), field="data")
