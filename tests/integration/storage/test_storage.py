"""One contract for local and remote storage, and what a local directory has to guard besides."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prunectl.errors import Conflict, DiskFull, InvalidInput, NotFound, Unavailable
from prunectl.jobs.ports import Storage
from prunectl.storage import open_storage
from prunectl.storage.local import LocalStorage
from prunectl.storage.names import STAGING_PREFIX
from support.s3_server import S3Server

BAD_NAMES = ["/etc/passwd", "../x", "a/../../x", "a//b", "", ".", "a/.", "a\\b", "a\nb", "a\0b"]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    """An S3 of this machine, with one bucket; where ``s3://`` leads to."""
    s3fs = pytest.importorskip("s3fs")
    variables = {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1", "MAX_ATTEMPTS": "1"}
    with S3Server("bucket").running() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in {**variables, "ENDPOINT_URL": server.endpoint}.items():
            patch.setenv(f"AWS_{name}", value)
        patch.setattr(s3fs.S3FileSystem, "retries", 1)
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    yield s3_server
    s3_server.buckets["bucket"].clear()
    s3_server.fault = None


@pytest.fixture(params=["local", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(str(tmp_path / "a storage"))
    if request.param == "memory":
        return open_storage(f"memory://bucket/{tmp_path.name}")
    request.getfixturevalue("s3")
    return open_storage("s3://bucket/some/prefix")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    top = tmp_path / "checkpoint"
    (top / "onnx").mkdir(parents=True)
    (top / "config.json").write_text("{}")
    (top / "SHA256SUMS").write_text("sums")
    (top / "onnx" / "model.onnx").write_bytes(b"\x00\x01")
    return top


def test_publish_shows_the_whole(storage: Storage, checkpoint: Path) -> None:
    uri = storage.publish(str(checkpoint), "runs/j/a1")
    assert uri == storage.uri("runs/j/a1")
    assert storage.name_of(uri) == "runs/j/a1"
    assert storage.list("runs/j/a1") == ["SHA256SUMS", "config.json", "onnx/model.onnx"]
    assert storage.read("runs/j/a1/onnx/model.onnx") == b"\x00\x01"
    with storage.open("runs/j/a1/config.json") as file:
        assert file.read() == b"{}"
    assert [name for name, _ in storage.children("")] == ["runs"]
    [(name, modified)] = storage.children("runs/j")
    assert name == "a1"
    assert modified > 1e9


def test_publish_never_replaces(storage: Storage, checkpoint: Path, tmp_path: Path) -> None:
    storage.publish(str(checkpoint), "runs/j/a1")
    other = tmp_path / "other"
    other.mkdir()
    (other / "new").write_text("x")
    with pytest.raises(Conflict):
        storage.publish(str(other), "runs/j/a1")
    assert "new" not in storage.list("runs/j/a1")


def test_publish_what_is_not_there(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        storage.publish(str(tmp_path / "nothing"), "runs/j/a1")
    assert storage.list("") == []


def test_write_read_append_size(storage: Storage) -> None:
    assert storage.size("logs/x") is None
    assert not storage.exists("logs/x")
    storage.append("logs/x", b"abc")
    storage.append("logs/x", b"def")
    assert storage.size("logs/x") == 6
    assert storage.read("logs/x", offset=2, length=3) == b"cde"
    assert storage.read("logs/x", offset=6) == storage.read("logs/x", offset=9, length=2) == b""
    storage.write("logs/x", b"new")
    assert storage.read("logs/x") == b"new"
    assert storage.write_stream("uploads/y", iter([b"1", b"23"])) == 3
    with storage.local_path("uploads/y") as path:
        assert path.read_bytes() == b"123"
    assert storage.list("") == ["logs/x", "uploads/y"]
    assert storage.size("logs") is None


def test_a_stream_that_breaks_leaves_nothing(storage: Storage) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield b"half"
        raise RuntimeError("connection lost")

    with pytest.raises(RuntimeError):
        storage.write_stream("uploads/z", broken())
    assert not storage.exists("uploads/z")
    assert storage.list("") == []


def test_removal(storage: Storage, checkpoint: Path) -> None:
    storage.publish(str(checkpoint), "runs/j/a1")
    storage.write("runs/j/note", b"x")
    storage.remove("runs/j/a1")
    storage.remove("runs/j/a1")
    assert storage.list("") == ["runs/j/note"]
    storage.remove("runs")
    assert storage.list("") == []
    assert list(storage.children("runs")) == []


def test_many_remove_the_same_at_once(tmp_path: Path) -> None:
    """A late attempt withdraws, its job is removed and a collector goes round: all succeed, and nothing is left."""
    storage = LocalStorage(tmp_path / "storage")
    together = threading.Barrier(4)

    def withdraw(round_: int) -> None:
        together.wait()
        storage.remove(f"runs/{round_}/a1")

    def collect(round_: int) -> None:
        together.wait()
        for place in ("", "runs", f"runs/{round_}"):
            for name, _ in storage.children(place):
                if name in ("a1", str(round_)) or name.startswith(STAGING_PREFIX):
                    storage.remove(f"{place}/{name}".lstrip("/"))

    with ThreadPoolExecutor(4) as pool:
        for round_ in range(60):
            for number in range(20):
                storage.write(f"runs/{round_}/a1/{number % 4}/{number}", b"x")
            for done in [pool.submit(act, round_) for act in (withdraw, withdraw, collect, collect)]:
                done.result(30)
            storage.remove(f"runs/{round_}")
            assert [name for name, _ in storage.children("")] == ["runs"], "no half-removed directory stays"
    assert storage.list("") == []


def test_what_is_not_there(storage: Storage) -> None:
    for act in (storage.read, storage.open):
        with pytest.raises(NotFound):
            act("nothing")
    with pytest.raises(NotFound), storage.local_path("nothing"):
        pass
    assert storage.list("nothing") == []


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_leads_out(storage: Storage, checkpoint: Path, name: str) -> None:
    acts = [
        lambda: storage.read(name),
        lambda: storage.write(name, b"x"),
        lambda: storage.append(name, b"x"),
        lambda: storage.exists(name),
        lambda: storage.size(name),
        lambda: storage.open(name),
        lambda: storage.remove(name),
        lambda: storage.publish(str(checkpoint), name),
        lambda: storage.write_stream(name, [b"x"]),
    ]
    for act in acts:
        with pytest.raises(InvalidInput):
            act()


def test_foreign_uris(storage: Storage) -> None:
    for uri in (
        "file:///etc/passwd",
        "s3://other/x",
        "https://x/y",
        "",
        storage.uri("a") + "/../../x",
        storage.uri(""),
    ):
        assert storage.name_of(uri) is None, uri


def test_local_uris_are_absolute_and_escape_spaces(tmp_path: Path) -> None:
    storage = open_storage((tmp_path / "a b").as_uri())
    assert storage.uri("x").startswith("file:///")
    assert " " not in storage.uri("x")
    assert storage.name_of(storage.uri("c d/e")) == "c d/e"


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "root"))
    (tmp_path / "secret").write_text("s")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "root" / "up").symlink_to(tmp_path)
    for name in ("link", "up/secret"):
        with pytest.raises(InvalidInput, match="leads out"):
            storage.read(name)
    assert storage.list("") == []


def test_a_checkpoint_with_links_is_not_published(tmp_path: Path, checkpoint: Path) -> None:
    storage = open_storage(str(tmp_path / "root"))
    (checkpoint / "token").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="symbolic link"):
        storage.publish(str(checkpoint), "runs/j/a1")
    assert storage.list("") == []


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EROFS, Unavailable)]
)
def test_a_full_disk_leaves_nothing_published(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    storage = open_storage(str(tmp_path / "root"))

    def full(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(expected):
        storage.publish(str(checkpoint), "runs/j/a1")
    with pytest.raises(expected):
        storage.write("x", b"y")
    assert list((tmp_path / "root").iterdir()) == []


def test_publish_from_another_disk_copies(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path / "root"))
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self == checkpoint:
            raise OSError(errno.EXDEV, "other disk")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    storage.publish(str(checkpoint), "runs/j/a1")
    assert storage.list("runs/j/a1") == ["SHA256SUMS", "config.json", "onnx/model.onnx"]
    assert not checkpoint.exists()


def test_half_written_things_are_not_listed(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "root"))
    (tmp_path / "root" / ".tmp-1").mkdir()
    (tmp_path / "root" / ".tmp-1" / "x").write_text("half")
    assert storage.list("") == []
    assert [name for name, _ in storage.children("")] == [".tmp-1"]


def test_what_another_machine_wrote_is_seen(s3: S3Server) -> None:
    storage = open_storage("s3://bucket/prefix")
    storage.write("uploads/ab/one", b"1")
    assert [name for name, _ in storage.children("uploads/ab")] == ["one"]
    s3.buckets["bucket"]["prefix/uploads/ab/two"] = b"2"
    assert storage.exists("uploads/ab/two")
    with storage.open("uploads/ab/two") as file:
        assert file.read() == b"2"
    list(storage.children("uploads/ab"))
    s3.buckets["bucket"]["prefix/uploads/ab/three"] = b"3"
    storage.append("uploads/ab/three", b"4")
    assert storage.read("uploads/ab/three") == b"34"


@pytest.mark.parametrize("fault", ["refuses", "hangs up"])
def test_an_s3_that_refuses_or_hangs_up(s3: S3Server, checkpoint: Path, fault: str) -> None:
    storage = open_storage("s3://bucket/prefix")
    s3.fault = fault
    acts = [
        lambda: storage.read("x"),
        lambda: storage.write("x", b"x"),
        lambda: storage.append("x", b"x"),
        lambda: storage.size("x"),
        lambda: storage.list(""),
        lambda: list(storage.children("")),
        lambda: storage.open("x"),
        lambda: storage.remove("x"),
        lambda: storage.publish(str(checkpoint), "runs/j/a1"),
    ]
    for number, act in enumerate(acts):
        with pytest.raises(Unavailable):
            pytest.fail(f"act {number} gave {act()!r}")


@pytest.mark.parametrize("url", ["nope://x", "file://otherhost/x", "file://", "s3://", "s3:///prefix"])
def test_unknown_locations(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_storage(url)


def test_a_root_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        LocalStorage(tmp_path / "file" / "root")
