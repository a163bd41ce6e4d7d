"""Folders of images and tables of texts."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_files

from sktransfer.datasets import load_image_folder, load_text_csv

Image = pytest.importorskip("PIL.Image")
pandas = pytest.importorskip("pandas")


def draw(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(file)


@pytest.fixture
def folder(tmp_path):
    names = "b/2.jpg b/1.PNG b/deep/3.webp a/x.jpeg a/y.bmp".split()
    draw(*(tmp_path / "images" / name for name in names))
    for name in ("a/notes.txt", "a/.hidden.jpg", "b/Thumbs.db", "labels.csv"):
        (tmp_path / "images" / name).write_text("no image")
    (tmp_path / "images" / ".git").mkdir()
    return tmp_path / "images"


def test_images_and_labels(folder):
    X, y = load_image_folder(folder)
    names = [os.path.relpath(path, folder).replace(os.sep, "/") for path in X]
    assert names == "a/x.jpeg a/y.bmp b/1.PNG b/2.jpg b/deep/3.webp".split()
    assert y.tolist() == ["a", "a", "b", "b", "b"]
    assert load_image_folder(str(folder))[0] == X
    assert load_image_folder(folder, labelled=False) == X
    assert load_image_folder(folder / "b", labelled=False) == X[2:]


def test_same_as_scikit_learn(tmp_path):
    draw(*(tmp_path / f"{i % 3}" / f"{i}.png" for i in range(20)))
    X, y = load_image_folder(tmp_path)
    same = load_files(tmp_path, load_content=False)
    names = np.array(same.target_names)[same.target]
    assert dict(zip(X, y, strict=True)) == dict(zip(same.filenames, names, strict=True))


def test_linked_classes_are_followed(tmp_path, folder):
    (tmp_path / "links").mkdir()
    for name in "ab":
        (tmp_path / "links" / name).symlink_to(folder / name)
    assert len(load_image_folder(tmp_path / "links")[0]) == 5


def test_folders_that_are_none(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder '.*nowhere'"):
        load_image_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_image_folder(folder / "labels.csv")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match=r"at least 2 classes. Got \[\]"):
        load_image_folder(empty)
    with pytest.raises(ValueError, match="Found no images in '.*empty'"):
        load_image_folder(empty, labelled=False)
    (empty / "one").mkdir()
    with pytest.raises(ValueError, match=r"at least 2 classes. Got \['one'\]"):
        load_image_folder(empty)
    (folder / "c").mkdir()
    with pytest.raises(ValueError, match=r"no images in the subfolders \['c'\]"):
        load_image_folder(folder)
    draw(folder / "stray.jpg")
    with pytest.raises(ValueError, match="Got 1 outside .* 'stray.jpg'.*labelled=F"):
        load_image_folder(folder)


@pytest.mark.parametrize("labelled", [True, False])
def test_files_that_are_no_images_are_named(folder, labelled):
    for i in range(7):
        Path(folder, "a", f"page{i}.jpg").write_text("<html>not found</html>")
    message = r"7 of 12 files cannot .*page0.jpg' \(Unidentified.* and 2 more. Remove"
    with pytest.raises(ValueError, match=message):
        load_image_folder(folder, labelled=labelled)


@pytest.fixture
def write(tmp_path):
    def write(text, encoding="utf-8"):
        file = tmp_path / "table.csv"
        file.write_text(text, encoding=encoding)
        return file

    return write


def test_texts_and_labels(write):
    file = write('id,text,label\n1,"good, very",pos\n2,NA,neg\n3,null,None\n')
    X, y = load_text_csv(file, text="text", label="label")
    assert X == ["good, very", "NA", "null"]
    assert y.tolist() == ["pos", "neg", "None"]
    assert load_text_csv(str(file), text="text") == X


def test_kinds_of_columns(write):
    file = write("a\tb\tn\tx\n1\té\t0\t0.5\n2\tf\t1\t1\n")
    X, y = load_text_csv(file, text=["a", "b"], label="n", sep="\t")
    assert X == [("1", "é"), ("2", "f")]
    assert y.dtype.kind == "i"
    X, y = load_text_csv(file, text="b", label="x", sep="\t")
    assert y.tolist() == [0.5, 1.0]
    windows = write("text,label\na,1\nb,2\n", encoding="utf-8-sig")
    assert load_text_csv(windows, text="text") == ["a", "b"]


@pytest.mark.parametrize(
    ("table", "params", "message"),
    [
        ("text,label\na,1\n", {"text": "texts"}, r"no column 'texts'.*\['text', 'l"),
        ("text,label\na,1\n", {"label": "y"}, "no column 'y'"),
        ("text,label\n", {}, "The table has no rows"),
        ("text,label\na,1\n,2\n", {}, "'text' is empty in 1 of 2 rows.* row 1,"),
        ("text,label\na,1\nb,\n", {"label": "label"}, "'label' is empty.*unlabelled"),
        ("text,label\na,1\nb,1\n", {"label": "label"}, "at least 2 different labels"),
        ("text,label\na,1\n", {"text": ["text"] * 3}, "one column or two"),
    ],
)
def test_tables_that_are_none(write, table, params, message):
    with pytest.raises(ValueError, match=message):
        load_text_csv(write(table), **{"text": "text", **params})


def test_texts_with_separators_outside_of_quotes():
    table = io.StringIO("text,label\nhello, world,1\nbye, all,0\n")
    with pytest.raises(ValueError, match="more fields than its columns"):
        load_text_csv(table, text="text", label="label")
