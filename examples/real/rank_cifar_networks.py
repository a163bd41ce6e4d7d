"""Rank all blocks of four CIFAR-10 networks on photos, icons and pen strokes.

    python examples/real/rank_cifar_networks.py --data FOLDER --output FOLDER

Each network runs over the images of each target once. Every block is scored by the
leave-one-out log-likelihood and accuracy of LogME's head, by LogME and by TransRate.
The scores are compared with the cross-validated accuracy of a tuned logistic regression
on the features of the block. The script prints tables and saves a figure in
``--output``. It takes a quarter of an hour, mostly for the probes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from networks import RESNETS, make_extractor
from rich.console import Console
from rich.table import Table

from sktransfer import ModelSelector
from sktransfer.agreement import regret, weighted_kendall_tau

TARGETS = ("caltech101_50", "clothing", "noto_emoji_groups", "omniglot_alphabets")
SCORES = {
    "loo_log_likelihood": "leave-one-out log-likelihood",
    "loo_accuracy": "leave-one-out accuracy",
    "logme": "LogME",
    "transrate": "TransRate",
}
PROBE = "linear_probe"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data/real"),
        help="folder of images/ and weights/",
    )
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--output", type=Path, help="folder for the figure")
    arguments = parser.parse_args()
    needed = [
        *(f"images/{target}.npz" for target in arguments.targets),
        *(f"weights/{name}-*.th" for name in RESNETS),
    ]
    missing = [pattern for pattern in needed if not any(arguments.data.glob(pattern))]
    if missing:
        parser.error(
            f"{arguments.data} has no {', '.join(missing)}. Set --data to the folder "
            "of images/, with one .npz file per target (images uint8 (n, 32, 32, 3) "
            "and labels (n,)), and weights/, with the checkpoints of "
            "akamaster/pytorch_resnet_cifar10."
        )
    return arguments


def rank(images: np.ndarray, labels: np.ndarray, weights: Path) -> dict:
    """Score all blocks of all networks; return one array per network and metric."""
    candidates = [
        (name, make_extractor(weights, name, layer="layer?.*", batch_size=128))
        for name in RESNETS
    ]
    selector = ModelSelector(candidates, scoring=[*SCORES, PROBE], refit=False)
    results = selector.fit(images, labels).results_
    return {
        name: {key: values[results["name"] == name] for key, values in results.items()}
        for name in RESNETS
    }


def network_table(target: str, by_network: dict) -> Table:
    """Compare the networks by their last features and by their best blocks."""
    table = Table(title=f"{target}: last features, and the best block of each network")
    table.add_column("network")
    for header in ("expected ± s.e.", "probe", "best probe"):
        table.add_column(header, justify="right")
    for header in ("at", *(f"{name} picks" for name in SCORES.values())):
        table.add_column(header)
    for name, results in by_network.items():
        probe, layers = results[PROBE], results["layer"]
        table.add_row(
            name,
            f"{100 * results['loo_accuracy'][-1]:.1f} ± "
            f"{100 * results['loo_accuracy_std_error'][-1]:.1f} %",
            f"{probe[-1]:.1%}",
            f"{probe.max():.1%}",
            layers[probe.argmax()],
            *(
                f"{layers[results[score].argmax()]} "
                f"({probe[results[score].argmax()]:.1%})"
                for score in SCORES
            ),
        )
    return table


def agreement_table(all_results: dict) -> Table:
    """Compare the scores with the probe: agreement, and loss of their picks."""
    table = Table(title="Agreement with the probe; losses in accuracy points")
    for header in ("target", "chosen by"):
        table.add_column(header)
    for header in (
        "tau_w, all blocks",
        "tau_w, mean of networks",
        "loss, all blocks",
        "loss, mean of networks",
    ):
        table.add_column(header, justify="right")
    for target, by_network in all_results.items():
        networks = list(by_network.values())
        probes = [results[PROBE] for results in networks]
        for score, title in SCORES.items():
            scores = [results[score] for results in networks]
            table.add_row(
                target,
                title,
                f"{weighted_kendall_tau(np.hstack(probes), np.hstack(scores)):.2f}",
                f"{np.mean(list(map(weighted_kendall_tau, probes, scores))):.2f}",
                f"{100 * regret(np.hstack(probes), np.hstack(scores)):.1f}",
                f"{100 * np.mean(list(map(regret, probes, scores))):.1f}",
            )
        losses = [probe.max() - probe[-1] for probe in probes]
        table.add_row(target, "last block", "", "", "", f"{100 * np.mean(losses):.1f}")
    return table


def plot(all_results: dict, file: Path) -> None:
    """Plot scores and probe by depth of the block, one column per target."""
    import matplotlib.pyplot as plt

    rows = {
        PROBE: "accuracy (%)",
        "loo_log_likelihood": "leave-one-out\nlog-likelihood (nats)",
        "logme": "LogME (nats)",
        "transrate": "TransRate",
    }
    figure, axes = plt.subplots(
        len(rows),
        len(all_results),
        figsize=(3.4 * len(all_results), 2.3 * len(rows) + 0.8),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    colours = plt.get_cmap("viridis")(np.linspace(0.85, 0.1, len(RESNETS)))
    for column, (target, by_network) in zip(axes.T, all_results.items(), strict=True):
        column[0].set_title(target)
        column[-1].set_xlabel("depth of the block (%)")
        for axis, metric in zip(column, rows, strict=True):
            for (name, results), colour in zip(
                by_network.items(), colours, strict=True
            ):
                values = results[metric] * (100 if metric == PROBE else 1)
                depth = 100 * np.arange(1, len(values) + 1) / len(values)
                axis.plot(depth, values, color=colour, linewidth=1.6, label=name)
                best = values.argmax()
                axis.plot(depth[best], values[best], "o", color=colour, markersize=6)
                if metric == PROBE:
                    expected = 100 * results["loo_accuracy"]
                    axis.plot(depth, expected, ":", color=colour, linewidth=1.3)
            for border in (100 / 3, 200 / 3):
                axis.axvline(border, color="0.85", linewidth=0.8, zorder=0)
            axis.spines[["top", "right"]].set_visible(False)
    for axis, label in zip(axes[:, 0], rows.values(), strict=True):
        axis.set_ylabel(label)
    figure.align_ylabels()
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(RESNETS),
        frameon=False,
    )
    figure.suptitle(
        "Which layer transfers? CIFAR-10 networks block by block (dot: the best). "
        "Top row: linear probe (solid) and leave-one-out accuracy (dotted)"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=160)


def main() -> None:
    arguments = parse_arguments()
    console = Console(width=150)
    all_results = {}
    for target in arguments.targets:
        with np.load(arguments.data / "images" / f"{target}.npz") as file:
            images, labels = file["images"], file["labels"]
        start = time.perf_counter()
        by_network = rank(images, labels, arguments.data / "weights")
        seconds = time.perf_counter() - start
        all_results[target] = by_network
        console.print(network_table(target, by_network))
        n_rows = sum(len(results["name"]) for results in by_network.values())
        console.print(f"{len(images)} images, {n_rows} candidates, {seconds:.0f} s\n")
    console.print(agreement_table(all_results))
    if arguments.output:
        file = arguments.output / "cifar_networks_layers.png"
        plot(all_results, file)
        console.print(f"Figure: {file}")


if __name__ == "__main__":
    main()
