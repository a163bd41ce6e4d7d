"""Features from the layers of a PyTorch module."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from sktransfer.feature_extraction._code import is_importable
from sktransfer.feature_extraction._fingerprint import digest
from sktransfer.feature_extraction._network import BaseNetworkExtractor
from sktransfer.feature_extraction._weights import digest_made
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")


class TorchFeatureExtractor(BaseNetworkExtractor):
    """Features, and source probabilities, from the layers of a PyTorch module.

    Parameters
    ----------
    network : str, callable or torch.nn.Module
        The pre-trained module, best given as something that makes it: an import name
        ``"package.module:factory"``, or a function, class or
        :func:`functools.partial` that is called without arguments. The module is then
        made at first use and stays out of clones and pickles. A module itself is
        cloned and pickled with its weights. Extraction leaves it as it was found:
        weights, device, training mode and gradients. Threads that share it take turns.
    layer : str, list of str or None, default=None
        The layers that give the features:

        - the name of a submodule (as in ``named_modules``): its output;
        - a wildcard such as ``"block*"``, ``"encoder.layers.*"``: all submodules that
          match, in the order of the module. A wildcard does not reach across a dot;
        - ``"output"``: the module's own output;
        - ``"penultimate"``: what goes into `source_head`;
        - ``"mean"``, in a list: the mean of all the other layers of the list, which
          must be of equal width. ``"mean(block*)"``, or ``"mean(block1, block2)"``,
          is the mean alone, without the layers it is made of;
        - ``"input(conv1)"``: what goes into a submodule, or several by a wildcard;
        - ``"all"``, alone: all layers of the network, see the notes;
        - None: ``"penultimate"`` where `source_head` names a submodule, ``"output"``
          otherwise.

        A submodule called "output", "penultimate" or "all" takes precedence. If an
        output is a tuple, dict or dataclass, its first tensor is taken; if a submodule
        runs more than once, its last run.
    pooling : {"mean", "max", "flatten"}, ("grid", k) or callable, default="mean"
        How a layer's output becomes (n_samples, n_features): pooled over all axes but
        those of the samples and the features. The features are the last of three axes
        (samples, tokens, features) and the second of four or more (samples, channels,
        height, width). Outputs with two axes are kept. ``("grid", 2)`` pools outputs
        with four axes to the means of 2 x 2 cells (adaptive average pooling), which
        gives channels x 4 features; of others it takes the mean. A callable takes the
        float32 tensor and returns a tensor of shape (n_samples, n_features). If it
        takes two arguments, it also receives the batch, with the padding of sequences
        or the graph of each node.
    preprocess : callable, default=None
        Applied to each sample (a PIL image, an array, a file path); returns a tensor or
        array. If None, arrays and tensors are cut into batches, and lists of them
        stacked.
    collate_fn : callable, default=None
        Makes a batch of a list of samples, as in :class:`torch.utils.data.DataLoader`.
        None stacks arrays and tensors, and mappings of them key by key. The batch is
        moved to the device with all nested tensors and arrays; other objects, such as
        batches of graphs, by their own method ``to``. The module is called with

        - ``module(**batch)`` where the batch is a mapping;
        - ``module(*batch)`` where it is a list or tuple (not a named one);
        - ``module(batch)`` otherwise. Return ``(batch,)`` to enforce this.
    source_head : str, default=None
        The submodule whose output is the logits over the source classes, or
        ``"output"`` if that is the module's own output.
    batch_size : int, default=64
        The number of samples in one forward pass.
    device : str, default="auto"
        Where to compute, as torch names it. "auto" is the first available of "cuda",
        "mps" and "cpu".
    dtype : {"float32", "bfloat16", "float16"} or None, default=None
        Precision of the computation: None is the module's own, "float32" converts the
        weights (a copy of them if `network` is a module), the others use
        :class:`torch.autocast`. Features are always float32.

    See Also
    --------
    BaseExtractor : What all extractors have in common.

    Notes
    -----
    All layers, and the source probabilities, come from one forward pass per batch, in
    evaluation mode and without gradients. Each layer is pooled on the device, in
    float32, as soon as it is computed. Floating-point inputs are converted to the
    precision of the module's weights; integers (token indices, uint8 images) are not.

    With ``layer="all"``, the layers are what the network's weights read: the inputs of
    all submodules with a matrix or kernel of weights (convolutions, linear maps), in
    the order in which they run, without the first, which reads the samples themselves.
    These are the outputs of all activations, shortcuts and normalisations that the
    network goes on with, whether they are modules or functions; the outputs of
    convolutions and linear maps, pooled, would show nearly the same once more. The last
    layer is what None stands for; what runs after it, such as the source head, is left
    out. Where a submodule runs more than once, its last run decides on the value and
    the place. The first batch tells which inputs are layers: those with two to four
    axes and one row per sample, each tensor once. If one of these does not fit a later
    batch, a ValueError says so: where an input has as many rows as the first batch by
    chance, set another `batch_size`. NaN and infinity are passed on;
    :class:`~sktransfer.model_selection.ModelSelector` then fails the candidate with an
    error that names the layer.

    In :meth:`fingerprint`, import names and importable factories count by their code
    and arguments, which should therefore determine the weights. Modules, and those
    made by lambdas or functions of a notebook, count by class, tensors, hooks and
    attributes.

    Examples
    --------
    >>> import numpy as np
    >>> from torch import nn
    >>> from sktransfer.feature_extraction import TorchFeatureExtractor
    >>> def make_module():
    ...     maps = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    ...     return nn.Sequential(*maps, nn.Flatten(), nn.Linear(32, 10))
    >>> images = np.zeros((5, 3, 6, 6), dtype=np.float32)
    >>> extractor = TorchFeatureExtractor(make_module, layer=["1", "4"])
    >>> extractor.transform(images).shape
    (5, 40)
    >>> {name: f.shape for name, f in extractor.transform_layers(images).items()}
    {'1': (5, 8), '4': (5, 32)}
    >>> extractor = TorchFeatureExtractor(
    ...     make_module, layer="all", pooling=("grid", 2), source_head="5"
    ... )
    >>> {name: f.shape for name, f in extractor.transform_layers(images).items()}
    {'input(2)': (5, 32), 'penultimate': (5, 32)}
    >>> extractor = TorchFeatureExtractor(make_module, source_head="5")
    >>> features, proba = extractor.extract(images, source_proba=True)
    >>> list(features), features["penultimate"].shape, proba.shape
    (['penultimate'], (5, 32), (5, 10))

    Sequences of different lengths, padded:

    >>> import torch
    >>> sequences = [torch.ones(2, 3), torch.ones(4, 3)]
    >>> def pad(samples):
    ...     return nn.utils.rnn.pad_sequence(samples, batch_first=True)
    >>> extractor = TorchFeatureExtractor(nn.Identity, collate_fn=pad, pooling="max")
    >>> extractor.transform(sequences).shape
    (2, 3)
    """

    _parameter_constraints: dict = {
        "network": [str, callable],
        "preprocess": [callable, None],
        "collate_fn": [callable, None],
        "source_head": [str, None],
        **BaseNetworkExtractor._parameter_constraints,
    }

    def __init__(
        self,
        network: str | Callable[[], torch.nn.Module] | torch.nn.Module,
        *,
        layer: str | Sequence[str] | None = None,
        pooling: str | tuple[str, int] | Callable[..., torch.Tensor] = "mean",
        preprocess: Callable[[Any], Any] | None = None,
        collate_fn: Callable[[list], Any] | None = None,
        source_head: str | None = None,
        batch_size: int = 64,
        device: str | torch.device = "auto",
        dtype: str | None = None,
    ):
        self.network = network
        self.layer = layer
        self.pooling = pooling
        self.preprocess = preprocess
        self.collate_fn = collate_fn
        self.source_head = source_head
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype

    def make_module(self) -> torch.nn.Module:
        factory = self.network
        if isinstance(factory, str):
            factory = _import_factory(factory)
        module = factory()
        if not isinstance(module, torch.nn.Module):
            raise TypeError(
                "The 'network' parameter of TorchFeatureExtractor must be a "
                "torch.nn.Module, or make one when called without arguments. Got "
                f"{self.network!r}, which makes an object of type "
                f"{type(module).__name__}."
            )
        return module

    def _fingerprint_params(self) -> dict[str, Any]:
        params = super()._fingerprint_params()
        factory = getattr(self.network, "func", self.network)  # that of a partial
        if isinstance(self.network, torch.nn.Module):
            pass
        elif isinstance(factory, str):
            with suppress(ValueError):  # the extraction will say what is wrong
                named = factory, _import_factory(factory)
                params["network"] = digest(named, with_files=True)
        elif is_importable(factory):
            params["network"] = digest(self.network, with_files=True)
        else:
            # Its name means nothing elsewhere, so the module itself is digested.
            params["network"] = digest_made(self.load_module(), self._cache())
        return params


def _import_factory(name: str) -> Callable[[], torch.nn.Module]:
    """Import what ``"package.module:factory"`` names."""
    module, _, path = name.partition(":")
    try:
        return operator.attrgetter(path)(import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            "The 'network' parameter of TorchFeatureExtractor must be, where it is a "
            f"str, an import name 'package.module:factory'. Got {name!r} instead "
            f"({type(error).__name__}: {error})."
        ) from error
