"""
Tuning the network you must deploy
==================================

Ranking finds the best network, but size, licence or device may dictate which network is
deployed. That network can still learn from the best. This example fine-tunes a small
network, pre-trained on emoji, on 100 labelled images of digits. Other networks of the
zoo are its teachers.
"""

# %%
# Rank the zoo on the labelled images. The network to deploy is not the best.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from sktransfer.datasets import load_dataset, load_zoo
from sktransfer.model_selection import ModelSelector
from sktransfer.tuning import rank_and_tune

X, y = load_dataset("digits", return_X_y=True)
X, X_test, y, y_test = train_test_split(
    X, y, train_size=100, test_size=500, stratify=y, random_state=0
)
selector = ModelSelector(load_zoo()).fit(X, y)
network = "plain-emoji"
for place, name in enumerate(selector.ranking_, start=1):
    print(f"{place:2d} {name}", "<- to be deployed" if name == network else "")

# %%
# Five methods fine-tune it: plain fine-tuning; distillation of the features of the best
# three networks; Zoo-tuning, which mixes its weights with those of the best three of
# its architecture; and B-Tuning, which keeps it close to the predictions of all
# teachers or of the best three. A skorch callback records the test accuracy after every
# epoch.


class TestAccuracy(Callback):
    """Records the accuracy on images that are not used in training."""

    def on_epoch_end(self, net, **kwargs):
        net.module_.eval()
        hits = [
            net.module_(X_test[i : i + 100])[0].argmax(1).numpy() == y_test[i : i + 100]
            for i in range(0, len(X_test), 100)
        ]
        net.history.record("test_acc", float(np.mean(hits)))


ways = {
    "plain": {"method": "plain"},
    "distillation, top 3": {"method": "distillation"},
    "Zoo-tuning, top 3 alike": {"method": "zoo-tuning"},
    "B-Tuning, all": {"method": "b-tuning", "k": 14},
    "B-Tuning, top 3": {"method": "b-tuning", "k": 3},
}
models = {
    label: rank_and_tune(
        selector,
        network,
        X,
        y,
        max_epochs=30,
        lr=0.1,
        weight_decay=5e-3,
        batch_size=25,
        callbacks=[TestAccuracy()],
        device="cpu",
        random_state=0,
        **way,
    )[0]
    for label, way in ways.items()
}

# %%
# Learning curves. Each method runs once here. The documentation, under "Tuning",
# compares them over seeds, with settings chosen in the same way for every method.
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for label, model in models.items():
    epochs = np.arange(1, len(model.history_) + 1)
    left.plot(epochs, model.history_[:, "train_loss"], label=label)
    right.plot(epochs, model.history_[:, "test_acc"])
    print(f"{label:>24}: {model.score(X_test, y_test):.3f}")
left.set(xlabel="epoch", ylabel="training loss, with penalty", yscale="log")
right.set(xlabel="epoch", ylabel="test accuracy", ylim=(0.6, 1))
left.legend(frameon=False)
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
plt.show()
