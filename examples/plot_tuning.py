"""
Tuning the network you must deploy
==================================

Ranking finds the best network, but size, licence or device may dictate which network is
deployed. That network can still learn from the best, above all on images without
labels. This example trains a very small network, with 6,000 weights and no
pre-training, on 100 labelled images of digits. Networks of the zoo are its teachers,
and label up to 1,000 further images.
"""

# %%
# Rank the zoo on the labelled images. The best five will teach.
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from sktransfer.datasets import load_dataset, load_zoo
from sktransfer.model_selection import ModelSelector
from sktransfer.tuning import FineTuneClassifier, PredictiveDistillation

X, y = load_dataset("digits", return_X_y=True)
X, rest, y, y_rest = train_test_split(X, y, train_size=100, stratify=y, random_state=0)
unlabelled, X_test, y_test = rest[:1000], rest[1000:], y_rest[1000:]
selector = ModelSelector(load_zoo()).fit(X, y)
for row in np.argsort(selector.results_["rank"])[:5]:
    name, expected = (selector.results_[key][row] for key in ("name", "loo_accuracy"))
    print(f"{name:22} expected accuracy {100 * expected:.0f} %")


# %%
# The network to deploy reads images of shape (n, 32, 32, 3) as they are stored.
class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 16, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
        )

    def forward(self, images):
        return self.layers(images.permute(0, 3, 1, 2).float() / 255)


torch.manual_seed(0)
network = Tiny()
print(sum(weights.numel() for weights in network.parameters()), "weights")


# %%
# Train it without teachers, then with teachers and more and more unlabelled images. A
# skorch callback records the test accuracy after every epoch.
class TestAccuracy(Callback):
    """Records the accuracy on images that are not used in training."""

    def on_epoch_end(self, net, **kwargs):
        net.module_.eval()
        hits = [
            net.module_(X_test[i : i + 100])[0].argmax(1).numpy() == y_test[i : i + 100]
            for i in range(0, len(X_test), 100)
        ]
        net.history.record("test_acc", float(np.mean(np.concatenate(hits))))


teachers = selector.teachers(5)
models = {}
for n_unlabelled in (None, 0, 100, 300, 1000):
    if n_unlabelled is None:
        label, penalty = "no teachers", None
    else:
        label, penalty = f"{n_unlabelled} unlabelled", PredictiveDistillation(teachers)
    model = FineTuneClassifier(
        network,
        penalty=penalty,
        head_lr_factor=1,
        callbacks=[TestAccuracy()],
        device="cpu",
        random_state=0,
    )
    more = unlabelled[:n_unlabelled] if n_unlabelled else None
    models[label] = model.fit(X, y, unlabelled=more)

# %%
# On the labelled images alone the teachers bring nothing; with images to label they do.
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
shades = plt.colormaps["viridis"](np.linspace(0.85, 0.1, len(models)))
for (label, model), shade in zip(models.items(), shades, strict=True):
    accuracies = 100 * np.array(model.history_[:, "test_acc"])
    epochs = np.arange(1, len(accuracies) + 1)
    left.plot(epochs, accuracies, color=shade)
    right.plot(accuracies[-1], label, "o", color=shade)
    right.text(accuracies[-1], label, f"  {accuracies[-1]:.1f}", va="center")
    print(f"{label:>16}: {accuracies[-1]:.1f} %")
left.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(60, 100))
right.set(xlabel="test accuracy, %", xlim=(86, 98))
right.invert_yaxis()
for axis in (left, right):
    axis.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# :func:`~sktransfer.tuning.rank_and_tune` does all this in one call, chooses the
# learning rate, and leaves the teachers out where they do not help.
