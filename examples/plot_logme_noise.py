"""
LogME falls as the features get noisier
=======================================

This example repeats two toy experiments of the LogME paper. In the first, the features
are the coordinates of three clusters in the plane. In the second, the feature is x and
the target is y = 2 x + noise. An increasing amount of noise is added to the features.
LogME is compared with the Laplace evidence of a softmax head, a model of classes that
is much slower to compute.
"""

# %%
# The data. The regression target has noise with standard deviation 0.1.
import matplotlib.pyplot as plt
import numpy as np

from sktransfer.metrics import laplace_evidence_score, logme_score

rng = np.random.default_rng(0)
labels = np.repeat([0, 1, 2], 100)
centres = np.array([[0.0, 1.0], [-0.9, -0.5], [0.9, -0.5]])
clusters = centres[labels] + 0.15 * rng.normal(size=(300, 2))
x = rng.uniform(size=(300, 1))
line = 2 * x[:, 0] + 0.1 * rng.normal(size=300)

# %%
# Scores by standard deviation of the noise: mean and standard deviation of ten draws.
noises = np.linspace(0, 2, 9)
scores = {"classes": [], "classes, Laplace": [], "numbers": []}
for noise in noises:
    draws = {name: [] for name in scores}
    for _ in range(10):
        noisy = clusters + noise * rng.normal(size=clusters.shape)
        draws["classes"].append(logme_score(noisy, labels))
        draws["classes, Laplace"].append(laplace_evidence_score(noisy, labels))
        noisy = x + noise * rng.normal(size=x.shape)
        draws["numbers"].append(logme_score(noisy, line))
    for name, values in draws.items():
        scores[name].append((np.mean(values), np.std(values)))
for name, curve in scores.items():
    print(f"{name:>17}:", np.round([mean for mean, _ in curve], 2))

# %%
# The upper row shows the features without and with noise, the lower row the scores.
figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
for axis, noise in zip(axes[0], (0.0, 1.0), strict=True):
    noisy = clusters + noise * rng.normal(size=clusters.shape)
    for label in range(3):
        axis.plot(*noisy[labels == label].T, ".", markersize=4)
    axis.set(title=f"three clusters, noise {noise:g}", xlim=(-4, 4), ylim=(-4, 4))
panels = {"classes": ["classes", "classes, Laplace"], "numbers": ["numbers"]}
for axis, (title, names) in zip(axes[1], panels.items(), strict=True):
    for name in names:
        mean, spread = np.transpose(scores[name])
        label = "Laplace evidence" if "Laplace" in name else "LogME"
        axis.errorbar(noises, mean, spread, marker="o", capsize=3, label=label)
    axis.set(title=title, xlabel="standard deviation of the noise")
    axis.legend(frameon=False)
axes[1, 0].set_ylabel("evidence (nats per sample)")
for axis in axes.flat:
    axis.spines[["top", "right"]].set_visible(False)
plt.show()
