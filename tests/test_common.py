"""What all public names have in common: scikit-learn's rules, and their docstrings."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sktransfer.feature_extraction import BaseExtractor
from sktransfer.model_selection import ModelSelector

PACKAGES = [
    "sktransfer",
    "sktransfer.anchors",
    "sktransfer.datasets",
    "sktransfer.exceptions",
    "sktransfer.feature_extraction",
    "sktransfer.linear_model",
    "sktransfer.metrics",
    "sktransfer.model_selection",
    "sktransfer.tuning",
]


# A candidate that cannot read sparse data fails, while the other goes on.
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.CandidateFailedWarning")
@pytest.mark.filterwarnings("ignore:.*Can't check dok sparse matrix")
@parametrize_with_checks(
    [
        ModelSelector([("pca", PCA(1)), ("scale", StandardScaler())]),
        ModelSelector(
            [("pca", PCA(1)), ("poly", PolynomialFeatures())],
            scoring="h_score",
            task="classification",
        ),
        ModelSelector(
            [("pca", PCA(1)), ("poly", PolynomialFeatures())], task="regression"
        ),
        # The first hands NaN on, which nothing can be fitted to.
        ModelSelector([("scale", StandardScaler()), ("pca", PCA(1))]),
        ModelSelector([("impute", SimpleImputer()), ("pca", PCA(1))]),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


NAMES = [
    (package, name)
    for package in PACKAGES
    for name in import_module(package).__all__
    if name != "__version__"
]
ids = [".".join(names) for names in NAMES]
each_public = pytest.mark.parametrize("public", NAMES, ids=ids, indirect=True)


@pytest.fixture
def public(request):
    """What a public name stands for; skipped where its optional package is missing."""
    package, name = request.param
    try:
        return getattr(import_module(package), name)
    except ImportError as error:
        pytest.skip(str(error))


def sections(thing):
    """The sections of a numpydoc docstring by title."""
    text = inspect.getdoc(thing) or ""
    parts = re.split(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", text, flags=re.MULTILINE)
    return {"Summary": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def documented(section):
    """The names that a section of parameters explains."""
    heads = re.findall(r"^(\*{0,2}\w+(?:, \w+)*)(?: :.*)?$", section, re.MULTILINE)
    return [name.lstrip("*") for head in heads for name in head.split(", ")]


def parameters(thing):
    """The names that a call takes; of a class those of its constructor."""
    try:
        names = list(inspect.signature(thing).parameters)
    except ValueError:  # exceptions
        return []
    return [name for name in names if name != "self"]


def is_record(thing):
    """Whether a class is fields and no more: they are attributes as well."""
    return hasattr(thing, "_fields") or hasattr(thing, "__dataclass_fields__")


def is_exception(thing):
    return isinstance(thing, type) and issubclass(thing, Exception)


@pytest.mark.parametrize(("package", "name"), NAMES, ids=ids)
def test_names_are_where_they_are_said_to_be(package, name):
    module = import_module(package)
    assert name in dir(module)
    assert len(set(module.__all__)) == len(module.__all__)


@each_public
def test_every_parameter_is_documented(public):
    if is_exception(public):  # takes a message
        return
    told = sections(public)
    title = "Attributes" if is_record(public) else "Parameters"
    assert documented(told.get(title, "")) == parameters(public)


@each_public
def test_every_method_is_documented(public):
    if not isinstance(public, type) or is_exception(public):
        return
    for name in vars(public):
        if name.startswith("_") or not callable(getattr(public, name)):
            continue
        told = sections(getattr(public, name))
        assert told["Summary"].strip(), f"{name} has no docstring"
        takes = parameters(getattr(public, name))
        if takes and "Parameters" in told:
            assert documented(told["Parameters"]) == takes, name


@each_public
def test_sections(public):
    if not public.__module__.startswith("sktransfer"):  # is handed on
        return
    told = sections(public)
    first_line = told["Summary"].splitlines()[0]
    assert first_line.endswith((".", "?")), first_line
    if is_exception(public):
        return
    if not isinstance(public, type):
        assert "Returns" in told
    elif hasattr(public, "fit") and not issubclass(public, BaseExtractor):
        assert "Attributes" in told
    if not hasattr(public, "_fields"):
        assert ">>> " in told.get("Examples", ""), "has no example"
    order = [
        "Summary",
        "Parameters",
        "Attributes",
        "Returns",
        "Raises",
        "Warns",
        "See Also",
        "Notes",
        "References",
        "Examples",
    ]
    assert list(told) == [title for title in order if title in told]
