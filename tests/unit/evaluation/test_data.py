from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from prunectl.errors import InvalidData
from prunectl.evaluation.builtin import prose
from prunectl.evaluation.data import Example, check, digest, read, split

NAMED = {"model_type": "bert", "id2label": {"0": "negative", "1": "neutral", "2": "positive"}}


def write(directory: Path, name: str, content: str | bytes) -> Path:
    path = directory / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class TestRead:
    def test_text_is_one_example_a_line(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.txt", "\ufeffone two\r\n\r\n  three\u2028four  \n")
        assert read(path) == [Example("one two"), Example("three\u2028four")]
        assert [example.row for example in read(path)] == [1, 3]

    def test_json_lines_have_pairs_and_labels_and_other_columns_are_ignored(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "text_pair": "b", "label": 1, "id": 7}, {"text": "c", "label": "positive"}, {"text": "d"}]
        path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
        assert read(path) == [Example("a", "b", 1), Example("c", None, "positive"), Example("d")]

    def test_escapes_of_whole_characters_are_read(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.jsonl", '{"text": "\\ud83d\\ude00 \\u00e4"}\n')
        assert [example.text for example in read(path)] == ["😀 ä"]

    def test_csv_has_long_texts(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", "text\n" + "word " * 50_000 + "\n")
        assert len(read(path)[0].text.split()) == 50_000

    def test_csv_has_quoted_texts_over_several_lines(self, tmp_path: Path) -> None:
        path = write(tmp_path, "a.csv", 'label,text\n1,"one, ""two""\nthree"\n,four\n')
        assert read(path) == [Example('one, "two"\nthree', None, "1"), Example("four")]

    def test_parquet(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        path = tmp_path / "a.parquet"
        parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [1, None], "other": [0, 0]}), path)
        assert read(path) == [Example("a", None, 1), Example("b")]

    def test_an_upload_is_named_as_the_user_named_it(self, tmp_path: Path) -> None:
        path = write(tmp_path, "0f3a", '{"text": ""}')
        with pytest.raises(InvalidData, match=r"data file reviews\.jsonl row 1 has no text") as caught:
            read(path, ".jsonl", name="reviews.jsonl", field="calibration")
        assert caught.value.field == "calibration"

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.txt", "", "is empty"),
            ("a.txt", " \n\t\n", "is empty"),
            ("a.csv", "text,label\n", "holds no rows"),
            ("a.txt", b"PK\x03\x04\x00\x00", "is binary"),
            ("a.jsonl", b"\xff\xfe{\x00", "is UTF-16"),
            ("a.txt", b"fine\ncaf\xe9\n", "line 2 has the byte 0xe9"),
            ("a.jsonl", '{"text": "a"}\n{"text": \n', "row 2"),
            ("a.jsonl", '{"text": "a"}\n["b"]\n', "row 2 that is not a JSON object"),
            ("a.jsonl", "[" * 100_000, "row 1"),
            ("a.jsonl", '{"text": "a"}\n{"label": 1}\n', "row 2 has no text"),
            ("a.jsonl", '{"text": "a"}\n{"text": null}\n', "row 2 has no text"),
            ("a.jsonl", '{"text": "a"}\n{"text": "half a \\ud83d"}\n', "row 2 has half of a surrogate pair"),
            ("a.jsonl", '{"text": 5}', "row 1 has a text that is int"),
            ("a.jsonl", '{"text": "a", "label": true}', "row 1 has the label True"),
            ("a.jsonl", '{"text": "a", "label": 0.5}', "row 1 has the label 0.5"),
            ("a.csv", "sentence,label\na,1\n", "no column text; its columns are sentence, label"),
            ("a.csv", "text,label\na,1\n  ,1\n", "row 2 has no text"),
            ("a.csv", "text,label\na,b,1\n", "more fields in row 1"),
            ("a.csv", 'text\n"a\n', "is not CSV: row 1"),
            ("a.parquet", "PAR1", "is not Parquet"),
            ("a.tsv", "text\na\n", "has the suffix '.tsv', which is none of .txt, .jsonl, .csv, .parquet"),
        ],
    )
    def test_a_bad_file_is_named_with_its_row(
        self, tmp_path: Path, name: str, content: str | bytes, message: str
    ) -> None:
        if name.endswith(".parquet"):
            pytest.importorskip("pyarrow")
        with pytest.raises(InvalidData) as caught:
            read(write(tmp_path, name, content))
        assert f"data file {name} " in str(caught.value)
        assert message in str(caught.value)
        assert str(tmp_path) not in str(caught.value)
        assert caught.value.field == "data"

    def test_hints_name_what_is_near(self, tmp_path: Path) -> None:
        write(tmp_path, "reviews.csv", "text\na\n")
        with pytest.raises(InvalidData) as caught:
            read(tmp_path / "review.csv")
        assert caught.value.hint == "did you mean reviews.csv?"
        with pytest.raises(InvalidData) as caught:
            read(tmp_path / "reviews.json")
        assert caught.value.hint == "did you mean .jsonl?"
        with pytest.raises(InvalidData) as caught:
            read(write(tmp_path, "b.csv", "Text,label\na,1\n"))
        assert caught.value.hint == "give --column text=Text"

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.csv", "sentence,gold,text_pair\ngood film,1,it is\n"),
            ("a.jsonl", '{"sentence": "good film", "gold": 1, "text_pair": "it is", "text": "another"}\n'),
        ],
    )
    def test_columns_may_have_other_names(self, tmp_path: Path, name: str, content: str) -> None:
        columns = {"text": "sentence", "label": "gold"}
        [example] = read(write(tmp_path, name, content), columns=columns)
        assert example.texts == ("good film", "it is")
        assert str(example.label) == "1"

    def test_a_table_of_parquet_too(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.table({"sentence": ["a"], "gold": [2], "other": [1]}), tmp_path / "a.parquet")
        [example] = read(tmp_path / "a.parquet", columns={"text": "sentence", "label": "gold"})
        assert (example.text, example.label) == ("a", 2)

    def test_a_file_without_the_other_name_may_have_ours(self, tmp_path: Path) -> None:
        assert read(write(tmp_path, "a.csv", "text\na\n"), columns={"text": "sentence"}) == [Example("a")]

    def test_a_column_that_no_name_fits_is_told_with_those_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidData) as caught:
            read(write(tmp_path, "a.csv", "sentence,label\na,1\n"), columns={"text": "sentences"})
        assert "has no column sentences; its columns are sentence, label" in str(caught.value)
        assert caught.value.hint == "give --column text=sentence"
        with pytest.raises(InvalidData) as caught:
            read(write(tmp_path, "a.jsonl", '{"sentence": "a"}\n'), columns={"text": "sentences"})
        assert "row 1 has no sentences" in str(caught.value)
        assert caught.value.hint == "give --column text=sentence"

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").mkdir()
        with pytest.raises(InvalidData, match="is a directory"):
            read(tmp_path / "a.txt")


class TestCheck:
    def test_names_and_digits_become_integers(self) -> None:
        examples = [Example("a", label="positive"), Example("b", label=1), Example("c", label="0")]
        assert [example.label for example in check(examples, NAMED)] == [2, 1, 0]

    def test_a_name_goes_before_a_number(self) -> None:
        assert check([Example("a", label="1")], {"id2label": {0: "1", 1: "0"}})[0].label == 0

    def test_without_labels_nothing_is_checked(self) -> None:
        assert check([Example("a")], {}) == [Example("a")]

    def test_without_names_the_count_decides(self) -> None:
        assert check([Example("a", label=1)], {})[0].label == 1
        with pytest.raises(InvalidData, match="allowed: 0 to 1"):
            check([Example("a", label=2)], {})

    @pytest.mark.parametrize("label", [3, -1, "3", "9" * 5000, "Positive", "postive"])
    def test_a_label_out_of_range_is_named_with_its_row(self, label: int | str) -> None:
        examples = [Example("a", label=0, row=1), Example("b", label=label, row=2)]
        with pytest.raises(InvalidData) as caught:
            check(examples, NAMED)
        assert "row 2 has the label" in str(caught.value)
        assert "allowed: 0 to 2 or negative, neutral, positive" in str(caught.value)

    def test_the_nearest_name_is_hinted(self) -> None:
        with pytest.raises(InvalidData) as caught:
            check([Example("a", label="postive")], NAMED)
        assert caught.value.hint == "did you mean positive?"

    def test_some_rows_labelled_and_others_not(self) -> None:
        with pytest.raises(InvalidData, match="row 5 has no label although"):
            check([Example("a", label=0), Example("b", row=5)], NAMED)


class TestSplit:
    POOL = [Example(f"text {index % 90}") for index in range(100)]

    @pytest.mark.parametrize(
        ("n_evaluation", "n_calibration", "sizes"),
        [
            (20, 30, (30, 20)),
            (512, 512, (45, 45)),
            (300, 100, (22, 68)),
            (None, None, (45, 45)),
            (None, 10, (10, 80)),
            (None, 500, (45, 45)),
            (10, None, (80, 10)),
            (1000, 1, (1, 89)),
        ],
    )
    def test_one_source_gives_disjoint_sides(
        self, n_evaluation: int | None, n_calibration: int | None, sizes: tuple[int, int]
    ) -> None:
        calibration, evaluation = split(self.POOL, n_evaluation=n_evaluation, n_calibration=n_calibration, seed=3)
        assert (len(calibration), len(evaluation)) == sizes
        assert not {e.text for e in calibration} & {e.text for e in evaluation}
        assert max(Counter(e.text for e in [*calibration, *evaluation]).values()) == 1

    def test_it_depends_on_the_seed_alone(self) -> None:
        first = split(self.POOL, n_evaluation=20, n_calibration=20, seed=1)
        assert first == split(self.POOL, n_evaluation=20, n_calibration=20, seed=1)
        assert first != split(self.POOL, n_evaluation=20, n_calibration=20, seed=2)
        assert first[1] == split(self.POOL, n_evaluation=20, n_calibration=5, seed=1)[1]

    def test_calibration_apart_loses_what_is_evaluated_on(self) -> None:
        apart = [Example(f"text {index}") for index in range(80, 110)]
        calibration, evaluation = split(self.POOL, calibration=apart, n_evaluation=None, n_calibration=None, seed=0)
        assert len(evaluation) == 90
        assert {example.text for example in calibration} == {f"text {index}" for index in range(90, 110)}

    def test_nothing_left_is_refused(self) -> None:
        with pytest.raises(InvalidData, match="single distinct text"):
            split([Example("a"), Example("a")], n_evaluation=None, n_calibration=None, seed=0)
        with pytest.raises(InvalidData, match="none is left") as caught:
            split([Example("a")], calibration=[Example("a")], n_evaluation=None, n_calibration=None, seed=0)
        assert caught.value.field == "calibration"

    def test_the_first_row_of_a_repeated_text_counts(self) -> None:
        rows = [Example("a", label=0), Example("b", label=0), Example("a", label=1)]
        both = [*split(rows, n_evaluation=1, n_calibration=1, seed=0)]
        assert sorted((e.text, e.label) for side in both for e in side) == [("a", 0), ("b", 0)]


def test_digest_is_of_texts_and_labels_but_not_of_where_they_stood() -> None:
    assert digest([Example("a", row=1)]) == digest([Example("a", row=2)])
    assert len({digest(rows) for rows in ([Example("a")], [Example("a", "b")], [Example("a", label=0)], [])}) == 4


def test_code_grammar_tables_and_headings_are_no_prose() -> None:
    text = """
    A heading of more than six plain words
    ******************************************

    The return statement leaves the current
    function call with its value.

       return_stmt ::= "return" [expression_list] and so on and on.

    >>> print("this is an example that runs to a full stop.")

       found = [value for value in values if value is not None]

    * A bullet is as good as any other sentence.
    """
    assert list(prose(text)) == [
        "The return statement leaves the current function call with its value.",
        "A bullet is as good as any other sentence.",
    ]
