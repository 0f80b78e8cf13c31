"""Rows of each kind, and what is said about one that is wrong."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
from PIL import Image

from prunectl.errors import InvalidData, InvalidInput
from prunectl.evaluation.data import Example, check, digest, labels_of, read, split
from prunectl.evaluation.rows import COLUMNS
from prunectl.evaluation.tasks import task_of
from prunectl.schemas import ColumnName

TAGGER = {"model_type": "bert", "id2label": {"0": "O", "1": "B-PER", "2": "I-PER"}}
PETS = {"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}
SQUAD = {"question": "Who?", "context": " It was Ada. ", "answers": {"text": ["Ada"], "answer_start": [8]}}


def lines(directory: Path, *rows: Any) -> Path:
    path = directory / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def picture(colour: str = "red", form: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (20, 14), colour).save(held, form)
    return held.getvalue()


def archive(directory: Path, entries: dict[str, bytes | str], name: str = "pets.zip") -> Path:
    with zipfile.ZipFile(directory / name, "w") as packed:
        for entry, content in entries.items():
            packed.writestr(entry, content)
    return directory / name


def test_the_names_of_columns_are_those_that_a_submission_may_map() -> None:
    assert set(COLUMNS) == set(get_args(ColumnName))


class TestTags:
    def test_words_and_tags(self, tmp_path: Path) -> None:
        path = lines(tmp_path, {"tokens": ["Ada", "wrote"], "tags": ["B-PER", 0]}, {"tokens": ["So"], "tags": [2]})
        found = read(path)
        assert found[0] == Example("Ada wrote", words=("Ada", "wrote"), tags=("B-PER", 0))
        assert labels_of(found) == "tags"
        assert [example.tags for example in check(found, TAGGER, "token-classification")] == [(1, 0), (2,)]

    def test_a_table_holds_json_or_words_with_spaces(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_text('tokens,ner\nAda wrote,B-PER O\n"[""New York""]","[1]"\n')
        assert [(e.words, e.tags) for e in read(path, columns={"tags": "ner"})] == [
            (("Ada", "wrote"), ("B-PER", "O")),
            (("New York",), (1,)),
        ]

    def test_parquet_lists(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        path = tmp_path / "rows.parquet"
        parquet.write_table(pyarrow.table({"tokens": [["a", "b"]], "ner_tags": [[0, 1]], "id": [0]}), path)
        assert read(path, columns={"tags": "ner_tags"}) == [Example("a b", words=("a", "b"), tags=(0, 1))]

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"tokens": ["a", "b"], "tags": [0]}, "row 1 has 1 tags for 2 tokens"),
            ({"tags": [0]}, "row 1 has tags but no tokens"),
            ({"tokens": [], "tags": []}, "row 1 has no words in tokens"),
            ({"tokens": ["a", 1], "tags": [0, 0]}, "row 1 has no words in tokens"),
            ({"tokens": ["a"], "tags": [0.5]}, "row 1 has the tag 0.5"),
            ({"tokens": {"a": 1}, "tags": [0]}, "row 1 has tokens that are dict, not a list"),
        ],
    )
    def test_bad_rows(self, tmp_path: Path, row: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidData, match=message) as caught:
            read(lines(tmp_path, row), field="calibration")
        assert caught.value.field == "calibration"

    def test_an_unknown_tag_is_named_with_its_row(self) -> None:
        with pytest.raises(InvalidData, match=r"row 7 has the tag 'B-PRE'.* 0 to 2 or O, B-PER, I-PER") as caught:
            check([Example("a", words=("a",), tags=("B-PRE",), row=7)], TAGGER, "token-classification")
        assert caught.value.hint == "did you mean B-PER?"
        with pytest.raises(InvalidData, match="the tag 3"):
            check([Example("a", words=("a",), tags=(3,))], TAGGER, "token-classification")

    def test_some_rows_with_tags_and_some_without(self) -> None:
        rows = [Example("a", words=("a",), tags=(0,), row=1), Example("b", row=2)]
        with pytest.raises(InvalidData, match="row 2 has no tags although other rows have"):
            check(rows, TAGGER, "token-classification")


class TestQuestions:
    def test_squad(self, tmp_path: Path) -> None:
        none = {"question": "Where?", "context": "Here.", "answers": {"text": [], "answer_start": []}}
        listed = {**SQUAD, "answers": [{"text": "Ada", "answer_start": 8}, {"text": "It", "answer_start": 1}]}
        found = read(lines(tmp_path, SQUAD, none, listed, {"question": "What?", "context": "That."}))
        assert found[0] == Example("Who?", " It was Ada. ", answers=(("Ada", 8),))
        assert [example.answers for example in found[1:]] == [(), (("Ada", 8), ("It", 1)), None]
        assert labels_of(found) == "answers"
        with pytest.raises(InvalidData, match="row 4 has no answers although other rows have"):
            check(found, {"model_type": "bert"}, "question-answering")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"answers": {"text": ["Bob"], "answer_start": [8]}}, "the answer 'Bob', which is nowhere in its context"),
            ({"answers": {"text": ["Ada"], "answer_start": [7]}}, "'Ada', which is not at character 7 of its context"),
            ({"answers": {"text": ["Ada"], "answer_start": [-5]}}, "is not at character -5"),
            ({"answers": {"text": ["Ada"], "answer_start": []}}, "has other answers than SQuAD's"),
            ({"answers": {"text": [""], "answer_start": [0]}}, "whose text is no string"),
            ({"answers": "Ada"}, "row 1 has answers that are not JSON"),
            ({"context": None}, "row 1 has question but no context"),
            ({"question": None}, "row 1 has answers but no question"),
            ({"context": 5}, "has a context that is int"),
            ({"question": " "}, "row 1 has no question"),
        ],
    )
    def test_bad_rows(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            read(lines(tmp_path, {**SQUAD, **change}))

    def test_where_the_answer_stands_is_hinted(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidData) as caught:
            read(lines(tmp_path, {**SQUAD, "answers": {"text": ["Ada"], "answer_start": [0]}}))
        assert caught.value.hint == "it stands at 8"

    def test_a_column_that_stands_for_the_text_is_no_context(self, tmp_path: Path) -> None:
        assert read(lines(tmp_path, SQUAD), columns={"text": "context"}) == [Example("It was Ada.")]


class TestPairs:
    def test_anchors_and_queries(self, tmp_path: Path) -> None:
        rows = [{"anchor": "a", "positive": "b"}, {"query": "c", "text": "d"}, {"text": "e", "label": 1, "query": "q"}]
        found = read(lines(tmp_path, *rows))
        assert found == [Example("a", positive="b"), Example("c", positive="d"), Example("e", label=1)]
        assert labels_of(found[:2]) == "pair"
        named = read(lines(tmp_path, {"q": "a", "doc": "b"}), columns={"query": "q", "text": "doc"})
        assert named == [Example("a", positive="b")]

    @pytest.mark.parametrize(("row", "message"), [
        ({"anchor": "a"}, "row 1 has anchor but no positive"),
        ({"query": "a"}, "row 1 has query but no text"),
        ({"anchor": "a", "positive": ""}, "row 1 has no positive"),
    ])  # fmt: skip
    def test_bad_rows(self, tmp_path: Path, row: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            read(lines(tmp_path, row))


class TestImages:
    def test_a_directory_is_a_class(self, tmp_path: Path) -> None:
        entries: dict[str, bytes | str] = {
            "dog/2.jpg": picture("blue", "JPEG"), "cat/1.png": picture(), "cat/note.txt": "no image",
            "__MACOSX/cat/._1.png": "junk", "cat/.hidden.png": "junk",
        }  # fmt: skip
        found = read(archive(tmp_path, entries))
        assert [(e.text, e.label, e.row) for e in found] == [("cat/1.png", "cat", 1), ("dog/2.jpg", "dog", 2)]
        assert found[0].image == entries["cat/1.png"]
        assert [example.label for example in check(found, PETS, "image-classification")] == [0, 1]

    @pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
    def test_a_metadata_file_names_images_and_labels(self, tmp_path: Path, name: str) -> None:
        rows = {
            "metadata.jsonl": '{"file_name": "b/1.png", "kind": "dog"}',
            "metadata.csv": "file_name,kind\nb/1.png,dog\n",
        }
        path = archive(tmp_path, {"b/1.png": picture(), "b/2.png": picture("blue"), name: rows[name]})
        found = read(path, columns={"label": "kind"})
        assert [(example.text, example.label) for example in found] == [("b/1.png", "dog")]
        renamed = archive(tmp_path, {"1.png": picture(), "metadata.jsonl": '{"picture": "1.png", "label": 1}'})
        assert [example.label for example in read(renamed, columns={"image": "picture"})] == [1]

    def test_parquet_as_the_hub_has_it(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        held = {"image": [{"bytes": picture(), "path": "a.png"}], "labels": [1]}
        parquet.write_table(pyarrow.table(held), tmp_path / "rows.parquet")
        [found] = read(tmp_path / "rows.parquet", columns={"label": "labels"})
        assert (found.text, found.label, found.image) == ("a.png", 1, held["image"][0]["bytes"])

    @pytest.mark.parametrize(
        ("entries", "message"),
        [
            ({}, "holds no image"),
            ({"readme.txt": "nothing"}, "holds no image"),
            ({"cat/1.png": picture()[:60]}, "image cat/1.png can't be read"),
            ({"cat/1.png": "text"}, "image cat/1.png can't be read"),
            ({"../1.png": picture()}, r"names '\.\./1\.png', which is outside the folder"),
            ({"/etc/1.png": picture()}, "outside the folder"),
            ({"metadata.jsonl": '{"file_name": "../../etc/passwd"}', "1.png": picture()}, "outside the folder"),
            ({"metadata.jsonl": '{"file_name": "2.png"}', "1.png": picture()}, "row 1 names the image '2.png', which isn't in"),
            ({"metadata.jsonl": '{"label": 1}', "1.png": picture()}, "row 1 has no file_name"),
            ({"metadata.csv": "label\n1\n", "1.png": picture()}, "metadata.csv has no column"),
        ],
    )  # fmt: skip
    def test_bad_folders(self, tmp_path: Path, entries: dict[str, bytes | str], message: str) -> None:
        with pytest.raises(InvalidData, match=message):
            read(archive(tmp_path, entries))

    def test_what_is_no_archive(self, tmp_path: Path) -> None:
        (tmp_path / "a.zip").write_bytes(b"PK no")
        with pytest.raises(InvalidData, match="is not a ZIP file"):
            read(tmp_path / "a.zip")

    def test_an_image_that_claims_to_be_vast_is_not_decoded(self, tmp_path: Path) -> None:
        content = bytearray(picture("red", "BMP"))
        content[18:26] = (60_000).to_bytes(4, "little") * 2
        with pytest.raises(InvalidData, match="can't be read.*exceeds limit"):
            read(archive(tmp_path, {"cat/1.bmp": bytes(content)}))

    def test_a_path_in_a_file_of_rows_reaches_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidData, match="a file of rows doesn't hold") as caught:
            read(lines(tmp_path, {"image": "/etc/passwd", "label": 0}))
        assert "metadata.jsonl" in str(caught.value.hint)

    def test_the_same_picture_is_one_example_whatever_its_name(self) -> None:
        same = [Example("a", image=b"1", label=0), Example("b", image=b"1", label=0), Example("c", image=b"2", label=1)]
        calibration, evaluation = split(same, n_evaluation=5, n_calibration=5, seed=0)
        assert len(calibration) == len(evaluation) == 1
        assert digest(same[:1]) != digest([Example("a", image=b"2", label=0)])

    def test_texts_and_images_are_told_apart(self) -> None:
        with pytest.raises(InvalidInput, match="takes images, and the data has texts") as caught:
            check([Example("a")], PETS, "image-classification", field="calibration")
        assert caught.value.field == "calibration"
        with pytest.raises(InvalidInput, match="takes texts, and the data has images"):
            check([Example("a", image=b"1")], TAGGER, "token-classification")


@pytest.mark.parametrize(
    ("architecture", "labels", "task"),
    [
        ("BertForTokenClassification", "tags", "token-classification"),
        ("BertForQuestionAnswering", "answers", "question-answering"),
        ("BertForQuestionAnswering", None, "question-answering"),
        ("BertModel", "pair", "feature-extraction"),
        ("ViTForImageClassification", "label", "image-classification"),
    ],
)
def test_the_head_decides(architecture: str, labels: Any, task: str) -> None:
    assert task_of({"architectures": [architecture]}, labels=labels) == task


@pytest.mark.parametrize(
    ("architecture", "labels", "message", "hint"),
    [
        ("BertForMaskedLM", "tags", "no token-classification head", "use a fine-tuned checkpoint, or --task fill-mask"),
        ("BertForSequenceClassification", "answers", "no question-answering head", "or --task text-classification"),
        ("BertForTokenClassification", "label", "has labels, but .* no classification head", "--task token-class"),
        ("BertForMaskedLM", "pair", "queries with their passages", "use --task feature-extraction"),
        ("ViTModel", "label", "no classification head", "--task feature-extraction"),
    ],
)
def test_labels_without_a_head_are_refused(architecture: str, labels: Any, message: str, hint: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        task_of({"architectures": [architecture]}, labels=labels)
    assert hint in str(caught.value.hint) and caught.value.field == "data"
