"""The README, CONTRIBUTING and the docs agree with the code."""

from __future__ import annotations

import ast
import doctest
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_tables_of_metrics_are_up_to_date():
    script = runpy.run_path(str(ROOT / "docs" / "update_metrics_table.py"))
    readme = (ROOT / "README.md").read_text("utf-8")
    assert script["readme_with_table"](readme) == readme
    table = (ROOT / "docs" / "metrics_table.rst.inc").read_text("utf-8")
    assert script["rst_table"]() == table


def test_examples_of_the_readme_run():
    pytest.importorskip("torch")
    pytest.importorskip("skorch")
    readme = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for code in blocks:
        assert len(code.strip().splitlines()) <= 12
        exec(compile(code, "README.md", "exec"), names)
    report = names["report"]
    assert sorted(report.ranking) == sorted(name for name, _ in names["zoo"])
    # Better than a linear head on the same network, and much better than chance.
    X, y = names["X"], names["y"]
    assert report.estimator.score(X[1000:], y[1000:]) > 0.8


def test_examples_of_contributing_run_and_are_those_of_the_tests():
    for package in ("torch", "skorch", "pandas"):
        pytest.importorskip(package)
    pytest.importorskip("matplotlib").use("Agg")
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    tests = sorted((ROOT / "tests").glob("*/test_extending.py"))
    assert len(blocks) == len(tests) == 5
    tested = "".join(path.read_text("utf-8") for path in tests)
    names = {"__name__": "contributing"}
    for code in blocks:
        assert len(code.strip().splitlines()) < 30
        for node in ast.parse(code).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                assert ast.get_source_segment(code, node) in tested
        exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    assert len(names["selector"].ranking_) == len(names["zoo"])


PAGES = sorted(
    p.name for p in (ROOT / "docs").glob("*.rst") if ">>>" in p.read_text("utf-8")
)


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_the_docs_run(page):
    needed = "skorch timm transformers pandas" if page == "tuning.rst" else "torch"
    for package in needed.split():
        pytest.importorskip(package)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    path = ROOT / "docs" / page
    failures, tried = doctest.testfile(
        str(path), module_relative=False, optionflags=flags
    )
    assert tried == len(re.findall("^>>> ", path.read_text("utf-8"), re.MULTILINE))
    assert failures == 0
