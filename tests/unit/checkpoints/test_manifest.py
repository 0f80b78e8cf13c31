"""SHA256SUMS and prunectl.json: sealed, checked, confined to their directory."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from prunectl.checkpoints import manifest
from prunectl.errors import CorruptWeights


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    manifest.write_manifest(directory, {"recipe": {"heads": 0.3}, "note": "naïve"})
    manifest.seal(directory)
    return directory


def test_a_sealed_directory_verifies_and_again_after_a_second_seal(sealed: Path) -> None:
    manifest.verify(sealed)
    (sealed / "README.md").write_text("card")
    manifest.seal(sealed)
    manifest.verify(sealed)
    assert "README.md" in (sealed / "SHA256SUMS").read_text()
    assert manifest.read_manifest(sealed)["note"] == "naïve"


def test_sums_are_those_of_sha256sum(sealed: Path) -> None:
    tool = shutil.which("sha256sum")
    assert tool is not None
    subprocess.run([tool, "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=sealed, check=True)


def _flip(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"weightz")


def _remove(directory: Path) -> None:
    (directory / "prunectl.json").unlink()


def _append(line: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        with open(directory / "SHA256SUMS", "a") as sums:
            sums.write(line)

    return damage


def _uncover(directory: Path) -> None:
    sums = directory / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "safetensors" not in line))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_flip, "model.safetensors"),
        (_remove, "prunectl.json"),
        (_append("0" * 64 + "  ../outside\n"), "outside"),
        (_append("0" * 64 + "  /etc/hostname\n"), "/etc/hostname"),
        (_append("nonsense\n"), "line 4"),
        (_uncover, "doesn't cover model.safetensors"),
    ],
)
def test_damage_is_found_and_named(sealed: Path, damage: Callable[[Path], None], named: str) -> None:
    damage(sealed)
    with pytest.raises(CorruptWeights, match=named):
        manifest.verify(sealed)


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "prunectl.json").write_bytes(content)
    with pytest.raises(CorruptWeights):
        manifest.read_manifest(tmp_path)


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptWeights, match=r"no prunectl\.json"):
        manifest.read_manifest(tmp_path)
