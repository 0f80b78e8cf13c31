"""A folder of images as data: what is sent of it, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from prunectl.cli import image_folder
from prunectl.evaluation import archives, pictures
from prunectl.wiring import Services

pytestmark = pytest.mark.usefixtures("service")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data" / "pets"
    for kind, colour in (("cat", "red"), ("cat", "blue"), ("dog", "green"), ("dog", "white")):
        (made / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), colour).save(made / kind / f"{colour}.png")
    (made / "dog" / "notes.txt").write_text("not sent")
    (made / ".cache").mkdir()
    (made / ".cache" / "x.png").write_text("not sent")
    return made


@pytest.fixture
def vit(tmp_path: Path) -> str:
    directory = tmp_path / "zoo" / "vit"
    directory.mkdir(parents=True)
    config = {
        "model_type": "vit", "architectures": ["ViTForImageClassification"], "image_size": 12, "patch_size": 4,
        "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48,
        "id2label": {"0": "cat", "1": "dog"},
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return directory.name


def test_both_sides_know_the_same_files() -> None:
    assert image_folder.SUFFIXES == pictures.SUFFIXES
    assert set(image_folder.METADATA) == set(archives.METADATA)


def test_a_folder_is_sent_as_one_file_that_is_always_the_same(
    run: Any, services: Services, vit: str, folder: Path, tmp_path: Path
) -> None:
    ran = run("submit", "-m", vit, "--heads", "0.3", "--data", str(folder))
    assert ran.code == 0, ran.err
    job = services.store.get(ran.lines[0])
    assert job is not None
    reference = job.spec["evaluation"]["data"]
    assert reference.endswith("/pets.zip")
    digest = reference.removesuffix("/pets.zip").rsplit(":", 1)[1]
    with zipfile.ZipFile(io.BytesIO(services.storage.read(f"uploads/{digest[:2]}/{digest}"))) as sent:
        assert sent.namelist() == ["cat/blue.png", "cat/red.png", "dog/green.png", "dog/white.png"]
        assert sent.read("dog/green.png") == (folder / "dog" / "green.png").read_bytes()
    for name in ("a.zip", "b.zip"):
        image_folder.pack(folder, tmp_path / name, flag="data")
        (folder / "cat" / "red.png").touch()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_what_is_wrong_with_a_folder_is_said_before_anything_is_queued(
    run: Any, services: Services, vit: str, folder: Path, tmp_path: Path, model: str
) -> None:
    (tmp_path / "empty").mkdir()
    secret = tmp_path / "secret.png"
    Image.new("RGB", (12, 12)).save(secret)

    def refused(model: str, path: Path) -> str:
        ran = run("submit", "-m", model, "--heads", "0.3", "--data", str(path))
        assert (ran.code, ran.lines) == (2, [])
        return str(ran.err)

    assert "holds no image" in refused(vit, tmp_path / "empty")
    assert "takes texts, and the data has images" in refused(model, folder)
    (folder / "bird").mkdir()
    (folder / "bird" / "1.png").write_bytes((folder / "cat" / "red.png").read_bytes())
    assert "has the label 'bird', which the model doesn't know; allowed: 0 to 1 or cat, dog" in refused(vit, folder)
    (folder / "bird" / "1.png").write_text("broken")
    assert "image bird/1.png can't be read" in refused(vit, folder)
    (folder / "bird" / "1.png").unlink()
    (folder / "bird" / "1.png").symlink_to(secret)
    assert "is a link that leads out of the directory" in refused(vit, folder)
