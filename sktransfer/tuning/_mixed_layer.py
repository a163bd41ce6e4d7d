"""One layer made of the same layer of several networks, mixed by a learnt gate."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")
nn = torch.nn

_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)
_NORMALISATIONS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)
_MOMENTUM = 0.1  # of the running gate, as that of batch normalisation


def is_mixable(layer: nn.Module) -> bool:
    """Whether a layer with parameters is a convolution, linear or a normalisation."""
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return False  # its output channels are on another axis
    return isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear, *_NORMALISATIONS))


def _n_channels_in(layer: nn.Module) -> int:
    for name in ("in_channels", "in_features", "num_features", "num_channels"):
        if hasattr(layer, name):
            return getattr(layer, name)
    return layer.normalized_shape[-1]


class MixedLayer(nn.Module):
    """A layer whose weights are a gated mixture of its sources' aligned weights.

    `layers` are the same layer of every source, that of the network first.
    `initial_weight` is its weight in the mixture at the start. With `align`, every
    source has a learnt matrix that recombines output channels, except in
    normalisations. With `lite`, the samples of a batch share one gate, whose running
    mean is used in evaluation.

    The output is linear in the weights, so a mixture of weights per sample is a
    mixture of outputs: one call per source instead of one per sample.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        *,
        initial_weight: float,
        align: bool,
        lite: bool,
    ):
        super().__init__()
        first, n_sources = layers[0], len(layers)
        self.lite = lite
        rest = (1 - initial_weight) / max(n_sources - 1, 1)
        start = torch.tensor([initial_weight] + [rest] * (n_sources - 1))
        start /= start.sum()
        self.template = copy.deepcopy(first).cpu()
        for name, buffer in self.template.named_buffers():
            if buffer.is_floating_point():
                own = torch.stack([layer.get_buffer(name).cpu() for layer in layers])
                buffer.copy_(_mix(start, own))
        names = [name for name, _ in first.named_parameters()]
        self.sources = nn.ParameterDict(
            {
                name: torch.stack(
                    [layer.get_parameter(name).detach().cpu() for layer in layers]
                )
                for name in names
            }
        )
        for name in names:  # not used
            nothing = nn.Parameter(torch.empty(0), requires_grad=False)
            setattr(self.template, name, nothing)
        self.alignment = None
        if align and not isinstance(first, _NORMALISATIONS):
            n_out = self.sources[names[0]].shape[1]
            # Added to the identity, so that weight decay leads back to it.
            self.alignment = nn.Parameter(torch.zeros(n_sources, n_out, n_out))
        self.gate = nn.Linear(_n_channels_in(first), n_sources)
        nn.init.zeros_(self.gate.weight)
        with torch.no_grad():
            self.gate.bias.copy_(start.log())
        self.register_buffer("running_gate", start)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output under the mixture of the batch, or of every sample."""
        # Inputs may have half precision, but weights are float32.
        with torch.autocast(x.device.type, enabled=False):
            gates = torch.softmax(self.gate(self._pool(x.float())), dim=1)
            weights = self._aligned()
        mean = gates.mean(dim=0)
        if self.training:
            self.running_gate.lerp_(mean.detach(), _MOMENTUM)
        if not self.lite:
            return self._mix_outputs(x, gates, weights)
        shared = mean if self.training else self.running_gate
        return self._call(x, {name: _mix(shared, w) for name, w in weights.items()})

    def fold(self) -> nn.Module:
        """A plain layer with the weights of the running gate."""
        layer = copy.deepcopy(self.template)
        for name, values in self._aligned().items():
            mixed = _mix(self.running_gate, values).detach().clone()
            setattr(layer, name, nn.Parameter(mixed))
        return layer

    def _aligned(self) -> dict[str, torch.Tensor]:
        if self.alignment is None:
            return dict(self.sources)
        return {
            name: w + torch.einsum("koc,kc...->ko...", self.alignment, w)
            for name, w in self.sources.items()
        }

    def _call(self, x: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(self.template, weights, (x,))

    def _mix_outputs(
        self, x: torch.Tensor, gates: torch.Tensor, weights: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        if not isinstance(self.template, _NORMALISATIONS):
            outputs = [
                self._call(x, {name: w[k] for name, w in weights.items()})
                for k in range(gates.shape[1])
            ]
            return sum(
                gate.reshape(-1, *[1] * (x.ndim - 1)) * output
                for gate, output in zip(gates.T, outputs, strict=True)
            )
        # Called once only, because every call updates the batch statistics.
        plain = {
            name: torch.full_like(w[0], float(name == "weight"))
            for name, w in weights.items()
        }
        own = {
            name: self._spread(_mix(gates, w), x.ndim) for name, w in weights.items()
        }
        output = self._call(x, plain) * own["weight"]
        return output + own["bias"] if "bias" in own else output

    def _spread(self, values: torch.Tensor, n_axes: int) -> torch.Tensor:
        """Weights of every sample, ready to be multiplied with an output."""
        between = [1] * (n_axes - values.ndim)
        if isinstance(self.template, _CHANNELS_LAST):
            return values.reshape(len(values), *between, *values.shape[1:])
        return values.reshape(*values.shape, *between)

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        """Mean of every channel, (n_samples, n_channels)."""
        is_last = isinstance(self.template, _CHANNELS_LAST)
        axes = tuple(range(1, x.ndim - 1) if is_last else range(2, x.ndim))
        return x.mean(axes) if axes else x


def _mix(gates: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Mixture of values (n_sources, ...) by one gate, or by one for every sample."""
    with torch.autocast(values.device.type, enabled=False):
        return torch.tensordot(gates, values, dims=1)
