"""An extractor's features as a torch module that can be trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from sktransfer.feature_extraction._base import BaseExtractor, is_array, read_samples
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


def as_extractor(network: Any) -> BaseExtractor:
    """The extractor that a module, a factory or an import name stands for."""
    # At the top it would ask for the wrong extra where there is no torch.
    from sktransfer.feature_extraction import TorchFeatureExtractor

    if isinstance(network, TorchFeatureExtractor):
        return network
    if isinstance(network, BaseExtractor) or not (
        callable(network) or isinstance(network, str)
    ):
        raise TypeError(
            "Only torch modules can be fine-tuned. Pass a TorchFeatureExtractor, a "
            "torch.nn.Module, or a factory or import name that makes one. Got "
            f"{network!r} instead."
        )
    return TorchFeatureExtractor(network)


def make_backbone(network: Any, *, batch_size: int, device: str) -> Backbone:
    """The backbone of whatever can be fine-tuned; a `network` may make its own."""
    options = {"batch_size": batch_size, "device": device}
    if hasattr(network, "make_backbone"):
        return network.make_backbone(**options)
    extractor = as_extractor(network)
    return Backbone(extractor, copy.deepcopy(extractor._load_module()), **options)


def take_samples(X: Any, rows: np.ndarray) -> Any:
    """Some samples of X: an array of an array, a list of anything else."""
    if is_array(X):
        return X[rows]
    return [sample for i in rows for sample in read_samples(X, i, i + 1)]


class Backbone(torch.nn.Module):
    """Features of raw samples, with gradients, from a module of its own.

    `extractor` says how samples become inputs and which layers are the features,
    `module` is trained and has the structure of the extractor's. A forward pass takes
    `batch_size` samples or one more: batch normalisation must see a batch as a whole.

    Attributes
    ----------
    module : torch.nn.Module
    extractor : TorchFeatureExtractor
        A copy that gives the features of `module`.
    device : torch.device
    """

    def __init__(
        self,
        extractor: BaseExtractor,
        module: torch.nn.Module,
        *,
        batch_size: int,
        device: str,
    ):
        super().__init__()
        # Precision is up to the training, not to the extraction.
        own = {"batch_size": batch_size + 1, "device": device, "dtype": None}
        self.extractor = copy.copy(extractor).set_params(**own)
        self.device = self.extractor._find_device()
        self.replace(module.float().to(self.device))

    def replace(self, module: torch.nn.Module) -> None:
        """Put a module of the same structure in the place of the present one."""
        self.module = module
        owners = [
            name
            for name in ("module", "model")
            if isinstance(vars(self.extractor).get(name), torch.nn.Module)
        ]
        for name in owners:
            setattr(self.extractor, name, module)
        if not owners:
            source = self.extractor.module, self.extractor.dtype
            self.extractor._cache()["module"] = source, module
        # In a tuple, for it is no submodule: it may be wrapped around the module.
        self._run_as = self.extractor._for_tuning(module)

    def finish(self) -> None:
        """Called once, after training."""

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_run_as"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.replace(self.module)

    def forward(self, X: Any) -> torch.Tensor:
        """Float32 features (n_samples, n_features) of raw samples, with gradients."""
        return self._collect(X, lambda features: features)

    def transform(self, X: Any) -> np.ndarray:
        """Features of many samples, in evaluation mode and without gradients."""
        training = self.training
        try:
            self.eval()
            with torch.no_grad():
                return self._collect(X, torch.Tensor.cpu).numpy()
        finally:
            self.train(training)

    def _collect(
        self, X: Any, keep: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """What to keep of the features of every batch, in the order of X."""
        n_samples = len(X)
        running, layers = self._run_as
        parts, order = [], []
        for rows, inputs in self.extractor._batches(
            X, n_samples, self.module, self.device
        ):
            samples = np.arange(n_samples)[rows]
            seen = self.extractor._run(
                running, inputs, layers.taps, samples, self.device, gradients=True
            )
            found = list(layers.collect(seen).values())
            parts.append(keep(found[0] if len(found) == 1 else torch.cat(found, dim=1)))
            order.append(samples)
        features = parts[0] if len(parts) == 1 else torch.cat(parts)
        order = np.concatenate(order)
        if (np.diff(order) == 1).all():
            return features
        return features[torch.from_numpy(np.argsort(order)).to(features.device)]
