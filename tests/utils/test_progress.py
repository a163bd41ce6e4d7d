"""Progress bars of nested work."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.preprocessing import FunctionTransformer

from sktransfer.linear_model import LogMEClassifier
from sktransfer.utils._progress import ProgressCallback, make_progress


def test_teachers_have_a_bar_of_their_own(monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("skorch")
    from sktransfer.tuning import FineTuneClassifier, PredictiveDistillation
    from sktransfer.tuning.penalties import _teachers

    monkeypatch.setattr(_teachers, "_BLOCK", 10)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 6)).astype(np.float32), np.arange(60) % 3
    progress, shown = make_progress(shown=False), []

    class Watching(ProgressCallback):
        def on_fit_task_end(self, estimator, context):
            super().on_fit_task_end(estimator, context)
            shown.append(
                {
                    task.description: (task.completed, task.total)
                    for task in progress.tasks
                }
            )

    teachers = [(FunctionTransformer(np.tanh), LogMEClassifier())]
    model = FineTuneClassifier(
        torch.nn.Linear(6, 4),
        penalty=PredictiveDistillation(teachers),
        max_epochs=3,
        device="cpu",
    )
    model.set_callbacks(Watching(progress, "Tuning")).fit(X, y, unlabelled=X[:35] + 1)
    assert {"Tuning": (0, 4), "penalty": (4, None)} in shown
    assert {"Tuning": (4, 4)} in shown
    assert max(bars["Tuning"][0] for bars in shown) == 4
    assert progress.tasks == []
