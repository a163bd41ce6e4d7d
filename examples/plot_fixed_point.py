"""
Maximising the evidence: one crossing, several, or none
=======================================================

MacKay's iteration for the evidence of a linear model depends on t = alpha / beta only.
It is a map t' = f(t) whose fixed points are the stationary points of the evidence.
Three targets on features of the digits show the possible cases.
"""

# %%
# The features are 48 random ReLU features of the digits. The first target is a class.
# The second is a mixture of the strongest direction of the features and the three
# weakest. The third is unrelated to the features: f stays above the diagonal, and t
# diverges to infinity.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sktransfer.linear_model import LogME

rng = np.random.default_rng(0)
X, digit = load_digits(return_X_y=True)
X, digit = X[:600] / 16, digit[:600]
F = np.maximum(X @ rng.normal(size=(64, 48)) / 8, 0)
F = F[:, F.any(axis=0)]
U, singular, _ = np.linalg.svd(F, full_matrices=False)
s = singular**2

noise = rng.normal(size=len(F))
noise -= 0.9 * U @ (U.T @ noise)  # explained less than by chance
outside = noise - U @ (U.T @ noise)
strongest_and_weakest = 10 * U[:, 0] + 0.6 * U[:, -3:].sum(axis=1)
strongest_and_weakest += outside / np.linalg.norm(outside)
targets = {
    "is it a 0?": (digit == 0).astype(float),
    "strongest and weakest directions": strongest_and_weakest,
    "unrelated to the features": noise,
}


# %%
# The map, and the evidence as a function of t, from their formulas.
def fixed_point_map(t, y):
    z2 = (U.T @ y) ** 2
    rest = y @ y - z2.sum()
    p = s / (s + t[:, None])
    gamma = p.sum(axis=1)
    weights = (z2 * s / (s + t[:, None]) ** 2).sum(axis=1)
    error = (z2 * (1 - p) ** 2).sum(axis=1) + rest
    return gamma / weights / ((len(y) - gamma) / error)


def evidence(t, y):
    z2 = (U.T @ y) ** 2
    q = t[:, None] / (s + t[:, None])
    energy = (z2 * q).sum(axis=1) + y @ y - z2.sum()
    n = len(y)
    return 0.5 * (np.log(n / energy) - 1 - np.log(2 * np.pi)) + (
        np.log(q).sum(axis=1) / (2 * n)
    )


# %%
# The upper row shows f(t) and the diagonal. The lower row shows the evidence and the
# maximum that LogME reports. Without a crossing, LogME is the limit at t = infinity.
t = np.geomspace(1e-4, 1e6, 400)
figure, axes = plt.subplots(
    2, 3, figsize=(11, 6), sharex=True, layout="constrained", height_ratios=[3, 2]
)
for (name, y), (above, below) in zip(targets.items(), axes.T, strict=True):
    image = fixed_point_map(t, y)
    model = LogME().fit(F, y)
    best = float(model.alpha_[0] / model.beta_[0])
    crossings = np.flatnonzero(np.diff(np.sign(image - t)))
    print(f"{name}: t = {best:.4g}, LogME {model.logme_:.4f}")

    above.loglog(t, image, color="#1f77b4", label="f(t)")
    above.loglog(t, t, color="0.6", linestyle=":", label="t")
    above.plot(t[crossings], t[crossings], "o", color="#d62728", label="fixed point")
    above.set(title=name, ylim=(1e-4, 1e6))
    below.semilogx(t, evidence(t, y), color="#2ca02c")
    if np.isfinite(best):
        below.axvline(best, color="#d62728", linestyle="--")
    else:
        below.axhline(model.logme_, color="#d62728", linestyle="--")
    below.set_xlabel("t = alpha / beta")
    for axis in (above, below):
        axis.spines[["top", "right"]].set_visible(False)
axes[0, 0].legend(frameon=False)
axes[0, 0].set_ylabel("next t")
axes[1, 0].set_ylabel("evidence (nats per sample)")
plt.show()
