"""
The distortion of TransRate
===========================

TransRate is the coding rate of features up to a distortion epsilon. Table 6 of the
paper finds that its agreement with transfer performance hardly depends on epsilon over
a wide range. This example goes beyond that range. The candidates are random ReLU
features of the digits, computed from an increasing number of pixels.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from sktransfer.agreement import weighted_kendall_tau
from sktransfer.metrics import transrate_score

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
# Scores and agreement for both published variants.
distortions = np.geomspace(1e-6, 1e3, 19)
figure, axes = plt.subplots(2, 2, figsize=(9, 5.5), sharex=True, layout="constrained")
for (above, below), variant in zip(axes.T, ("preprint", "icml"), strict=True):
    scores = np.array(
        [
            [transrate_score(F, y, variant=variant, distortion=e) for F in candidates]
            for e in distortions
        ]
    )
    tau = [weighted_kendall_tau(pixels, row) for row in scores]
    print(f"{variant}: tau_w", np.round(tau, 2))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(pixels)))
    for k, colour, curve in zip(pixels, colours, scores.T, strict=True):
        above.plot(distortions, curve, color=colour, label=f"{k} pixels")
    default = 0.1 if variant == "preprint" else 1e-4
    for axis in (above, below):
        axis.axvline(default, color="#d62728", linestyle="--", linewidth=1)
        axis.spines[["top", "right"]].set_visible(False)
    above.set(xscale="log", yscale="log", title=f'variant="{variant}"')
    below.plot(distortions, tau, "o-", color="0.3")
    below.set(xlabel="distortion (dashed: default)", ylim=(-1.05, 1.05))
axes[0, 0].set_ylabel("TransRate (nats)")
axes[1, 0].set_ylabel("tau_w with the true order")
axes[0, 0].legend(frameon=False, fontsize="small", ncols=2)
plt.show()
