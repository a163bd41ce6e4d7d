"""What imports cost, and that rooms import in one direction."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import sktransfer

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
    "sktransfer.inspection",
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
    assert sktransfer.__version__
    for name in sktransfer.__all__:
        assert getattr(sktransfer, name) is not None


ROOT = Path(sktransfer.__file__).parent
# Rooms import from earlier lines only, so that there is no circle.
ORDER = [
    {"utils", "exceptions", "_version"},
    {"feature_extraction", "linear_model"},
    {"metrics", "agreement", "datasets"},
    {"model_selection"},
    {"tuning", "anchors"},
    {"inspection"},
    {"cli"},
    {"__init__", "__main__"},
]
PLACES = {room: place for place, rooms in enumerate(ORDER) for room in rooms}


def rooms_imported(path):
    """Rooms that a file imports, in functions too, with the place of each import."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            assert not node.level, f"{path}:{node.lineno} is a relative import"
        for name in names:
            package, room, *_ = [*name.split("."), "__init__"]
            if package == "sktransfer":
                room = room if room in PLACES else "__init__"
                yield room, f"{path}:{node.lineno}: {ast.unparse(node)}"


def test_rooms_import_in_one_direction():
    rooms, offending = set(), []
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        rooms.add(room)
        for imported, where in rooms_imported(path):
            if imported != room and PLACES[imported] >= PLACES[room]:
                offending.append(where)
    assert rooms == PLACES.keys()
    assert not offending, "\n".join(offending)
