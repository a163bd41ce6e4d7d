"""An extractor's features as a torch module that can be trained."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from sktransfer.feature_extraction import BaseExtractor, take_samples
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")


def as_extractor(module: Any) -> BaseExtractor:
    """The extractor that a module, a factory or an import name stands for.

    Parameters
    ----------
    module : TorchFeatureExtractor, torch.nn.Module, callable or str

    Returns
    -------
    TorchFeatureExtractor

    Raises
    ------
    TypeError
        If it is an extractor without a torch module.
    """
    # At the top it would ask for the wrong extra where there is no torch.
    from sktransfer.feature_extraction import (
        BaseNetworkExtractor,
        TorchFeatureExtractor,
    )

    if isinstance(module, BaseNetworkExtractor):
        return module
    if isinstance(module, BaseExtractor) or not (
        callable(module) or isinstance(module, str)
    ):
        raise TypeError(
            "Only torch modules can be fine-tuned: give a TorchFeatureExtractor, a "
            f"torch.nn.Module or what makes one. Got {module!r} instead."
        )
    return TorchFeatureExtractor(module)


class Backbone(torch.nn.Module):
    """Features of raw samples, with gradients, from a module of its own.

    Parameters
    ----------
    extractor : TorchFeatureExtractor
        Says how samples become inputs, and which layers the features are.
    module : torch.nn.Module
        What is trained, of the structure of the extractor's.
    batch_size : int
        Samples in one forward pass, or one more: batch normalisation must see a batch
        as a whole.
    device : str
        Where to compute, or "auto".

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
        if extractor.gives_tokens:
            raise ValueError(
                "Fine-tuning needs one row of features per sample. Got an extractor "
                "with one row per word (pooling='tokens')."
            )
        self.extractor = extractor.with_module(module.float(), **own)
        self.device = self.extractor.find_device()
        self.replace(module.to(self.device))

    @classmethod
    def of(cls, extractor: BaseExtractor, **options: Any) -> Backbone:
        """A backbone with a copy of the extractor's own module."""
        return cls(extractor, copy.deepcopy(extractor.load_module()), **options)

    def replace(self, module: torch.nn.Module) -> None:
        """Put a module of the same structure in the place of the present one."""
        self.module = module
        self.extractor = self.extractor.with_module(module)
        # In a tuple, for it is no submodule: it may be wrapped around the module.
        self._run_as = self.extractor.find_layers(module)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_run_as"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.replace(self.module)

    def forward(self, X: Any) -> torch.Tensor:
        """Float32 features (n_samples, n_features) of raw samples."""
        n_samples = len(X)
        running, layers = self._run_as
        parts, order = [], []
        extractor = self.extractor
        for rows, inputs in extractor.iter_batches(X, self.module, self.device):
            batch = extractor.run_batch(
                running, inputs, layers, rows, self.device, gradients=True
            )
            parts.append(batch.joined)
            order.append(np.arange(n_samples)[rows])
        features = parts[0] if len(parts) == 1 else torch.cat(parts)
        order = np.concatenate(order)
        if (np.diff(order) == 1).all():
            return features
        return features[torch.from_numpy(np.argsort(order)).to(features.device)]

    def transform(self, X: Any) -> np.ndarray:
        """Features of many samples, in evaluation mode and without gradients."""
        training = self.training
        size = self.extractor.batch_size
        rows = np.arange(len(X))
        try:
            self.eval()
            with torch.no_grad():
                parts = [
                    self(take_samples(X, rows[start : start + size])).cpu().numpy()
                    for start in range(0, len(rows), size)
                ]
        finally:
            self.train(training)
        return np.concatenate(parts)
