"""The methods of the benchmark, and one run of one of them."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from data import StoredFeatures, load_target, split, teacher_names

from sktransfer.datasets import load_zoo
from sktransfer.linear_model import LogMEClassifier
from sktransfer.tuning import (
    L2SP,
    BayesianTuning,
    FeatureDistillation,
    FineTuneClassifier,
    PredictiveDistillation,
    ZooTuning,
)

# LogME of teachers and network in B-Tuning. With a prior for each class, as in the
# paper, coefficients of classes with few samples are almost 0.
HEAD = {"prior": "shared", "fit_intercept": True}
BATCH_SIZE = 25
WEIGHT_DECAY = 5e-3
UNLABELLED_RATIO = 2.0
# Plain fine-tuning was best or nearly best at this rate in trial runs.
LEARNING_RATE = 0.1
# At least 400 steps.
EPOCHS = {100: 100, 200: 50, 250: 40, 500: 30}

PENALTIES = {
    "b-tuning": BayesianTuning,
    "b-tuning, prior per class": BayesianTuning,
    "predictive distillation": PredictiveDistillation,
    "feature distillation": FeatureDistillation,
}
# Values of a method's setting. A penalty of weight 0 is a choice, too: plain.
VALUES = {
    "plain": (None,),
    "b-tuning": (30.0, 10.0, 100.0),
    "predictive distillation": (3.0, 1.0, 10.0),
    "b-tuning, prior per class": (30.0, 10.0, 100.0),
    "feature distillation": (1e-3, 1e-4, 1e-2),
    "zoo-tuning": (0.9, 0.7, 0.99),
    "l2-sp": (0.1, 0.01, 1.0),
    "head first": (1.0,),
}


class Run(NamedTuple):
    """One training. `value` is that of the method's setting."""

    target: str
    student: str
    n_labels: int
    n_unlabelled: int
    teachers: str | None
    method: str
    value: float | None
    seed: int
    part: str


def make_model(run: Run, labelled, *places) -> FineTuneClassifier:
    """The estimator of a run, and its teachers."""
    ((_, network),) = load_zoo([run.student])
    model = FineTuneClassifier(
        network,
        max_epochs=EPOCHS[run.n_labels],
        lr=LEARNING_RATE,
        head_lr_factor=1,
        clip_grad_norm=None,
        weight_decay=WEIGHT_DECAY,
        batch_size=BATCH_SIZE,
        unlabelled_ratio=UNLABELLED_RATIO,
        mixed_precision=True,
        device="cpu",
        random_state=run.seed,
    )
    if run.method == "plain":
        return model
    if run.method == "head first":
        return model.set_params(head_init="linear_probe")
    if run.method == "l2-sp":
        return model.set_params(penalty=L2SP(weight=run.value))
    names = teacher_names(run.teachers, run.student, run.target, labelled, *places)
    if run.method == "zoo-tuning":
        teachers = [(teacher, LogMEClassifier()) for _, teacher in load_zoo(names)]
        mixture = ZooTuning(network, teachers, initial_weight=run.value)
        return model.set_params(network=mixture)
    per_class = run.method == "b-tuning, prior per class"
    teachers = [
        (
            StoredFeatures(run.target, name, *places),
            LogMEClassifier(**({} if per_class else HEAD)),
        )
        for name in names
    ]
    penalty = PENALTIES[run.method](teachers, weight=run.value)
    if per_class:
        penalty.set_params(prior="per_target")
    return model.set_params(penalty=penalty)


def run_one(run: tuple, folder: Path, cache: Path) -> tuple[tuple, float, float]:
    """Train and score: the run, its accuracy on held-out images and the seconds."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    begun = time.perf_counter()
    run = Run(*run)
    X, y = load_target(run.target, folder)
    labelled, unlabelled, held_out = split(
        run.target, folder, run.n_labels, run.n_unlabelled, run.seed, run.part
    )
    model = make_model(run, labelled, folder, cache)
    more = X[unlabelled] if len(unlabelled) else None
    try:
        model.fit(X[labelled], y[labelled], unlabelled=more)
        result = float(model.score(X[held_out], y[held_out]))
    except ValueError as error:  # the learning rate was too large
        print(f"{run}: {error}")
        result = 0.0
    return tuple(run), result, time.perf_counter() - begun
