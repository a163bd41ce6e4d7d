"""
What TransRate measures: completeness and compactness
=====================================================

TransRate is the coding rate of all features minus the mean coding rate within the
classes. It is high if all features together fill the space (completeness) and each
class fills a small part of it (compactness). Four arrangements of two classes in the
plane, as in Figure 2 of the paper, show the two terms separately.
"""

# %%
# Every arrangement rotates and scales the same two clouds.
import matplotlib.pyplot as plt
import numpy as np

from sktransfer.metrics import coding_rate, transrate_score

rng = np.random.default_rng(0)
n = 200
y = np.repeat([0, 1], n)
cloud = rng.normal(size=(2 * n, 2))


def two_classes(angle, squeeze):
    """Clouds of width `squeeze` around two directions, `angle` degrees apart."""
    half = np.radians(angle / 2)
    centres = np.array([[np.cos(half), np.sin(half)], [np.cos(half), -np.sin(half)]])
    return 2 * centres[y] + squeeze * cloud


panels = {
    "apart and compact": two_classes(90, 0.25),
    "apart, but wide": two_classes(90, 0.9),
    "compact, but close": two_classes(20, 0.25),
    "close and wide": two_classes(20, 0.9),
}

# %%
# The features are not normalised (``normalize=False``), and epsilon^2 = 0.1.
figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), sharex=True, sharey=True)
for axis, (title, Z) in zip(axes, panels.items(), strict=True):
    overall = coding_rate(Z, normalize=False)
    within = coding_rate(Z, y, normalize=False)
    score = transrate_score(Z, y, normalize=False)
    print(f"{title:>20}: R(Z) {overall:.2f} - R(Z|Y) {within:.2f} = {score:.2f}")
    for label, colour in enumerate(("#1f77b4", "#d62728")):
        axis.plot(*Z[y == label].T, ".", color=colour, markersize=3, alpha=0.6)
    axis.set_title(
        f"{title}\n{overall:.2f} - {within:.2f} = {score:.2f}", fontsize="medium"
    )
    axis.set_aspect("equal")
    axis.spines[["top", "right"]].set_visible(False)
figure.suptitle("TransRate = R(Z) - R(Z | Y), in nats")
figure.tight_layout()
plt.show()
