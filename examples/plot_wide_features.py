"""
Why width must not count: LogME of noise
========================================

The reference implementation of LogME sums the log determinant of the posterior
precision over the min(n, D) non-zero singular values of the features. With fewer
samples than features (n < D), it omits (D - n) log alpha, and the score increases with
the width of the network for any features. This example scores two kinds of features of
200 digits: random ReLU features, and noise without any information about the digits.
"""

# %%
# The published computation for one target: the fixed-point iteration with 1e-5 in the
# denominators, and the log determinant truncated at min(n, D).
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, load_wine
from sklearn.preprocessing import StandardScaler

from sktransfer.metrics import logme_score


def published_logme(F, y):
    """LogME by the formulas of the reference implementation."""
    n, d = F.shape
    U, singular, _ = np.linalg.svd(F, full_matrices=False)
    s = singular**2
    scores = []
    for label in np.unique(y):
        target = (y == label).astype(float)
        z2 = (U.T @ target) ** 2
        rest = target @ target - z2.sum()
        alpha = beta = 1.0
        for _ in range(11):
            t = alpha / beta
            gamma = (s / (s + t)).sum()
            m2 = (s * z2 / (s + t) ** 2).sum()
            error = (z2 / (1 + s / t) ** 2).sum() + rest
            alpha, beta = gamma / (m2 + 1e-5), (n - gamma) / (error + 1e-5)
            if abs(alpha / beta - t) / t <= 1e-3:
                break
        evidence = d / 2 * np.log(alpha) + n / 2 * np.log(beta / (2 * np.pi))
        evidence -= 0.5 * np.log(alpha + beta * s).sum()
        evidence -= beta / 2 * error + alpha / 2 * m2
        scores.append(evidence / n)
    return np.mean(scores)


# %%
# Both kinds of features with increasing width.
rng = np.random.default_rng(0)
X, y = load_digits(return_X_y=True)
chosen = rng.permutation(len(y))[:200]
X, y = X[chosen] / 16, y[chosen]

widths = np.array([16, 32, 64, 128, 256, 512, 1024])
curves = {}
for name in ("digits", "noise"):
    for method, score in (("exact", logme_score), ("as published", published_logme)):
        values = []
        for width in widths:
            local = np.random.default_rng(width)
            weights = local.normal(size=(64, width)) / 8
            noise = local.normal(size=(200, width))
            F = np.maximum(X @ weights, 0) if name == "digits" else noise
            values.append(score(F, y))
        curves[name, method] = np.array(values)
        print(f"{name:>7} {method:>13}:", np.round(values, 3))

# %%
# Because of the 1e-5 in the denominators, the published score depends on the scale of
# the features. The exact score does not.
wine, cultivar = load_wine(return_X_y=True)
wine = StandardScaler().fit_transform(wine)
for method, score in (("exact", logme_score), ("as published", published_logme)):
    scores = score(wine, cultivar), score(1e4 * wine, cultivar)
    print(f"wine, {method:>13}: {scores[0]:.3f}, times 1e4: {scores[1]:.3f}")

# %%
# By the published score, noise of width 1,024 beats all features of the digits. By the
# exact score, noise always ranks below them.
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
colours = {"digits": "#1f77b4", "noise": "#d62728"}
for axis, method in zip(axes, ("as published", "exact"), strict=True):
    for name, colour in colours.items():
        label = "features of the digits" if name == "digits" else "pure noise"
        axis.plot(widths, curves[name, method], "o-", color=colour, label=label)
    axis.axvline(200, color="0.6", linestyle=":", label="n = 200 samples")
    axis.set(xscale="log", xlabel="number of features D", title=method)
    axis.set_xticks(widths, [str(w) for w in widths])
    axis.minorticks_off()
    axis.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("LogME (nats per sample)")
axes[1].legend(frameon=False)
plt.show()
