"""Pictures as data of a model of images: what it is given of them, and whole jobs."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import f1_score
from transformers import AutoImageProcessor

from prunectl.errors import InvalidData, InvalidInput
from prunectl.evaluation import encoding, images, quality
from prunectl.evaluation.data import Example
from prunectl.evaluation.pictures import decoded
from prunectl.worker import source as sources
from support import pipeline
from support.models import build, model

NAMES = ["cat", "dog", "owl"]
NAMED = {"id2label": dict(enumerate(NAMES))}


def pictures(count: int = 60) -> list[Example]:
    """Noise around a colour that is the class's."""
    draw = np.random.default_rng(0)
    found = []
    for number in range(count):
        label = number % len(NAMES)
        pixels = draw.integers(0, 120, (20, 16, 3))
        pixels[..., label] += 120
        held = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(held, "PNG")
        found.append(Example(f"{NAMES[label]}/{number:02}.png", label=label, image=held.getvalue()))
    return found


def zipped(examples: list[Example]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for example in examples:
            archive.writestr(example.text, example.image)
    return held.getvalue()


def test_a_picture_is_prepared_as_the_checkpoint_says(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "vit", "image-classification", **NAMED)
    subject = model("vit", "image-classification", **NAMED)
    examples = pictures(6)
    ready = images.prepared(examples, source, (12, 12))
    rows = encoding.encode(subject, None, ready, 24)
    given = encoding.collate(None, rows)["pixel_values"]
    opened = [Image.open(io.BytesIO(example.image)).convert("RGB") for example in examples]
    expected = AutoImageProcessor.from_pretrained(source)(opened, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(given, expected)
    (source / "preprocessor_config.json").unlink()
    usual = images.prepared(examples, source, (12, 12))[0].image.pixels()
    assert usual.shape == (3, 12, 12) and -1 <= float(usual.min()) < float(usual.max()) <= 1


def test_figures_are_scikit_learns(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "vit", "image-classification", **NAMED)
    subject = model("vit", "image-classification", seed=2, **NAMED)
    examples = images.prepared(pictures(), source, (12, 12))
    found = quality.evaluate(subject, None, "image-classification", examples, max_length=24, seed=0)
    with torch.no_grad():
        said = [int(subject(example.image.pixels()[None]).logits.argmax()) for example in examples]
    labels = [example.label for example in examples]
    assert found["eval_accuracy"].value == pytest.approx(np.mean(np.array(said) == labels))
    assert found["eval_f1"].value == pytest.approx(f1_score(labels, said, average="macro", zero_division=0))


def test_a_job_on_a_folder(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "vit", "image-classification", **NAMED)
    data = pipeline.upload(tmp_path, zipped(pictures()), "pets.zip")
    recipe: dict[str, Any] = {"heads": 0.5, "ffn": 0.3, "recover": "finetune", "recover_epochs": 1}
    result, directory = pipeline.run(source, recipe, tmp_path, data=data, max_drop=1.0)
    measured = {name: measure for name, measure in result.metrics.items() if measure.n is not None}
    assert set(measured) == {"eval_loss", "eval_accuracy", "eval_f1", "eval_agreement"}
    assert all(measure.n == 24 and measure.stderr is not None for measure in measured.values())
    assert all(measure.difference_stderr is not None for measure in measured.values())
    assert result.labels == "data" and result.conditions["primary_metric"] == "eval_accuracy"
    assert result.conditions["data"] == "images" and result.gate is not None and result.gate.passed
    assert (directory / "preprocessor_config.json").is_file()


def test_pictures_without_labels_are_fidelity(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "vit", "feature-extraction")
    flat = [Example(example.text.replace("/", "-"), image=example.image) for example in pictures()]
    data = pipeline.upload(tmp_path, zipped(flat), "flat.zip")
    result, _ = pipeline.run(source, {"heads": 0.5}, tmp_path, data=data)
    assert {n for n, m in result.metrics.items() if m.n is not None} == {"eval_cosine", "eval_overlap_at_10"}
    assert result.labels == "model"


def test_a_picture_that_ends_too_soon_is_named(tmp_path: Path) -> None:
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(held, "JPEG")
    cut = Example("cat/1.jpg", label=0, image=held.getvalue()[:1500])
    source = build(tmp_path / "source", "vit", "image-classification", **NAMED)
    subject = model("vit", "image-classification", **NAMED)
    examples = images.prepared([cut], source, (12, 12))
    with pytest.raises(InvalidData, match="image cat/1.jpg can't be read: image file is truncated"):
        quality.evaluate(subject, None, "image-classification", examples, max_length=24, seed=0)


def test_rows_are_ready_when_their_labels_and_pictures_are(tmp_path: Path) -> None:
    source = build(tmp_path / "source", "vit", "image-classification", **NAMED)
    config = model("vit", "image-classification", **NAMED).config.to_dict()
    named = [Example(e.text, label=NAMES[int(e.label or 0)], image=e.image) for e in pictures(3)]
    ready = sources._ready(source, config, "image-classification", named, "data")
    assert ready is not None and [example.label for example in ready] == [0, 1, 2]
    assert [example.image_digest for example in ready] == [example.image_digest for example in named]


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ('{"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}', r"images of \[3, 8, 8\]"),
        ('{"image_processor_type": "Nothing"}', "can't be used"),
        ("{", "can't be used"),
    ],
)
def test_a_processor_that_does_not_fit_its_model(described: str, message: str, tmp_path: Path) -> None:
    source = build(tmp_path / "source", "vit", "image-classification", **NAMED)
    (source / "preprocessor_config.json").write_text(described)
    with pytest.raises(InvalidInput, match=message) as caught:
        images.prepared(pictures(1), source, (12, 12))[0].image.pixels()
    assert caught.value.field == "model"


def test_a_photograph_is_turned_as_its_camera_says() -> None:
    held, turned = io.BytesIO(), Image.Exif()
    turned[274] = 6
    Image.new("RGB", (20, 10), "red").save(held, "JPEG", exif=turned)
    assert decoded("a.jpg", held.getvalue(), field="data").size == (10, 20)
