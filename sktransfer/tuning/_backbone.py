"""An extractor's features as a torch module that can be trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from sktransfer import feature_extraction
from sktransfer.feature_extraction import BaseExtractor
from sktransfer.feature_extraction._batches import to_device
from sktransfer.feature_extraction._in_use import copy_module, without_new_hooks
from sktransfer.utils._exclusive import exclusive
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")

_NormBase = torch.nn.modules.batchnorm._NormBase
Layers = dict[str, torch.Tensor]


def as_extractor(network: Any) -> BaseExtractor:
    """The extractor that a module, a factory or an import name stands for."""
    # Names that need torch are looked up late: imported above, they would ask for the
    # wrong extra where it is missing.
    if isinstance(network, feature_extraction.BaseNetworkExtractor):
        return network
    if isinstance(network, BaseExtractor) or not (
        callable(network) or isinstance(network, str)
    ):
        raise TypeError(
            "Only torch modules can be fine-tuned. Pass a TorchFeatureExtractor, a "
            "torch.nn.Module, or a factory or import name that makes one. Got "
            f"{network!r} instead."
        )
    return feature_extraction.TorchFeatureExtractor(network)


def make_backbone(network: Any, **options: Any) -> Backbone:
    """The backbone of whatever can be fine-tuned; a `network` may make its own."""
    if hasattr(network, "make_backbone"):
        return network.make_backbone(**options)
    extractor = as_extractor(network)
    return Backbone(extractor, copy_module(extractor.load_module()), **options)


class Backbone(torch.nn.Module):
    """Features of raw samples, with gradients, from a module of its own.

    `extractor` says how samples become inputs and which layers are the features,
    `module` is trained and has the structure of the extractor's. A forward pass takes
    `batch_size` samples or one more: batch normalisation must see a batch as a whole.

    Attributes
    ----------
    module : torch.nn.Module
    extractor : BaseNetworkExtractor
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
        if extractor.gives_tokens:
            raise ValueError(
                "Fine-tuning needs one row of features per sample. Got an extractor "
                "with one row per word (pooling='tokens')."
            )
        # Precision is up to the training, not to the extraction.
        own = {"batch_size": batch_size + 1, "device": device, "dtype": None}
        self.extractor = extractor.with_module(module.float(), **own)
        self.device = self.extractor.find_device()
        self.replace(module.to(self.device))

    def replace(self, module: torch.nn.Module) -> None:
        """Put a module of the same structure in the place of the present one."""
        self.module = module
        self.extractor = self.extractor.with_module(module)
        # In a tuple, for it is no submodule: it may be wrapped around the module.
        self._run_as = self.extractor.find_layers(module)
        self._start = None

    def follow_layers(self) -> LayersOfStart:
        """Compare all layers with those of the present weights, until `replace`."""
        self._start = LayersOfStart(self.extractor, self.module, self.device)
        self._run_as = self.extractor.find_layers(self.module, all_layers=True)
        return self._start

    def finish(self) -> None:
        """Called once, after training."""
        self.replace(self.module)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_run_as", "_start")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.replace(self.module)

    def forward(self, X: Any, inputs: list | None = None) -> torch.Tensor:
        """Float32 features (n_samples, n_features) of raw samples, with gradients.

        `inputs`, if given, are what a :class:`Reader` has made of the samples.
        """
        if inputs is None:
            inputs = self._read(X)
        else:  # in the workers' memory, which is no one else's
            inputs = (
                (rows, to_device(part, True, self.device, None))
                for rows, part in inputs
            )
        if self._start is not None:
            self._start.take_pairs()
        return self._collect(inputs, lambda features: features)

    def _read(self, X: Any) -> Iterator[tuple[slice | np.ndarray, Any]]:
        return self.extractor.iter_batches(X, self.module, self.device)

    def transform(self, X: Any) -> np.ndarray:
        """Features of many samples, in evaluation mode and without gradients."""
        training = self.training
        try:
            self.eval()
            with torch.no_grad():
                return self._collect(self._read(X), torch.Tensor.cpu).numpy()
        finally:
            self.train(training)

    def _collect(
        self,
        batches: Iterable[tuple[slice | np.ndarray, Any]],
        keep: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """What to keep of the features of every batch, in the order of the rows."""
        extractor, (running, layers) = self.extractor, self._run_as
        parts, order = [], []
        for rows, inputs in batches:
            # Its layers are read by hooks, which other threads must neither run nor
            # copy.
            with exclusive([self.module]), without_new_hooks(self.module):
                batch = extractor.run_batch(
                    running, inputs, layers, rows, self.device, gradients=True
                )
            if self.training and self._start is not None:
                self._start.run_beside(batch.layers, rows, inputs)
            parts.append(keep(batch.joined))
            is_slice = isinstance(rows, slice)
            order.append(np.arange(rows.start, rows.stop) if is_slice else rows)
        features = parts[0] if len(parts) == 1 else torch.cat(parts)
        order = np.concatenate(order)
        if (np.diff(order) == 1).all():
            return features
        return features[torch.from_numpy(np.argsort(order)).to(features.device)]


class LayersOfStart:
    """All layers of a network in training, beside those of a frozen copy of its start.

    Layers are pooled as for scores of all layers. Both networks see the same inputs.
    The copy is in evaluation mode, but its batch normalisation uses the statistics of
    the batch, as that of the network does: without dropout, the layers are the same at
    the start.
    """

    def __init__(
        self, extractor: BaseExtractor, module: torch.nn.Module, device: torch.device
    ):
        extractor.check_all_layers()
        self.extractor = extractor
        self.device = device
        self.module = copy_module(module).eval().requires_grad_(False)
        self._run_as = extractor.find_layers(self.module, all_layers=True)
        self._pairs: list[tuple[Layers, Layers]] = []

    def iter_start(self, X: Any) -> Iterator[Layers]:
        """Layers of the start alone, batch by batch, in evaluation mode throughout."""
        for rows, inputs in self.extractor.iter_batches(X, self.module, self.device):
            yield self._run(rows, inputs)

    def run_beside(self, own: Layers, rows: Any, inputs: Any) -> None:
        """Run the start on inputs for which the network has computed its own layers."""
        normalisations = [m for m in self.module.modules() if isinstance(m, _NormBase)]
        for layer in normalisations:
            layer.train()
        try:
            self._pairs.append((own, self._run(rows, inputs)))
        finally:
            for layer in normalisations:
                layer.eval()

    def take_pairs(self) -> list[tuple[Layers, Layers]]:
        """Layers of the network and of its start, of what has run since the last call.

        Those of the network have gradients. Most often it is one pair for the batch.
        """
        pairs, self._pairs = self._pairs, []
        return pairs

    def _run(self, rows: Any, inputs: Any) -> Layers:
        running, layers = self._run_as
        return self.extractor.run_batch(
            running, inputs, layers, rows, self.device
        ).layers
