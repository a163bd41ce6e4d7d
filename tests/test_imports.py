"""What an import costs, in a fresh process: none of the optional packages."""

from __future__ import annotations

import subprocess
import sys

OPTIONAL = {
    "cupy",
    "matplotlib",
    "pandas",
    "PIL",
    "safetensors",
    "skorch",
    "timm",
    "torch",
    "transformers",
}

MODULES = [
    "sktransfer",
    "sktransfer.agreement",
    "sktransfer.anchors",
    "sktransfer.feature_extraction",
    "sktransfer.linear_model",
    "sktransfer.metrics",
    "sktransfer.model_selection",
    "sktransfer.tuning",
    "sktransfer.datasets",
    "sktransfer.cli",
    "sktransfer.cli._main",
]


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def test_optional_packages_are_not_loaded():
    # Whatever scikit-learn itself loads where it is installed is not ours to avoid.
    result = run(
        f"""
import importlib, sys
import sklearn
before = set(sys.modules)
for name in {MODULES}:
    importlib.import_module(name)
    print(name, sorted({OPTIONAL} & sys.modules.keys() - before))
"""
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [f"{name} []" for name in MODULES]


def test_all_works_where_they_are_missing():
    result = run(
        f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {OPTIONAL}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import sktransfer.cli._main
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sktransfer import ModelSelector
X, y = load_wine(return_X_y=True)
scoring = ["logme", "h_score", "transrate"]
selector = ModelSelector([("one", PCA(1)), ("two", PCA(2))], scoring=scoring).fit(X, y)
print(sorted(selector.ranking_))
try:
    selector.to_frame()
except ImportError as error:
    print(error)
try:
    from sktransfer.feature_extraction import TorchFeatureExtractor
except ImportError as error:
    print(error)
"""
    )
    assert result.returncode == 0, result.stderr
    ranking, frame, torch = result.stdout.splitlines()
    assert ranking == "['one', 'two']"
    assert frame.startswith("to_frame needs pandas")
    assert 'pip install "sktransfer[plot]"' in frame
    assert torch.startswith("TorchFeatureExtractor needs torch")
    assert 'pip install "sktransfer[torch]"' in torch


def test_front_door():
    import sktransfer

    assert sktransfer.__version__
    for name in sktransfer.__all__:
        assert getattr(sktransfer, name) is not None
