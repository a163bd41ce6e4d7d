"""
How many labelled samples does a ranking need?
==============================================

Scores are computed on the samples that are labelled. This example ranks candidates on
samples of increasing size by each of the fast metrics. The candidates are random ReLU
features of the digits from an increasing number of pixels, so their order is known:
more pixels give better features.
"""

# %%
# Eight candidates, from 6 to 64 pixels, each with 64 random features. With 40 and 60
# samples they fit some classes exactly; the warnings of LogME are ignored.
import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sktransfer.agreement import weighted_kendall_tau
from sktransfer.exceptions import UnboundedEvidenceWarning
from sktransfer.metrics import get_metric

warnings.simplefilter("ignore", UnboundedEvidenceWarning)

rng = np.random.default_rng(0)
X, y = load_digits(return_X_y=True)
X = X / 16
pixels = np.array([6, 10, 16, 24, 32, 42, 52, 64])
order = rng.permutation(64)
candidates = [
    np.maximum(X[:, order[:k]] @ rng.normal(size=(k, 64)) / np.sqrt(k), 0)
    for k in pixels
]

# %%
# Agreement of the scores with the true order, on 20 draws of every size.
names = ["logme", "h_score", "regularized_h_score", "transrate", "lfc", "gbc"]
sizes = np.array([40, 60, 100, 200, 400, 800, 1600])
agreement = {name: np.zeros((len(sizes), 20)) for name in names}
for i, size in enumerate(sizes):
    for repeat in range(20):
        # Equally many samples per class, so that small draws contain all classes.
        rows = np.concatenate(
            [
                rng.choice(np.flatnonzero(y == c), size // 10, replace=False)
                for c in range(10)
            ]
        )
        for name in names:
            score = get_metric(name).function
            scores = [score(F[rows], y[rows]) for F in candidates]
            agreement[name][i, repeat] = weighted_kendall_tau(pixels, scores)

# %%
# Most metrics find the order with a few hundred samples. The plain H-score is not
# informative below n = D = 64, where it is K - 1 for all candidates.
figure, axis = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
for name, tau in agreement.items():
    mean, spread = tau.mean(axis=1), tau.std(axis=1)
    (line,) = axis.plot(sizes, mean, "o-", label=name)
    colour = line.get_color()
    axis.fill_between(sizes, mean - spread, mean + spread, color=colour, alpha=0.1)
    print(f"{name:>20}:", np.round(mean, 2))
axis.axvline(64, color="0.6", linestyle=":")
bottom = (64, axis.get_ylim()[0])
axis.annotate("n = D", bottom, xytext=(4, 6), textcoords="offset points")
axis.set(
    xscale="log",
    xlabel="labelled samples",
    ylabel="weighted Kendall tau with the true order",
    title="Agreement of metrics, mean and standard deviation of 20 draws",
)
axis.set_xticks(sizes, [str(size) for size in sizes])
axis.minorticks_off()
axis.legend(frameon=False, loc="lower right")
axis.spines[["top", "right"]].set_visible(False)
plt.show()
