"""The command line: tables, files, and one sentence for what went wrong."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.preprocessing import scale
from sklearn.utils.parallel import Parallel

import sktransfer
from sktransfer.cli import main
from sktransfer.metrics import (
    LabelledData,
    deep_logme_score,
    deep_loo_accuracy_score,
    get_metric,
    linear_probe_score,
    logme_score,
    loo_accuracy_score,
    loo_log_likelihood_score,
    loo_r2_score,
    transrate_score,
)

X, y = load_wine(return_X_y=True)
X = scale(X)
WORDS = np.array(["red", "white", "pink"])[y]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two models' features and labels, in a folder where the commands run."""
    monkeypatch.chdir(tmp_path)
    # Tables as wide as their content.
    monkeypatch.setenv("COLUMNS", "200")
    np.save("small.npy", X[:, :2])
    np.save("large.npy", X)
    np.save("y.npy", y)
    return tmp_path


LOGME = ["--metric", "logme", "loo_accuracy"]


def rank(*arguments, features=("small.npy", "large.npy"), labels="y.npy"):
    return main(["rank", "--features", *features, "--labels", labels, *arguments])


def first_words(output, n_models):
    """Rank and name in the rows of the table."""
    rows = [line.split() for line in output.splitlines()]
    return [row[:2] for row in rows if row and row[0].isdigit()][-n_models:]


class TestRank:
    def test_table(self, folder, capsys):
        assert rank() == 0
        output, errors = capsys.readouterr()
        assert "2 models on 178 samples: classification, 3 classes" in output
        assert "log-lik. ± se" in output
        assert "P(> next)" in output
        assert first_words(output, 2) == [["1", "large"], ["2", "small"]]
        assert f"{loo_log_likelihood_score(X, y):.4f} ± " in output
        assert not errors

    def test_metrics_by_default(self, folder, capsys):
        np.savez("net.npz", conv=X[:, :6], fc=X[:, ::3])
        np.save("numbers.npy", X[:, 0] + X[:, 5] ** 2)
        header, likelihood = ["gain", "P(>", "next)", "tied"], ["log-lik.", "±", "se"]
        accuracy = ["accuracy", "%", "width"]
        for arguments, files, columns in (
            ([], {}, [*likelihood, *header, *accuracy]),
            ([], {"labels": "numbers.npy"}, [*likelihood, *header, "R²", "width"]),
            (
                ["--layers"],
                {"features": ["net.npz", "large.npy"]},
                ["deep", "LogME", "±", "se", *header, *accuracy],
            ),
        ):
            assert rank(*arguments, **files) == 0
            output = capsys.readouterr().out
            rows = [line.split() for line in output.splitlines()]
            assert ["#", "model", *columns] in rows
            assert ("LogME" in output) == ("--layers" in arguments)
        layers = {"conv": X[:, :6], "fc": X[:, ::3]}
        assert f"{deep_logme_score(layers, y):.4f} ± " in output
        assert rank("--output", "out.csv") == 0
        with open("out.csv", newline="", encoding="utf-8") as file:
            best = next(csv.DictReader(file))
        expected = loo_log_likelihood_score(X, y)
        assert float(best["loo_log_likelihood"]) == pytest.approx(expected)
        assert float(best["loo_accuracy"]) == pytest.approx(loo_accuracy_score(X, y))
        assert "logme" not in best

    def test_expected_accuracy_and_no_information(self, folder, capsys):
        assert rank(*LOGME) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        large = next(row for row in rows if row[:2] == ["1", "large"])
        none = next(row for row in rows if row[:2] == ["no", "information"])
        shares = np.bincount(y) / len(y)
        nothing = -0.5 * np.mean(1 + np.log(2 * np.pi * shares))
        gain = logme_score(X, y) - nothing
        assert none == [
            "no",
            "information",
            f"{nothing:.4f}",
            "0.000",
            f"{100 * shares.max():.1f}",
        ]
        p, mean = large[6], loo_accuracy_score(X, y)
        assert large[:3] == ["1", "large", f"{logme_score(X, y):.4f}"]
        assert large[5] == f"{gain:.3f}"
        assert 0.95 < float(p) <= 1
        error = get_metric("loo_accuracy").score(LabelledData(X, y)).std_error
        assert large[7:] == [f"{100 * mean:.1f}", "±", f"{100 * error:.1f}", "13"]

    def test_expected_r2(self, folder, capsys):
        target = X[:, 0] + X[:, 5] ** 2
        np.save("numbers.npy", target)
        assert rank("--output", "out.csv", labels="numbers.npy") == 0
        output = capsys.readouterr().out
        assert "R²" in output
        assert f"{loo_r2_score(X, target):.3f} ± " in output
        (none,) = (line for line in output.splitlines() if "no information" in line)
        assert none.split()[-2:] == ["0.000", "0.000"]  # gain and R^2
        with open("out.csv", newline="", encoding="utf-8") as file:
            rows = {row["name"]: row for row in csv.DictReader(file)}
        assert float(rows["large"]["loo_r2"]) == pytest.approx(loo_r2_score(X, target))

    def test_csv_has_fractions(self, folder):
        assert rank(*LOGME, "--output", "out.csv") == 0
        with open("out.csv", newline="", encoding="utf-8") as file:
            best = next(csv.DictReader(file))
        assert float(best["loo_accuracy"]) == pytest.approx(loo_accuracy_score(X, y))
        assert 0 < float(best["loo_accuracy_std_error"]) < 0.1
        assert float(best["logme_gain"]) > 0

    def test_metrics_are_those_given(self, folder, capsys):
        assert rank("--metric", "h_score") == 0
        output = capsys.readouterr().out
        assert "accuracy" not in output
        assert "no information" not in output
        assert rank("--metric", "loo_accuracy", "logme") == 0
        assert "accuracy % ± std. error" in capsys.readouterr().out

    def test_models_too_close_to_call(self, folder, capsys):
        rng = np.random.default_rng(0)
        for i in range(2):
            noise = rng.normal(size=(len(X), 2))
            np.save(f"twin{i}.npy", np.hstack([X[:, :6], noise]))
        features = ["small.npy", "twin0.npy", "large.npy", "twin1.npy"]
        assert rank(features=features) == 0
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        rows = [row for row in rows if row and row[0].isdigit() and "±" in row]
        tied = {row[1]: "2-3" in row for row in rows}
        assert tied == {"large": False, "twin0": True, "twin1": True, "small": False}

    def test_groups(self, folder, capsys):
        np.save("groups.npy", np.arange(178) // 4)
        Path("groups.csv").write_text(
            "patient\n" + "\n".join(f"p{i // 4}" for i in range(178))
        )
        expected = loo_accuracy_score(X, y, groups=np.arange(178) // 4)
        for file in ("groups.npy", "groups.csv"):
            assert rank("--groups", file, "--output", "out.csv") == 0
            output = capsys.readouterr().out
            assert "2 models on 178 samples in 45 groups: classification" in output
            with open("out.csv", newline="", encoding="utf-8") as table:
                best = next(csv.DictReader(table))
            assert float(best["loo_accuracy"]) == pytest.approx(expected)

    def test_note_where_logme_disagrees(self, folder, capsys):
        rng = np.random.default_rng(0)
        labels = np.arange(300) % 30
        second = rng.normal(size=(30, 20))[labels] + 1.2 * rng.normal(size=(300, 20))
        # Half of the classes almost without error, and nothing about the others.
        half = np.eye(30)[labels][:, :15] + 0.01 * rng.normal(size=(300, 15))
        first = np.hstack([half, rng.normal(size=(300, 20))])
        np.save("first.npy", first)
        np.save("second.npy", second)
        np.save("labels.npy", labels)
        features = ["second.npy", "first.npy"]
        assert rank(*LOGME, labels="labels.npy", features=features) == 0
        output = " ".join(capsys.readouterr().out.split())
        better, worse = (loo_accuracy_score(Z, labels) for Z in (second, first))
        assert "Note: LogME ranks first first, but second is clearly" in output
        assert f"accuracy {100 * better:.1f} ± " in output
        assert f"% against {100 * worse:.1f} ± " in output
        assert "use --metric loo_log_likelihood loo_accuracy." in output
        metrics = ["--metric", "loo_log_likelihood", "loo_accuracy"]
        assert rank(*metrics, labels="labels.npy", features=features) == 0
        output = capsys.readouterr().out
        assert first_words(output, 2) == [["1", "second"], ["2", "first"]]
        assert "Note" not in output

    @pytest.mark.parametrize("labels", ["y.csv", "words.csv", "words.npy", "y.npz"])
    @pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv"])
    def test_kinds_of_files(self, suffix, labels, folder, capsys):
        for name, features in (("a", X[:, :2]), ("b", X)):
            if suffix == ".csv":
                header = ",".join(f"f{i}" for i in range(features.shape[1]))
                header = header if name == "a" else ""
                np.savetxt(
                    name + ".csv", features, "%.17g", ",", header=header, comments=""
                )
            else:
                (np.save if suffix == ".npy" else np.savez)(name + suffix, features)
        Path("y.csv").write_text("label\n" + "\n".join(map(str, y)))
        Path("words.csv").write_text("\n".join(WORDS) + "\n")
        np.save("words.npy", WORDS)
        np.savez("y.npz", y)
        assert rank(*LOGME, features=["a" + suffix, "b" + suffix], labels=labels) == 0
        output = capsys.readouterr().out
        assert first_words(output, 2) == [["1", "b"], ["2", "a"]]
        # A header taken for a sample, or labels for numbers, would change this.
        assert f"{logme_score(X, y):.4f} ± " in output

    def test_models_in_one_archive(self, folder, capsys):
        np.savez("zoo.npz", resnet=X, vit=X[:, :3])
        assert rank(features=["zoo.npz"]) == 0
        rows = first_words(capsys.readouterr().out, 2)
        assert rows == [["1", "zoo:resnet"], ["2", "zoo:vit"]]

    def test_several_metrics(self, folder, capsys):
        assert rank("--metric", "transrate", "logme", "h_score") == 0
        output = capsys.readouterr().out
        assert f"{transrate_score(X, y):.4f}" in output
        assert f"{logme_score(X, y):.4f} ± " in output
        assert "h_score" in output
        assert "P(> next)" not in output

    def test_layers(self, folder, capsys):
        layers = {"conv1": X[:, :6], "conv2": X[:, 6:] ** 2, "fc": X[:, ::3]}
        np.savez("net.npz", **layers)
        np.savez("other.npz", conv1=X[:, :2], fc=X[:, 1:4])
        asked = ["--metric", "deep_logme", "deep_loo_accuracy", "logme", "--layers"]
        assert rank(*asked, features=["net.npz", "other.npz"]) == 0
        output, errors = capsys.readouterr()
        assert not errors
        assert "2 models on 178 samples" in output
        assert f"{deep_logme_score(layers, y):.4f} ± " in output
        assert f"{100 * deep_loo_accuracy_score(layers, y):.1f} ± " in output
        assert f"{logme_score(X[:, ::3], y):.4f} ± " in output
        assert "deep_: of all layers of a network at once." in output
        assert rank(*LOGME, "--layers", features=["net.npz", "large.npy"]) == 0
        assert f"{logme_score(X, y):.4f} ± " in capsys.readouterr().out

    def test_one_layer(self, folder, capsys):
        asked = ["--metric", "deep_logme", "--layers"]
        assert rank(*asked, features=["large.npy"]) == 0
        output, errors = capsys.readouterr()
        assert f"{logme_score(X, y, fit_intercept=True):.4f} ± " in output
        assert "warning: large: scores of all layers see the features only" in errors

    def test_task(self, folder, capsys):
        assert rank("--task", "regression", "--metric", "logme", "loo_r2") == 0
        expected = logme_score(X, y, task="regression", fit_intercept=True)
        output = capsys.readouterr().out
        assert f"{expected:.4f} ± " in output
        assert "178 samples: regression, 1 target" in output

    def test_task_reaches_every_metric(self, folder, capsys):
        assert rank("--task", "regression", "--metric", "linear_probe") == 0
        expected = linear_probe_score(X, y, task="regression")
        assert f"{expected:.4f}" in capsys.readouterr().out

    def test_integers_that_may_be_numbers(self, folder, capsys):
        np.save("ages.npy", np.arange(178) // 2)
        assert rank(labels="ages.npy") == 0
        output, errors = capsys.readouterr()
        assert "classification, 89 classes" in output
        assert "warning: y holds 89 different whole numbers" in errors
        assert "pass --task regression; --task classification silences" in errors

    def test_numbers(self, folder, capsys):
        np.save("numbers.npy", X[:, 0] + 0.1)
        assert rank(labels="numbers.npy") == 0
        assert "178 samples" in capsys.readouterr().out

    def test_several_labels(self, folder, capsys):
        Path("y.csv").write_text("\n".join(f"{i % 2},{i % 3 // 2}" for i in range(178)))
        assert rank(labels="y.csv") == 0

    def test_output(self, folder, capsys):
        assert rank("--metric", "logme", "transrate", "--output", "out.csv") == 0
        output, errors = capsys.readouterr()
        assert "2 models" in output
        assert errors == "written: out.csv\n"
        with open("out.csv", newline="", encoding="utf-8") as file:
            best, worst = csv.DictReader(file)
        assert (best["name"], worst["name"]) == ("large", "small")
        assert (best["rank"], worst["rank"]) == ("1", "2")
        assert float(best["logme"]) == pytest.approx(logme_score(X, y), abs=1e-12)
        assert float(worst["transrate"]) == pytest.approx(transrate_score(X[:, :2], y))
        assert float(best["logme_std_error"]) > 0
        assert best["n_features"] == "13"
        assert best["error"] == ""

    def test_workers(self, folder, capsys):
        assert rank("--jobs", "2") == 0
        assert "large" in capsys.readouterr().out

    def test_no_more_workers_than_models(self, folder, monkeypatch):
        asked = []

        def parallel(n_jobs, **options):
            asked.append(n_jobs)
            return Parallel(n_jobs=1, **options)

        monkeypatch.setattr("sktransfer.model_selection._jobs.Parallel", parallel)
        assert rank("--jobs", "100000") == 0
        assert asked == [2]

    def test_brackets_in_names_are_no_markup(self, folder, capsys):
        np.save("net[red].npy", X)
        np.save("net[bold].npy", X[:, :4])
        names = sorted(str(path) for path in folder.glob("net*.npy"))
        assert rank(features=names) == 0
        output = capsys.readouterr().out
        assert all(Path(name).stem in output for name in names)

    def test_failing_model_among_good_ones(self, folder, capsys):
        damaged = X.copy()
        damaged[[3, 9], 1] = np.nan
        np.save("damaged.npy", damaged)
        features = ["damaged.npy", "small.npy", "large.npy"]
        assert rank("--output", "out.csv", features=features) == 0
        output, errors = capsys.readouterr()
        rows = first_words(output, 3)
        assert rows == [["1", "large"], ["2", "small"], ["3", "damaged"]]
        assert "failed: damaged: ValueError" in output
        assert "NaN or infinity in 2 of 178 rows" in " ".join(output.split())
        assert errors == "written: out.csv\n"
        assert "NaN or infinity" in Path("out.csv").read_text()

    @pytest.mark.parametrize("name", ["a__b", "memory", "task", "_", "日本 é", "a:b"])
    def test_files_of_any_name(self, name, folder, capsys):
        np.save(f"{name}.npy", X)
        assert rank("--output", "out.csv", features=["small.npy", f"{name}.npy"]) == 0
        assert name in capsys.readouterr().out
        assert f"\n{name}," in Path("out.csv").read_text(encoding="utf-8")

    def test_name_of_two_lines_is_one_row(self, folder, capsys):
        np.save("a\n    9  forged.npy", X)
        assert rank(features=["small.npy", "a\n    9  forged.npy"]) == 0
        output = capsys.readouterr().out
        assert first_words(output, 2) == [["1", "a\\n"], ["2", "small"]]

    @pytest.mark.parametrize("bad", [False, True])
    def test_escape_sequences_do_not_reach_the_terminal(self, bad, folder, capsys):
        name = "\x1b[2J\u202e.npy"
        np.save(name, np.full_like(X, np.nan) if bad else X)
        assert rank(features=["small.npy", name]) == 0
        output, errors = capsys.readouterr()
        assert "\x1b" not in output + errors
        assert "\u202e" not in output + errors
        assert "\\x1b[2J\\u202e" in output

    @pytest.mark.parametrize("labels", [y, WORDS])
    def test_labels_from_pandas_without_their_index(self, labels, folder, capsys):
        lines = [f"{i},{label}" for i, label in enumerate(labels)]
        Path("y.csv").write_text("\n".join([",label", *lines]))
        assert rank(*LOGME, labels="y.csv") == 0
        output, errors = capsys.readouterr()
        assert f"{logme_score(X, y):.4f} ± " in output
        assert errors.startswith("note: y.csv: left out '', which looks like an index")

    def test_features_from_pandas_without_their_index(self, folder, capsys):
        names = ["", *map(str, range(13))]
        rows = np.column_stack([np.arange(len(X)), X])
        np.savetxt("a.csv", rows, "%.17g", ",", header=",".join(names), comments="")
        assert rank(*LOGME, features=["a.csv"]) == 0
        output, errors = capsys.readouterr()
        assert f"{logme_score(X, y):.4f} ± " in output
        assert errors.startswith("note: a.csv: left out '', which looks like an index")

    @pytest.mark.parametrize("columns", ["20", "80"])
    def test_narrow_terminals_cut_nothing(self, columns, folder, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr("sktransfer.cli._tables.is_terminal", lambda stream: True)
        monkeypatch.setenv("TERM", "dumb")
        assert rank("--metric", "logme", "transrate", "h_score", "lfc", "parc") == 0
        output = capsys.readouterr().out
        assert "…" not in output
        for metric in (logme_score, transrate_score):
            assert f"{metric(X, y):.4f}" in output

    def test_ascii_terminal(self, folder, monkeypatch):
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", stream)
        np.save("é.npy", X)
        assert rank(*LOGME, features=["small.npy", "é.npy"]) == 0
        output = stream.buffer.getvalue().decode("ascii")
        assert f"{logme_score(X, y):.4f} +/- " in output
        assert "\\xe9" in output
        # Names that are escaped leave the columns where they are.
        rows = [line for line in output.split("\n") if line.startswith(("1 ", "2 "))]
        assert len(rows) == 3  # the title, and both models
        assert rows[1].index("+/-") == rows[2].index("+/-")

    def test_full_disk_where_the_output_goes(self, folder, capsys, monkeypatch):
        def fail(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("sktransfer.cli._rank.write_csv", fail)
        assert rank("--output", "out.csv") == 1
        output, errors = capsys.readouterr()
        assert "2 models" in output
        assert "error: --output: [Errno 28] No space left on device" in errors
        assert not Path("out.csv").exists()

    def test_features_are_in_memory_one_model_at_a_time(self, folder):
        tracemalloc = pytest.importorskip("tracemalloc")
        rng = np.random.default_rng(0)
        np.save("y.npy", np.arange(20000) % 3)
        names = [f"{i}.npy" for i in range(6)]
        for name in names:
            np.save(name, rng.normal(size=(20000, 20)))
        np.savez("zoo.npz", **{name: np.load(name) for name in names})
        one = 20000 * 20 * 8
        for features in (names, ["zoo.npz"]):
            tracemalloc.start()
            try:
                assert rank("--metric", "lfc", features=features) == 0
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 3.5 * one

    def test_reason_is_no_markup_either(self, folder, capsys, monkeypatch):
        def fail(metrics, data, *, on_error):
            on_error("h_score", ValueError("expected one of [red, blue] [/x]"))
            return {"logme": metrics["logme"].score(data)}

        monkeypatch.setattr("sktransfer.model_selection._candidate.evaluate", fail)
        assert rank("--metric", "logme", "h_score") == 0
        assert "expected one of [red, blue] [/x]" in capsys.readouterr().out


class TestMistakes:
    """Exit code 2, and one line that says what to mend."""

    @pytest.fixture
    def refused(self, folder, capsys):
        def check(*arguments, says, **files):
            assert rank(*arguments, **files) == 2
            output, errors = capsys.readouterr()
            assert not output
            (line,) = errors.splitlines()
            assert line.startswith("sktransfer rank: error: ")
            assert says in line

        return check

    def test_missing_file(self, refused):
        refused(features=["small.npy", "none.npy"], says="none.npy does not exist")
        refused(labels="none.csv", says="none.csv does not exist")

    def test_suffix(self, refused):
        Path("a.pkl").write_bytes(b"")
        refused(features=["a.pkl"], says="a.pkl must end in one of .npy, .npz, .csv")

    def test_rows(self, refused):
        np.save("short.npy", X[:-3])
        says = "y.npy has 178 rows, but short.npy has 175: all files must have one row"
        refused(features=["small.npy", "short.npy"], says=says)
        refused(features=["short.npy"], says=says)
        np.savez("zoo.npz", a=X[:5], b=X, c=X[:7])
        says = "y.npy has 178 rows, but zoo.npz:a has 5, zoo.npz:c has 7: all files"
        refused(features=["zoo.npz", "large.npy"], says=says)

    def test_three_dimensions(self, refused):
        np.save("cube.npy", X[:, :, None])
        refused(features=["cube.npy"], says="it has shape (178, 13, 1)")
        refused(labels="cube.npy", says="it has shape (178, 13, 1)")

    def test_single_number_for_labels(self, refused):
        np.save("one.npy", np.array(3))
        refused(labels="one.npy", says="it has shape ()")

    def test_pickles(self, refused):
        np.save("objects.npy", np.array([{}] * 178, dtype=object), allow_pickle=True)
        refused(features=["objects.npy"], says="nothing is unpickled")
        refused(labels="objects.npy", says="nothing is unpickled")

    def test_text_for_features(self, refused):
        np.save("words.npy", WORDS[:, None])
        refused(features=["words.npy"], says="words.npy must hold numbers")

    def test_damaged_archive(self, refused):
        np.savez("a.npz", X)
        Path("a.npz").write_bytes(Path("a.npz").read_bytes()[:3000])
        refused(features=["a.npz"], says="a.npz cannot be read")

    def test_no_workers(self, refused):
        refused("--jobs", "0", says="--jobs must be 1 or more, or -1 for all cores")

    def test_groups(self, refused):
        np.save("short.npy", np.arange(170))
        says = "short.npy must hold one group for each of the 178 samples"
        refused("--groups", "short.npy", says=says)
        np.save("wide.npy", np.ones((178, 2)))
        refused("--groups", "wide.npy", says="it has shape (178, 2)")
        refused("--groups", "none.npy", says="none.npy does not exist")
        np.savetxt("g.csv", y)
        says = "--output: g.csv is an input"
        refused("--groups", "g.csv", "--output", "g.csv", says=says)
        np.save("one.npy", np.ones(178, dtype=int))
        refused("--groups", "one.npy", says="one.npy must hold at least 2 groups")

    def test_unknown_metric(self, refused):
        says = "'transrte' is not a metric that reads features; choose among"
        refused("--metric", "logme", "transrte", says=says)
        refused("--metric", "leep", says="'leep' is not a metric that reads features")

    def test_layers_that_are_not_given(self, refused):
        says = "'deep_logme' reads all layers of a model: add --layers"
        refused("--metric", "logme", "deep_logme", says=says)
        np.savez("net.npz", conv1=X[1:], fc=X)
        says = "but net.npz:conv1 has 177"
        refused("--layers", features=["net.npz"], says=says)

    def test_metric_of_another_task(self, refused):
        np.save("numbers.npy", X[:, 0] + 0.1)
        says = "h_score takes classification targets, but this is a regression"
        refused("--metric", "h_score", labels="numbers.npy", says=says)
        refused("--metric", "h_score", labels="numbers.npy", says=" --task.")

    def test_labels_of_one_class(self, refused):
        np.save("ones.npy", np.ones(178, dtype=int))
        refused(labels="ones.npy", says="at least 2 classes")

    def test_all_models_failing(self, refused):
        np.save("nan.npy", np.full((178, 3), np.nan))
        np.save("inf.npy", np.full((178, 3), np.inf))
        says = "All 2 candidates failed: nan: ValueError"
        refused(features=["nan.npy", "inf.npy"], says=says)

    def test_output(self, refused):
        refused("--output", "out.txt", says="--output must end in .csv; got out.txt")
        Path("taken.csv").mkdir()
        refused("--output", "taken.csv", says="taken.csv exists, but is not a file")
        np.savetxt("a.csv", X, delimiter=",")
        says = "--output: a.csv is an input"
        refused("--output", "a.csv", features=["a.csv"], says=says)

    def test_output_in_a_missing_folder_before_any_file_is_read(self, refused):
        says = "--output: none is not a folder"
        refused("--output", "none/out.csv", features=["none.npy"], says=says)

    @pytest.mark.parametrize("labels", ["y.npy", "y.csv"])
    def test_classes_are_not_several_labels(self, labels, refused):
        np.savetxt("y.csv", y, fmt="%d")
        says = f"{labels} must hold a column of 0 and 1 for each label"
        refused("--task", "multilabel", labels=labels, says=says)
        np.save("two.npy", np.stack([y, y], axis=1))
        says = "two.npy must hold a column of 0 and 1 for each label"
        refused("--task", "multilabel", labels="two.npy", says=says)

    def test_folder(self, refused):
        Path("features").mkdir()
        refused(features=["features"], says="features is a folder")
        refused(labels="features", says="features is a folder")

    def test_escape_sequences_stay_in_their_names(self, refused):
        refused(features=["\x1b[31m.npy"], says="\\x1b[31m.npy does not exist")
        refused("--metric", "\x1b[31m", says="x1b[31m")

    def test_escape_sequences_in_usage(self, capsys):
        with pytest.raises(SystemExit):
            main(["rank", "--features", "a", "--labels", "b", "--\x1b[31m"])
        errors = capsys.readouterr().err
        assert "\x1b" not in errors
        assert "--\\x1b[31m" in errors

    def test_ctrl_c(self, folder, capsys, monkeypatch):
        def interrupt(*_, **__):
            raise KeyboardInterrupt

        for place in ("open_features", "ModelSelector.fit", "write_csv"):
            with monkeypatch.context() as patch:
                patch.setattr(f"sktransfer.cli._rank.{place}", interrupt)
                assert rank("--output", "out.csv") == 130
            assert capsys.readouterr() == ("", "sktransfer rank: interrupted\n")

    def test_ctrl_c_during_imports(self, capsys, monkeypatch):
        class Interrupting:
            def find_spec(self, name, path=None, target=None):
                if name == "sktransfer.cli._main":
                    raise KeyboardInterrupt

        monkeypatch.delitem(sys.modules, "sktransfer.cli._main", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
        assert main(["rank"]) == 130
        assert capsys.readouterr() == ("", "sktransfer: interrupted\n")

    @pytest.mark.parametrize(
        "arguments", [[], ["rank"], ["rank", "--task", "x"], ["x"]]
    )
    def test_usage(self, arguments, capsys):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert "usage: sktransfer" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["rank"], ["demo"]])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    output = capsys.readouterr().out
    assert "usage: sktransfer" in output
    assert "example" in output
    assert "  sktransfer " in output.partition("example")[2]


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"sktransfer {sktransfer.__version__}\n"


def run_module(*arguments, **options):
    """A process of its own, in UTF-8."""
    path = [str(Path(sktransfer.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path).rstrip(os.pathsep),
        "PYTHONIOENCODING": "utf-8",
        **options.pop("env", {}),
    }
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, "-m", "sktransfer", *arguments],
        env=environment,
        text=True,
        encoding="utf-8",
        **options,
    )


RANK = ["rank", "--labels", "y.npy", "--output", "out.csv", "--features"]


def test_as_a_module(folder):
    def run(*features):
        process = run_module(*RANK, *features)
        return process.communicate(), process.returncode

    (output, errors), code = run("small.npy", "large.npy")
    assert code == 0
    assert first_words(output, 2) == [["1", "large"], ["2", "small"]]
    assert errors == "written: out.csv\n"
    (output, errors), code = run("none.npy")
    assert code == 2
    assert errors == "sktransfer rank: error: none.npy does not exist.\n"
    assert not output


@pytest.mark.skipif(os.name != "posix", reason="streams of POSIX")
class TestStreams:
    """What is kept is kept, whatever becomes of standard output."""

    @pytest.mark.parametrize(
        "env",
        [
            {"PYTHONIOENCODING": "ascii"},
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        ],
    )
    def test_ascii(self, env, folder):
        np.save("日本.npy", X)
        env = {"PYTHONIOENCODING": "", **env}
        process = run_module(*RANK, "small.npy", "日本.npy", env=env)
        output, errors = process.communicate()
        assert process.returncode == 0
        assert output.isascii()
        assert " +/- " in output
        assert errors == "written: out.csv\n"
        assert len(Path("out.csv").read_text(encoding="utf-8").splitlines()) == 3

    @pytest.mark.parametrize("command", [[*RANK, "small.npy"], ["--help"]])
    def test_closed_pipe(self, command, folder):
        reading, writing = os.pipe()
        os.close(reading)
        process = run_module(*command, stdout=writing)
        os.close(writing)
        _, errors = process.communicate()
        assert process.returncode == 141
        assert not errors
        assert Path("out.csv").exists() == (command != ["--help"])

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    def test_full_device(self, folder):
        with open("/dev/full", "w") as full:
            process = run_module(*RANK, "small.npy", stdout=full)
            _, errors = process.communicate()
            assert process.returncode == 1
            assert "cannot print: [Errno 28] No space left on device" in errors
            assert errors.count("\n") == 1
            assert Path("out.csv").exists()
            Path("out.csv").unlink()
            process = run_module(*RANK, "small.npy", stderr=full)
            process.communicate()
            assert process.returncode == 0
            assert Path("out.csv").exists()

    def test_no_streams_and_no_home(self, folder):
        def close():
            os.close(1)
            os.close(2)

        env = {"HOME": "", "TERM": "", "COLUMNS": ""}
        process = run_module(*RANK, "small.npy", env=env, preexec_fn=close)
        process.communicate()
        assert process.returncode == 0
        assert Path("out.csv").exists()


class TestDemo:
    def test_without_torch(self, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "torch", None)
        assert main(["demo"]) == 2
        output, errors = capsys.readouterr()
        assert not output
        (line,) = errors.splitlines()
        assert line.startswith("sktransfer demo: error: The zoo needs torch")
        assert 'pip install "sktransfer[torch]"' in line

    def test_tables(self, monkeypatch, capsys):
        pytest.importorskip("torch")
        pytest.importorskip("safetensors")
        from sktransfer.datasets import load_dataset, load_zoo_cards

        monkeypatch.setenv("COLUMNS", "80")
        assert main(["demo"]) == 0
        output, errors = capsys.readouterr()
        assert not errors
        assert "12 networks for fine-tuning on 300 characters" in output
        ranking, _, agreement = output.partition("Agreement with the accuracy")
        rows = first_words(ranking, 12)
        assert sorted(int(place) for place, _ in rows) == list(range(1, 13))
        unseen = {name for name in load_zoo_cards() if not name.endswith("alphabets")}
        assert {name for _, name in rows} == unseen
        taus = {
            row[0]: float(row[-4])
            for row in map(str.split, agreement.splitlines())
            if len(row) > 5 and row[-1][-3:-2] == "."
        }
        assert taus["deep_logme"] > 0.7 > 0.6 > taus["logme"]
        for metric in ("loo_log_likelihood", "loo_accuracy", "source", "parameters"):
            assert metric in taus
        assert max(map(len, output.splitlines())) <= 80
        (none,) = (line for line in ranking.splitlines() if "no information" in line)
        labels = load_dataset("alphabets").target[:300]
        assert none.split()[-1] == f"{100 * np.bincount(labels).max() / 300:.1f}"
        assert "regret" in agreement
        assert "…" not in output
        assert "deep LogME: LogME of all layers" in agreement
