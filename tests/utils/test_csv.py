"""Numbers and words from .csv files, index columns, and what is wrong with a line."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from sktransfer.utils._csv import read_csv_features, read_csv_labels
from sktransfer.utils._validation import infer_task

X = np.array([[0.5, -1.0], [2.0, 3.25], [1e-3, 7.0]])
ROWS = "0.5,-1\n2,3.25\n1e-3,7\n"


@pytest.fixture
def file(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "a.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


class TestFeatures:
    @pytest.mark.parametrize(
        "header", ["", "first,second\n", '"a, b","c"\n', '"a\nb",c\n', "\n1.5,\n"]
    )
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_header_byte_order_mark_and_line_ends(self, header, end, mark, file):
        path = file((mark + header + ROWS + "\n").replace("\n", end))
        values, dropped = read_csv_features(path)
        np.testing.assert_array_equal(values, X)
        assert not dropped

    def test_quoted_numbers(self, file):
        path = file('"0.5","-1"\n2,"3.25"\n"1e-3",7')
        np.testing.assert_array_equal(read_csv_features(path)[0], X)

    def test_missing_values_are_handed_on(self, file):
        values, _ = read_csv_features(file("1.5,nan\n2,inf\n"))
        np.testing.assert_array_equal(values, [[1.5, np.nan], [2, np.inf]])

    @pytest.mark.parametrize("ids", ["012", "139", ["7.0", "8.0", "9.0"]])
    @pytest.mark.parametrize("name", [None, "", "Unnamed: 0", "id", " Index", "order"])
    def test_index_is_left_out_with_a_word(self, name, ids, file):
        lines = [f"{i},{row}" for i, row in zip(ids, ROWS.split(), strict=True)]
        if name is not None:
            lines.insert(0, f"{name},a,b")
        values, dropped = read_csv_features(file("\n".join(lines)))
        np.testing.assert_array_equal(values, X)
        (sentence,) = dropped
        assert (repr(name) if name is not None else "column 1") in sentence
        assert "rows are matched by their order in the file" in sentence

    def test_text_ids_by_name_anywhere(self, file):
        path = file('a,ID,b\n0.5,"img, 1",-1\n2,img2,3.25\n1e-3,img0,7\n')
        values, dropped = read_csv_features(path)
        np.testing.assert_array_equal(values, X)
        assert "'ID'" in dropped[0]

    def test_pandas(self, file, tmp_path):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(X)
        frame.to_csv(tmp_path / "a.csv")
        values, dropped = read_csv_features(tmp_path / "a.csv")
        np.testing.assert_array_equal(values, X)
        assert len(dropped) == 1
        frame = pandas.DataFrame(np.hstack([X, X]))
        frame.to_csv(tmp_path / "b.csv", index=False)
        values, dropped = read_csv_features(tmp_path / "b.csv")
        np.testing.assert_array_equal(values, np.hstack([X, X]))
        assert "column names" in dropped[0]

    def test_every_unnamed_index_is_left_out(self, file, tmp_path):
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame(X).to_csv(tmp_path / "a.csv")
        pandas.read_csv(tmp_path / "a.csv").to_csv(tmp_path / "b.csv")
        values, dropped = read_csv_features(tmp_path / "b.csv")
        np.testing.assert_array_equal(values, X)
        assert len(dropped) == 2

    @pytest.mark.parametrize("header", ["", "picture,a,b\n"])
    @pytest.mark.parametrize("start", [0, 1, 1000])
    def test_shuffled_index_is_left_out(self, header, start, file):
        rng = np.random.default_rng(0)
        features = rng.normal(size=(30, 2))
        lines = [
            f"{start + i},{a},{b}"
            for i, (a, b) in zip(rng.permutation(30), features, strict=True)
        ]
        values, dropped = read_csv_features(file(header + "\n".join(lines)))
        np.testing.assert_array_equal(values, features)
        assert len(dropped) == 1

    def test_ranks_beside_ranks_are_no_index(self, file):
        rng = np.random.default_rng(0)
        ranks = np.stack([rng.permutation(30) for _ in range(3)], axis=1)
        text = "\n".join(",".join(map(str, row)) for row in ranks)
        values, dropped = read_csv_features(file(text))
        np.testing.assert_array_equal(values, ranks)
        assert not dropped

    @pytest.mark.parametrize(
        "text",
        ["1,0.5\n2,0.1\n2,0.3", "2,0.5\n1,0.1\n3,0.3", "1,1\n2.5,0.1\n3,2", "1\n2\n3"],
    )
    def test_what_is_no_index_stays(self, text, file):
        values, dropped = read_csv_features(file(text))
        expected = [
            [float(cell) for cell in row.split(",")] for row in text.split("\n")
        ]
        np.testing.assert_array_equal(values, expected)
        assert not dropped

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("\n\n", "the file is empty"),
            ("\ufeff", "the file is empty"),
            ("a,b\n", "no rows below its header"),
            ("1,2\n\n3\n", "line 3 has 1 values, but the first has 2"),
            ("a,b\n1,2,3\n", "line 2 has 3 values, but the first has 2"),
            (
                "a,b\n1,2\n3,x\n",
                r"line 3, column 2 \(b\) holds 'x', not a number",
            ),
            ("1,2\n3,\n", "line 2, column 2 is empty"),
            (
                "1;2\n3;4\n",
                "line 2, column 1 .* holds '3;4', not a number; .* by commas",
            ),
            ('1,"a\nb"\n1,2\n3,x', "line 4, column 2"),
            ("a,b\n1,1_0\n", "line 2, column 2"),
            ("a,b\n1,\uff12\n", "line 2, column 2"),
            ("id\n1\n2\n3", "nothing but an index"),
        ],
    )
    def test_what_is_wrong_and_where(self, text, message, file):
        with pytest.raises(ValueError, match=message):
            read_csv_features(file(text))

    def test_another_encoding(self, file):
        with pytest.raises(ValueError, match="utf-8"):
            read_csv_features(file("é,1\n", "utf-16"))

    def test_takes_little_more_than_its_array(self, file):
        tracemalloc = pytest.importorskip("tracemalloc")
        rng = np.random.default_rng(0)
        lines = [",".join(map(str, row)) for row in rng.normal(size=(2000, 50))]
        path = file("\n".join(lines))
        tracemalloc.start()
        try:
            values, _ = read_csv_features(path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 3 * values.nbytes


class TestLabels:
    @pytest.mark.parametrize("header", ["", "animal\n"])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_words(self, header, end, mark, file):
        path = file(mark + f'{header}cat\n"dog, big"\ncat\n\n'.replace("\n", end))
        y, dropped = read_csv_labels(path, 3)
        assert y.tolist() == ["cat", "dog, big", "cat"]
        assert not dropped

    @pytest.mark.parametrize(
        ("text", "dtype"),
        [
            ("label\n0\n2\n1\n", np.int64),
            ("0\n +2\n1", np.int64),
            ("label\n0\n2.0\n1\n", np.float64),
            ("0.0\n2.0\n1.0", np.float64),
            ("0\n2\n1e0", np.float64),
        ],
    )
    def test_decimal_points_keep_whole_numbers_floats(self, text, dtype, file):
        y, _ = read_csv_labels(file(text), 3)
        assert y.dtype == dtype
        assert y.ravel().tolist() == [0, 2, 1]

    def test_whole_floats_are_no_classes(self, file):
        target = load_diabetes().target
        y, _ = read_csv_labels(file("\n".join(map(str, target))), len(target))
        np.testing.assert_array_equal(y.ravel(), target)
        assert infer_task(y) == "regression"

    @pytest.mark.parametrize("start", [2**53, 2**63 - 3, 2**63, 10**30])
    def test_large_integers_stay_apart(self, start, file):
        cells = [str(start + i % 3) for i in range(6)]
        y, _ = read_csv_labels(file("\n".join(cells)), 6)
        assert y.dtype.kind in "iU"
        assert list(map(str, y.ravel())) == cells

    def test_large_floats_stay_what_they_are(self, file):
        y, _ = read_csv_labels(file("1e300\n0\n1\n"), 3)
        assert y.ravel().tolist() == [1e300, 0, 1]

    @pytest.mark.parametrize("row", ["cat", "0,cat"])
    def test_label_that_comes_again_is_no_header(self, row, file):
        text = "\n".join([row, row.replace("cat", "dog"), row])
        if row != "cat":
            text = "0,cat\n1,dog\n2,cat"
        y, _ = read_csv_labels(file(text), 2)  # one sample too many
        assert y.tolist() == ["cat", "dog", "cat"]

    @pytest.mark.parametrize("name", ["label", "Target", "class"])
    def test_header_above_too_few_labels_is_no_label(self, name, file):
        y, dropped = read_csv_labels(file(f"{name}\ncat\ndog\ncat"), 4)
        assert y.tolist() == ["cat", "dog", "cat"]
        assert dropped == [f"took the first line, {name}, for a header."]

    def test_numbers(self, file):
        y, _ = read_csv_labels(file("0\n2.5\n1\n"), 3)
        assert y.ravel().tolist() == [0, 2.5, 1]

    def test_several_targets(self, file):
        y, dropped = read_csv_labels(file("a,b\n0,1\n1,1\n"), 2)
        assert y.tolist() == [[0, 1], [1, 1]]
        assert not dropped

    @pytest.mark.parametrize("name", [None, "", "id", "Index", "Unnamed: 0", "row"])
    @pytest.mark.parametrize("labels", [["1", "0", "1"], ["a", "b", "a"]])
    def test_index_is_left_out_with_a_word(self, name, labels, file):
        lines = [f"{i},{label}" for i, label in enumerate(labels)]
        if name is not None:
            lines.insert(0, f"{name},label")
        y, dropped = read_csv_labels(file("\n".join(lines)), 3)
        assert list(map(str, y.ravel())) == labels
        assert len(dropped) == 1

    def test_text_ids_by_name(self, file):
        y, dropped = read_csv_labels(file("label,id\ncat,x\ndog,y\n"), 2)
        assert y.tolist() == ["cat", "dog"]
        assert "'id'" in dropped[0]

    @pytest.mark.parametrize("values", [[1, 0, 1], ["cat", "dog", "cat"], [0.5, 1, 2]])
    @pytest.mark.parametrize("named", [True, False])
    @pytest.mark.parametrize("index", [True, False])
    def test_pandas(self, values, named, index, tmp_path):
        pandas = pytest.importorskip("pandas")
        series = pandas.Series(values, name="label" if named else None)
        series.to_csv(tmp_path / "y.csv", index=index)
        y, dropped = read_csv_labels(tmp_path / "y.csv", 3)
        assert y.ravel().tolist() == values
        assert len(dropped) == (index or not named)  # pandas calls it 0

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("\n\n", "the file is empty"),
            ("a,b\n1\n", "line 2 has 1 values, but the first has 2"),
            ('y\ncat\n""\ndog', "line 3 has no label"),
            ('y\n1\n""\n2', "line 3 has no label"),
            ("y\n1\nNaN\n2", "line 3 has no label"),
            ("y\ncat\n \ndog", "line 3 has no label"),
            ("y\ncat\n NaN\ndog", "line 3 has no label"),
            ("cat\0\ndog\0\ncat\0", "line 1 has zero bytes, as UTF-16 has"),
            (
                "image,label\nx,cat\ny,dog",
                r"2 columns \(image, label\).*keep one column",
            ),
            ("x,1\ny,0", r"2 columns, not all of them numbers"),
            (
                "image;label\na;1\nb;1\nc;2",
                "every label is different, as ids are",
            ),
            ("PassengerId,y\n7,0\n9,1\n4,1", "'PassengerId' holds a different whole"),
            ("0,7\n1,9\n1,4", "column 2 holds a different whole number in every row"),
        ],
    )
    def test_what_is_wrong(self, text, message, file):
        with pytest.raises(ValueError, match=message):
            read_csv_labels(file(text), 2)

    def test_numbers_that_differ_are_targets(self, file):
        y, _ = read_csv_labels(file("a,b\n0.5,1.5\n0.25,3\n1,0"), 3)
        assert y.tolist() == [[0.5, 1.5], [0.25, 3], [1, 0]]
        y, _ = read_csv_labels(file("7\n9\n4"), 3)
        assert y.ravel().tolist() == [7, 9, 4]
