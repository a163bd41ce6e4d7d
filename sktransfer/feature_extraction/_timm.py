"""Features from the image networks of timm, by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

from sklearn.utils._param_validation import Interval

from sktransfer.feature_extraction._fingerprint import digest_files
from sktransfer.feature_extraction._images import as_rgb
from sktransfer.feature_extraction._network import BaseNetworkExtractor
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="vision", needed_by="TimmFeatureExtractor")
timm = import_optional("timm", extra="vision", needed_by="TimmFeatureExtractor")


class TimmFeatureExtractor(BaseNetworkExtractor):
    """Features, and source probabilities, of images from a network of timm.

    Parameters
    ----------
    network : str
        The name of a network in timm, best with the tag of its weights:
        ``"resnet50.a1_in1k"``. ``timm.list_models("*vit*", pretrained=True)`` lists
        the names. ``"hf-hub:owner/name"`` loads a network from the Hugging Face Hub,
        ``"local-dir:path"`` one from a folder that was saved for it.
    pretrained : bool, default=True
        Whether to load the pre-trained weights, which timm downloads at first use
        and keeps. If False, the weights are random, but the same every time: an
        untrained control.
    checkpoint_path : str or path, default=None
        A file of weights to load instead: safetensors, or one that
        ``torch.load(..., weights_only=True)`` reads.
    model_kwargs : dict, default=None
        Further arguments of ``timm.create_model``, such as ``{"num_classes": 10}`` for
        a checkpoint with ten classes.
    image_size : int, default=None
        Height and width of the input images. None is the size that the network was
        trained for; smaller is faster. A network with a fixed input size is built for
        this one, and its position embeddings are resampled; one on the Hub needs
        ``"img_size"`` in `model_kwargs` as well.
    layer : str, list of str or None, default=None
        The layers that give the features, as in :class:`TorchFeatureExtractor`. None,
        like ``"penultimate"``, is the input of the classifier: the pooled and
        normalised output of ``forward_head(..., pre_logits=True)``. It is the last of
        ``"all"`` layers.
    pooling : {"mean", "max", "flatten"}, ("grid", k) or callable, default="mean"
        How the output of another layer becomes (n_samples, n_features), as in
        :class:`TorchFeatureExtractor`. Tokens are pooled with the class token. Maps
        with their channels last are told by their equal height and width.
    batch_size, device, dtype : int, str, str or None
        As in :class:`TorchFeatureExtractor`.

    Attributes
    ----------
    preprocess : callable
        The transform of an image, from timm's settings for the network (size,
        interpolation, crop, mean and standard deviation). Reading it loads the network.
    source_head : str
        The submodule that gives the logits. Reading it loads the network.

    See Also
    --------
    TorchFeatureExtractor : For other networks, such as those of torchvision.

    Notes
    -----
    Images are PIL images, file paths, or arrays of type uint8: one of shape
    (n_samples, height, width[, channels]) or a list of (height, width[, channels]) of
    any size, with 1, 3 or 4 channels. All are converted to RGB as timm does: grey is
    repeated and transparency dropped.

    In :meth:`~BaseExtractor.fingerprint` a network counts by its name and tag, local
    weights by the content of the files.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.feature_extraction import TimmFeatureExtractor
    >>> images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    >>> extractor = TimmFeatureExtractor("test_resnet", pretrained=False)
    >>> extractor.transform(images).shape
    (4, 96)
    >>> extractor.source_proba(images).shape
    (4, 1000)
    >>> extractor.set_params(network="test_vit", layer="mean(blocks.*)")
    TimmFeatureExtractor(layer='mean(blocks.*)', network='test_vit',
                         pretrained=False)
    >>> extractor.transform(images).shape
    (4, 64)
    """

    _parameter_constraints: dict = {
        "network": [str],
        "pretrained": ["boolean"],
        "checkpoint_path": [str, os.PathLike, None],
        "model_kwargs": [dict, None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        **BaseNetworkExtractor._parameter_constraints,
    }

    def __init__(
        self,
        network: str,
        *,
        pretrained: bool = True,
        checkpoint_path: str | os.PathLike | None = None,
        model_kwargs: dict[str, Any] | None = None,
        image_size: int | None = None,
        layer: str | Sequence[str] | None = None,
        pooling: str | tuple[str, int] | Callable[..., torch.Tensor] = "mean",
        batch_size: int = 64,
        device: str | torch.device = "auto",
        dtype: str | None = None,
    ):
        self.network = network
        self.pretrained = pretrained
        self.checkpoint_path = checkpoint_path
        self.model_kwargs = model_kwargs
        self.image_size = image_size
        self.layer = layer
        self.pooling = pooling
        self.batch_size = batch_size
        self.device = device
        self.dtype = dtype

    @property
    def preprocess(self) -> Callable[[Any], torch.Tensor]:
        """The transform of an image that goes with the network."""
        size = self.image_size
        wanted = {} if size is None else {"input_size": (3, size, size)}
        config = timm.data.resolve_data_config(wanted, model=self.load_module())
        transform = timm.data.create_transform(**config, is_training=False)
        return lambda image: transform(as_rgb(image))

    @property
    def source_head(self) -> str:
        """The submodule that gives the logits."""
        module = self.load_module()
        head = getattr(module, _Heads.NAME, None) or module.get_classifier()
        return next(name for name, part in module.named_modules() if part is head)

    def make_module(self) -> torch.nn.Module:
        config = self._find_config()
        kwargs = dict(self.model_kwargs or {})
        if self.image_size is not None and getattr(config, "fixed_input_size", False):
            kwargs.setdefault("img_size", self.image_size)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            module = timm.create_model(
                self.network,
                pretrained=self.pretrained and self.checkpoint_path is None,
                **kwargs,
            )
        if self.checkpoint_path is not None:
            self._load_checkpoint(module)
        one_layer = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Identity)
        is_alone = getattr(module, "aux_head", None) is None  # VOLO's adds to the other
        if not (is_alone and isinstance(module.get_classifier(), one_layer)):
            module.add_module(_Heads.NAME, _Heads())
        return module

    def _load_checkpoint(self, module: torch.nn.Module) -> None:
        path = os.fspath(self.checkpoint_path)
        try:
            timm.models.load_checkpoint(module, path, weights_only=True)
        except Exception as error:
            raise ValueError(
                "The 'checkpoint_path' parameter of TimmFeatureExtractor must be a "
                f"file of weights for {self.network!r}, safetensors or one that "
                f"torch loads with weights_only=True. Got {path!r} instead "
                f"({type(error).__name__}: {error})."
            ) from error

    def forward(self, module: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        heads = getattr(module, _Heads.NAME, None)
        if heads is None:
            return module(inputs)
        maps = module.forward_features(inputs)
        return heads(
            module.forward_head(maps, pre_logits=True),
            lambda: module.forward_head(maps),
        )

    def _channels_first(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.ndim == 4 and tensor.shape[1] == tensor.shape[2] != tensor.shape[3]:
            tensor = tensor.permute(0, 3, 1, 2)  # the channels stood last
        return tensor

    def _find_config(self) -> Any:
        """What timm knows about the network by its name; None for one elsewhere."""
        if ":" in self.network:
            return None
        try:
            if timm.is_model(self.network):
                return timm.get_pretrained_cfg(self.network)
        except RuntimeError:  # no such tag
            pass
        names = [*timm.list_models(), *timm.list_models(pretrained=True)]
        close = difflib.get_close_matches(self.network, names, n=5)
        raise ValueError(
            "The 'network' parameter of TimmFeatureExtractor must be one that "
            f"timm.list_models() lists. Got {self.network!r} instead."
            + (f" Close to it: {', '.join(map(repr, close))}." if close else "")
        )

    def check_source_proba(self) -> None:
        own = (self._find_config() or self.load_module()).num_classes
        asked = (self.model_kwargs or {}).get("num_classes", own)
        if asked == 0:
            problem = "has none (num_classes=0)"
        elif self.pretrained and self.checkpoint_path is None and asked != own:
            problem = f"was pre-trained with {own} classes, not num_classes={asked}"
        else:
            return
        raise ValueError(
            "Source probabilities need a network with a trained classifier, but "
            f"{self.network!r} {problem}."
        )

    def _fingerprint_params(self) -> dict[str, Any]:
        params = super()._fingerprint_params()
        if (config := self._find_config()) is not None and config.tag:
            params["network"] = f"{config.architecture}.{config.tag}"
        elif self.network.startswith("local-dir:"):
            params["network"] = digest_files(self.network.partition(":")[2])
        if self.checkpoint_path is not None:
            params["pretrained"] = False
            params["checkpoint_path"] = digest_files(self.checkpoint_path)
        return params


class _Heads(torch.nn.Module):
    """Stand-in for a composite classifier, with the inputs and outputs of that."""

    NAME = "source_head"

    def forward(
        self, features: torch.Tensor, classify: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        return classify()
