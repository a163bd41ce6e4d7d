"""Reading features and labels from files, and writing one in the place of another."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sktransfer.utils._files import check_output, open_features, read_labels, replacing

X = np.array([[0.5, -1.0], [2.0, 3.25], [1e-3, 7.0]])


def features_of(paths):
    """Features by name, read."""
    return {name: array.read() for name, array in open_features(paths).items()}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def npy_with_header(header):
    """Bytes of an .npy file of version 1.0 with any header, and 48 bytes of data."""
    content = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content)) + content + bytes(48)


class TestFeatures:
    def test_one_file_a_model(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        np.savez(tmp_path / "b.npz", 2 * X)
        np.savetxt(tmp_path / "c.csv", 3 * X, delimiter=",")
        paths = [tmp_path / name for name in ("c.csv", "a.npy", "b.npz")]
        features = features_of(paths)
        assert list(features) == ["c", "a", "b"]
        for factor, name in enumerate("abc", start=1):
            np.testing.assert_array_equal(features[name], factor * X)

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_each_array_of_an_archive_is_a_model(self, save, tmp_path):
        save(tmp_path / "zoo.npz", resnet=X, vit=2 * X)
        features = features_of([tmp_path / "zoo.npz"])
        assert list(features) == ["zoo:resnet", "zoo:vit"]
        np.testing.assert_array_equal(features["zoo:vit"], 2 * X)

    def test_names_that_repeat_get_their_folders(self, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            np.save(tmp_path / folder / "features.npy", X)
        paths = [tmp_path / folder / "features.npy" for folder in ("a", "b")]
        assert list(open_features(paths)) == [str(path) for path in paths]

    def test_name_like_that_of_an_array_in_an_archive(self, tmp_path):
        np.savez(tmp_path / "zoo.npz", a=X, b=2 * X)
        np.save(tmp_path / "zoo:b.npy", 3 * X)
        features = features_of([tmp_path / "zoo.npz", tmp_path / "zoo:b.npy"])
        assert len(features) == 3
        np.testing.assert_array_equal(features["zoo:b"], 2 * X)
        np.testing.assert_array_equal(features[str(tmp_path / "zoo:b.npy")], 3 * X)

    def test_file_given_twice(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        with pytest.raises(ValueError, match="given twice"):
            open_features([tmp_path / "a.npy"] * 2)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "bool"])
    def test_numbers_of_any_kind(self, dtype, tmp_path):
        np.save(tmp_path / "a.npy", X.astype(dtype))
        assert features_of([tmp_path / "a.npy"])["a"].dtype == dtype

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_bytes_and_axes_in_the_other_order(self, name, tmp_path):
        other = np.asfortranarray(X).astype(X.dtype.newbyteorder("S"))
        (np.save if name == "a.npy" else np.savez)(tmp_path / name, other)
        (array,) = features_of([tmp_path / name]).values()
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, X)

    @pytest.mark.parametrize("shape", [(), (6,), (2, 3, 1), (0, 3), (3, 0)])
    def test_other_shapes(self, shape, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros(shape))
        with pytest.raises(
            ValueError, match=r"a\.npy must have shape \(n_samples, n_f"
        ):
            open_features([tmp_path / "a.npy"])

    @pytest.mark.parametrize("array", [X.astype(str), X.astype(complex)])
    def test_no_numbers(self, array, tmp_path):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match=r"a\.npy must hold numbers; it holds"):
            open_features([tmp_path / "a.npy"])

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_files_stay_on_disk_until_they_are_read(self, name, tmp_path):
        save = np.save if name == "a.npy" else np.savez
        save(tmp_path / name, X)
        (array,) = open_features([tmp_path / name]).values()
        assert array.values is None
        assert array.shape == X.shape
        save(tmp_path / name, 2 * X)
        np.testing.assert_array_equal(array.read(), 2 * X)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_files_are_found_from_another_folder(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (np.save if name == "a.npy" else np.savez)(name, X)
        (array,) = open_features([Path(name)]).values()
        (tmp_path / "worker").mkdir()
        monkeypatch.chdir("worker")
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(array)).read(), X)


class TestLabels:
    def test_column_becomes_one_dimension(self, tmp_path):
        np.save(tmp_path / "y.npy", np.array([[1], [0], [2]]))
        assert read_labels(tmp_path / "y.npy", 3).tolist() == [1, 0, 2]

    @pytest.mark.parametrize("dtype", [str, bytes])
    def test_words_in_an_array(self, dtype, tmp_path):
        np.save(tmp_path / "y.npy", np.array(["cat", "dog"], dtype=dtype))
        assert read_labels(tmp_path / "y.npy", 2).tolist() == ["cat", "dog"]

    def test_words_in_an_array_have_no_header(self, tmp_path):
        np.save(tmp_path / "y.npy", np.array(["cat", "dog", "cat"]))
        assert len(read_labels(tmp_path / "y.npy", 2)) == 3

    def test_several_arrays(self, tmp_path):
        np.savez(tmp_path / "y.npz", train=np.arange(3), test=np.arange(3))
        with pytest.raises(
            ValueError, match=r"one array; it holds \['test', 'train'\]"
        ):
            read_labels(tmp_path / "y.npz", 3)

    @pytest.mark.parametrize("shape", [(), (2, 2, 2), (0,), (2, 0)])
    def test_other_shapes(self, shape, tmp_path):
        np.save(tmp_path / "y.npy", np.zeros(shape))
        with pytest.raises(
            ValueError, match=r"y\.npy must have shape \(n_samples,\) or"
        ):
            read_labels(tmp_path / "y.npy", 2)

    def test_another_encoding(self, tmp_path):
        (tmp_path / "y.csv").write_bytes("é\nb\né\n".encode("latin-1"))
        with pytest.raises(
            ValueError, match=r"y\.csv cannot be read: .*save it in UTF-8"
        ):
            read_labels(tmp_path / "y.csv", 3)

    @pytest.mark.parametrize("suffix", [".npy", ".npz"])
    def test_file_that_changes_before_it_is_read(self, suffix, tmp_path):
        path = tmp_path / f"a{suffix}"
        save = np.save if suffix == ".npy" else np.savez
        save(path, np.ones((4, 2)))
        (array,) = open_features([path]).values()
        save(path, np.ones((6, 2)))
        with pytest.raises(ValueError, match=r"was \(4, 2\) .* and is \(6, 2\) now"):
            array.read()

    @pytest.mark.parametrize("missing", ["", " ", "nan", "NaN"])
    @pytest.mark.parametrize("kind", ["U", "S"])
    def test_missing_text_names_the_row(self, missing, kind, tmp_path):
        np.save(tmp_path / "y.npy", np.array(["a", "b", missing, "a"], dtype=kind))
        with pytest.raises(ValueError, match="no label in 1 of 4 rows, .* row 3"):
            read_labels(tmp_path / "y.npy", 4)

    def test_missing_numbers_name_the_row(self, tmp_path):
        np.save(tmp_path / "y.npy", [0, 1, np.nan, 1, np.inf])
        with pytest.raises(ValueError, match=r"in 2 of 5 rows, .* row 3\. Leave these"):
            read_labels(tmp_path / "y.npy", 5)

    @pytest.mark.parametrize("dtype", ["datetime64[s]", complex])
    def test_neither_labels_nor_numbers(self, dtype, tmp_path):
        np.save(tmp_path / "y.npy", np.arange(3).astype(dtype))
        with pytest.raises(ValueError, match=r"y\.npy must hold labels or numbers"):
            read_labels(tmp_path / "y.npy", 3)


class TestDamage:
    def test_missing(self, tmp_path):
        with pytest.raises(ValueError, match=r"a\.npy does not exist"):
            open_features([tmp_path / "a.npy"])

    @pytest.mark.parametrize("name", ["a.pkl", "a", "a.npy.txt"])
    def test_of_another_kind(self, name, tmp_path):
        write(tmp_path / name, "1,2\n")
        with pytest.raises(ValueError, match=r"must end in one of \.npy, \.npz, \.csv"):
            open_features([tmp_path / name])

    @pytest.mark.parametrize("name", ["A.NPY", "A.CSV"])
    def test_suffix_in_capitals(self, name, tmp_path):
        if name == "A.CSV":
            np.savetxt(tmp_path / name, X, delimiter=",")
        else:
            with (tmp_path / name).open("wb") as file:
                np.save(file, X)
        np.testing.assert_array_equal(features_of([tmp_path / name])["A"], X)

    @pytest.mark.parametrize("name", ["features", "a.npy"])
    def test_folder(self, name, tmp_path):
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match=rf"{name} is a folder.*{name}.\*\.npy"):
            open_features([tmp_path / name])
        with pytest.raises(ValueError, match="is a folder"):
            read_labels(tmp_path / name, 3)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
    def test_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "a.npy")
        with pytest.raises(ValueError, match=r"a\.npy is a pipe or a device"):
            open_features([tmp_path / "a.npy"])

    def test_name_that_no_file_can_have(self, tmp_path):
        with pytest.raises(ValueError, match="cannot be read"):
            open_features([tmp_path / ("a" * 5000 + ".npy")])

    def test_links(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        (tmp_path / "b.npy").symlink_to(tmp_path / "a.npy")
        (tmp_path / "c.npy").symlink_to(tmp_path / "none.npy")
        (tmp_path / "d.npy").symlink_to(tmp_path / "d.npy")
        np.testing.assert_array_equal(features_of([tmp_path / "b.npy"])["b"], X)
        for name in ("c.npy", "d.npy"):
            with pytest.raises(ValueError, match=rf"{name} "):
                open_features([tmp_path / name])

    @pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.csv"])
    def test_empty(self, name, tmp_path):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=rf"{name} is empty"):
            open_features([tmp_path / name])
        with pytest.raises(ValueError, match=rf"{name} is empty"):
            read_labels(tmp_path / name, 3)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_pickles_are_refused(self, name, tmp_path):
        array = np.array([{"a": 1}, None], dtype=object)
        save = np.save if name.endswith("npy") else np.savez
        save(tmp_path / name, array, allow_pickle=True)
        message = "cannot be read: it holds Python objects, and nothing is unpickled"
        with pytest.raises(ValueError, match=message):
            open_features([tmp_path / name])
        with pytest.raises(ValueError, match=message):
            read_labels(tmp_path / name, 2)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    @pytest.mark.parametrize("content", [b"hello", b"\x93NUMPY\x01\x00v", b"PK", b"P"])
    def test_damaged(self, name, content, tmp_path):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} cannot be read: \S"):
            open_features([tmp_path / name])

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 'b')}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-3, 2)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (4, 2)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (10**9, 10**6)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000)}",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 2 << 32)}",
            "{'descr': '<q9', 'fortran_order': False, 'shape': (3, 2)}",
            "{'descr': None, 'fortran_order': False, 'shape': (3, 2)}",
            "(" * 3000,
            "{" + " " * 20000 + "}",
            "\x00" * 64,
            "3",
        ],
    )
    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_damaged_or_huge_header(self, header, name, tmp_path):
        content = npy_with_header(header)
        if name == "a.npz":
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                archive.writestr("x.npy", content)
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} cannot be read: \S"):
            open_features([tmp_path / name])

    def test_array_that_was_cut_short(self, tmp_path):
        path = tmp_path / "a.npy"
        np.save(path, X)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(
            ValueError, match=r"shape \(3, 2\), 48 bytes, but 47 follow"
        ):
            open_features([path])

    def test_archive_that_was_cut_short(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez_compressed(path, a=np.arange(1000.0))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="cannot be read"):
            open_features([path])

    def test_archive_with_damaged_content(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez_compressed(path, a=np.random.default_rng(0).normal(size=(100, 10)))
        whole = bytearray(path.read_bytes())
        whole[500:600] = bytes(100)
        path.write_bytes(bytes(whole))
        with pytest.raises(ValueError, match="cannot be read"):
            features_of([path])

    def test_archive_without_arrays(self, tmp_path):
        np.savez(tmp_path / "a.npz")
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
            archive.writestr("readme.txt", "no array")
        for name in ("a.npz", "b.npz"):
            with pytest.raises(ValueError, match=rf"{name} holds no array"):
                open_features([tmp_path / name])
            with pytest.raises(ValueError, match=rf"{name} holds no array"):
                read_labels(tmp_path / name, 3)

    def test_archive_with_more_than_arrays(self, tmp_path):
        buffer = io.BytesIO()
        np.save(buffer, X)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("readme.txt", "no array")
            archive.writestr("x.npy", buffer.getvalue())
        np.testing.assert_array_equal(features_of([tmp_path / "a.npz"])["a"], X)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_suffix_of_the_other_kind(self, name, tmp_path):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, X) if name.endswith("npy") else np.save(file, X)
        np.testing.assert_array_equal(features_of([tmp_path / name])["a"], X)


class TestOutput:
    def test_a_failure_leaves_the_old_file_whole(self, tmp_path):
        path = write(tmp_path / "a.csv", "old")
        with pytest.raises(RuntimeError), replacing(path) as file:
            file.write("half of the new")
            raise RuntimeError
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_the_target_of_a_link_is_replaced(self, tmp_path):
        (tmp_path / "folder").mkdir()
        path = write(tmp_path / "folder" / "a.csv", "old")
        (tmp_path / "b.csv").symlink_to(path)
        with replacing(tmp_path / "b.csv") as file:
            file.write("new\udce9\n")
        assert (tmp_path / "b.csv").is_symlink()
        assert path.read_bytes() == b"new\\udce9\n"
        assert list(path.parent.iterdir()) == [path]

    def test_refused_before_any_work(self, tmp_path):
        features = write(tmp_path / "a.csv", "1,2")
        (tmp_path / "folder.csv").mkdir()
        (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
        (tmp_path / "same.csv").symlink_to(features)
        for name, says in [
            ("out.txt", "must end in .csv"),
            ("none/out.csv", "none is not a folder; create it first"),
            ("folder.csv", "folder.csv exists, but is not a file"),
            ("loop.csv", "loop.csv"),
            ("a.csv", "a.csv is an input"),
            ("same.csv", "same.csv is an input"),
        ]:
            with pytest.raises(ValueError, match=says):
                check_output(tmp_path / name, [features, Path("none.npy")])
        check_output(tmp_path / "out.csv", [features])

    def test_missing_folder_behind_a_link_is_named(self, tmp_path):
        (tmp_path / "out.csv").symlink_to(tmp_path / "none" / "out.csv")
        with pytest.raises(ValueError, match="none is not a folder"):
            check_output(tmp_path / "out.csv", [])

    def test_file_that_must_not_be_written_to(self, tmp_path, monkeypatch):
        path = write(tmp_path / "out.csv", "kept")
        monkeypatch.setattr(os, "access", lambda place, mode: place != path)
        with pytest.raises(ValueError, match=r"out\.csv must not be written to"):
            check_output(path, [])

    def test_folder_that_must_not_be_written_to(self, tmp_path, monkeypatch):
        # The one who runs the tests may write everywhere.
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
        with pytest.raises(ValueError, match="must not be written to"):
            check_output(tmp_path / "out.csv", [])


def test_an_empty_line_among_labels_is_a_missing_one(tmp_path):
    """With a header it would pass for a file of as many words as samples."""
    path = tmp_path / "patients.csv"
    path.write_text("patient\nann\n\nbob\n\n")
    with pytest.raises(ValueError, match="line 3 is empty"):
        read_labels(path, 3)
    path.write_text("patient\nann\nbob\n\n\n")
    assert read_labels(path, 2).tolist() == ["ann", "bob"]
