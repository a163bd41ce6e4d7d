"""Reading features and labels from files."""

from __future__ import annotations

import numpy as np
import pytest

from sktransfer.utils._files import read_arrays, read_feature_files, read_labels

X = np.array([[0.5, -1.0], [2.0, 3.25], [1e-3, 7.0]])


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


class TestFeatures:
    def test_one_file_a_model(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        np.savez(tmp_path / "b.npz", 2 * X)
        np.savetxt(tmp_path / "c.csv", 3 * X, delimiter=",")
        paths = [tmp_path / name for name in ("c.csv", "a.npy", "b.npz")]
        features = read_feature_files(paths)
        assert list(features) == ["c", "a", "b"]
        for factor, name in enumerate("abc", start=1):
            np.testing.assert_array_equal(features[name], factor * X)

    def test_each_array_of_an_archive_is_a_model(self, tmp_path):
        np.savez_compressed(tmp_path / "zoo.npz", resnet=X, vit=2 * X)
        features = read_feature_files([tmp_path / "zoo.npz"])
        assert list(features) == ["zoo:resnet", "zoo:vit"]

    def test_names_that_repeat_get_their_folders(self, tmp_path):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            np.save(tmp_path / folder / "features.npy", X)
        paths = [tmp_path / folder / "features.npy" for folder in ("a", "b")]
        assert list(read_feature_files(paths)) == [str(path) for path in paths]

    def test_file_given_twice(self, tmp_path):
        np.save(tmp_path / "a.npy", X)
        with pytest.raises(ValueError, match="given twice"):
            read_feature_files([tmp_path / "a.npy"] * 2)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint8", "bool"])
    def test_numbers_of_any_kind(self, dtype, tmp_path):
        np.save(tmp_path / "a.npy", X.astype(dtype))
        assert read_feature_files([tmp_path / "a.npy"])["a"].dtype == dtype

    @pytest.mark.parametrize("shape", [(), (6,), (2, 3, 1)])
    def test_other_shapes(self, shape, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros(shape))
        with pytest.raises(
            ValueError, match=r"a\.npy must have shape \(n_samples, n_f"
        ):
            read_feature_files([tmp_path / "a.npy"])

    @pytest.mark.parametrize("array", [X.astype(str), X.astype(complex)])
    def test_no_numbers(self, array, tmp_path):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match=r"a\.npy must hold numbers; it holds"):
            read_feature_files([tmp_path / "a.npy"])


class TestCsv:
    @pytest.mark.parametrize("header", ["", "first,second\n", '"a, b","c"\n'])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_header_byte_order_mark_and_line_ends(self, header, end, mark, tmp_path):
        rows = "0.5,-1\n2,3.25\n1e-3,7\n\n"
        path = tmp_path / "a.csv"
        path.write_bytes((mark + header + rows).replace("\n", end).encode())
        np.testing.assert_array_equal(read_arrays(path)[""], X)

    def test_missing_values_are_handed_on(self, tmp_path):
        path = write(tmp_path / "a.csv", "1.5,nan\n2,inf\n")
        np.testing.assert_array_equal(
            read_arrays(path)[""], [[1.5, np.nan], [2, np.inf]]
        )

    def test_whole_numbers_are_integers(self, tmp_path):
        path = write(tmp_path / "y.csv", "label\n0\n2.0\n1\n")
        y = read_labels(path, 3)
        assert y.dtype == np.int64
        assert y.tolist() == [0, 2, 1]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "the file is empty"),
            ("\n\n", "the file is empty"),
            ("1,2\n3\n", "between 1 and 2 values"),
        ],
    )
    def test_damaged(self, text, message, tmp_path):
        path = write(tmp_path / "a.csv", text)
        with pytest.raises(ValueError, match=rf"a\.csv cannot be read: .*{message}"):
            read_arrays(path)

    def test_another_encoding(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_bytes("é,1\n".encode("utf-16"))
        with pytest.raises(ValueError, match="cannot be read"):
            read_arrays(path)


class TestLabels:
    @pytest.mark.parametrize("header", ["", "animal\n"])
    def test_words(self, header, tmp_path):
        path = write(tmp_path / "y.csv", f"{header}cat\ndog\ncat\n")
        assert read_labels(path, 3).tolist() == ["cat", "dog", "cat"]

    def test_column_becomes_one_dimension(self, tmp_path):
        np.save(tmp_path / "y.npy", np.array([[1], [0], [2]]))
        assert read_labels(tmp_path / "y.npy", 3).shape == (3,)

    def test_several_targets(self, tmp_path):
        path = write(tmp_path / "y.csv", "a,b\n0,1\n1,1\n")
        assert read_labels(path, 2).tolist() == [[0, 1], [1, 1]]

    def test_words_in_an_array(self, tmp_path):
        np.save(tmp_path / "y.npy", np.array(["cat", "dog"]))
        assert read_labels(tmp_path / "y.npy", 2).tolist() == ["cat", "dog"]

    def test_several_arrays(self, tmp_path):
        np.savez(tmp_path / "y.npz", train=np.arange(3), test=np.arange(3))
        with pytest.raises(
            ValueError, match=r"one array; it holds \['test', 'train'\]"
        ):
            read_labels(tmp_path / "y.npz", 3)

    @pytest.mark.parametrize("shape", [(), (2, 2, 2)])
    def test_other_shapes(self, shape, tmp_path):
        np.save(tmp_path / "y.npy", np.zeros(shape))
        with pytest.raises(
            ValueError, match=r"y\.npy must have shape \(n_samples,\) or"
        ):
            read_labels(tmp_path / "y.npy", 2)


class TestFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(ValueError, match=r"a\.npy does not exist"):
            read_arrays(tmp_path / "a.npy")

    @pytest.mark.parametrize("name", ["a.pkl", "a", "a.npy.txt"])
    def test_of_another_kind(self, name, tmp_path):
        write(tmp_path / name, "1,2\n")
        with pytest.raises(ValueError, match=r"must end in one of \.npy, \.npz, \.csv"):
            read_arrays(tmp_path / name)

    def test_folder(self, tmp_path):
        (tmp_path / "a.npy").mkdir()
        with pytest.raises(ValueError, match="does not exist"):
            read_arrays(tmp_path / "a.npy")

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_pickles_are_refused(self, name, tmp_path):
        array = np.array([{"a": 1}, None], dtype=object)
        save = np.save if name.endswith("npy") else np.savez
        save(tmp_path / name, array, allow_pickle=True)
        with pytest.raises(ValueError, match=r"cannot be read: .*allow_pickle=False"):
            read_arrays(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    @pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00v"])
    def test_damaged(self, name, content, tmp_path):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} cannot be read"):
            read_arrays(tmp_path / name)

    def test_archive_that_was_cut_short(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez_compressed(path, a=np.arange(1000.0))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="cannot be read"):
            read_arrays(path)

    def test_archive_with_damaged_content(self, tmp_path):
        path = tmp_path / "a.npz"
        np.savez_compressed(path, a=np.random.default_rng(0).normal(size=1000))
        whole = bytearray(path.read_bytes())
        whole[500:600] = bytes(100)
        path.write_bytes(bytes(whole))
        with pytest.raises(ValueError, match="cannot be read"):
            read_arrays(path)

    def test_empty_archive(self, tmp_path):
        np.savez(tmp_path / "a.npz")
        with pytest.raises(ValueError, match="holds no array"):
            read_arrays(tmp_path / "a.npz")

    @pytest.mark.parametrize("name", ["a.npy", "a.npz"])
    def test_suffix_of_the_other_kind(self, name, tmp_path):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, X) if name.endswith("npy") else np.save(file, X)
        (array,) = read_arrays(tmp_path / name).values()
        np.testing.assert_array_equal(array, X)
