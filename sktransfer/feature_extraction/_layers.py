"""The layers of a torch module: finding, tapping and pooling them."""

from __future__ import annotations

import difflib
import inspect
import re
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, NamedTuple

from sktransfer.feature_extraction._base import Extraction
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")

# No submodule's name has a space.
SOURCE = "source probabilities"
ALL = "all layers"
_MEAN = re.compile(r"mean\((.*)\)")


class Tap(NamedTuple):
    """Where a tensor is taken: a submodule's output, or what goes into it."""

    submodule: torch.nn.Module
    on_input: bool = False


class Layers:
    """The layers that `layer` and `source_head` ask for, found in a module.

    `plan` has, for each result, the layers that it is the mean of (a plain layer's is
    itself alone); `taps` say where to find them, and the source logits if wanted.
    Of the `candidates` for "all" layers, the first batch tells which are in the plan.
    `behind` are those of all layers, if they are wanted beside the others.
    """

    behind: Layers | None = None

    def __init__(
        self,
        module: torch.nn.Module,
        layer: str | Iterable[str] | None,
        source_head: str | None,
        *,
        source_proba: bool = False,
    ):
        self._kind = type(module).__name__
        self._module = module
        # A module that is registered twice has two names; both are valid.
        self._submodules = dict(module.named_modules(remove_duplicate=False))
        del self._submodules[""]
        self._source_head = source_head
        if source_head is not None:
            self._find(source_head, parameter="source_head")
        if layer is None:
            layer = self._own
        asked = [layer] if isinstance(layer, str) else list(layer)
        self.candidates: frozenset[str] = frozenset()
        if ALL in asked or ("all" in asked and "all" not in self._submodules):
            if len(asked) > 1:
                raise ValueError(
                    "The layer 'all' stands for all layers, in a list too. Got "
                    f"layer={asked!r}: use layer='all'."
                )
            leaves = self._leaves()
            self.candidates = frozenset(leaves)
            asked = [*leaves, self._own]
        self.plan = self._make_plan(asked)
        needed = dict.fromkeys(name for names in self.plan.values() for name in names)
        self.taps = {name: self._tap(name) for name in needed}
        if source_proba:
            self.taps[SOURCE] = self._tap(source_head)

    @property
    def _own(self) -> str:
        """The layer with the network's own features."""
        return "penultimate" if self._source_head in self._submodules else "output"

    def _leaves(self) -> list[str]:
        """Submodules without submodules; parametrizations of weights do not count."""
        return [
            name
            for name, submodule in self._module.named_modules()
            if name
            and name != self._own
            and "parametrizations" not in name.split(".")
            and type(submodule).forward is not torch.nn.Module.forward
            and not dict(submodule.named_children()).keys() - {"parametrizations"}
        ]

    def _make_plan(self, asked: list[str]) -> dict[str, tuple[str, ...]]:
        if not asked or not all(isinstance(name, str) for name in asked):
            raise ValueError(
                "The 'layer' parameter must be None, a str or a non-empty list of "
                f"str. Got {asked!r} instead."
            )
        plan = {}
        for entry in asked:
            if entry == "mean":
                plan[entry] = ()  # of all the others, once they are known
            elif mean := _MEAN.fullmatch(entry):
                parts = [self._find(name.strip()) for name in mean[1].split(",")]
                plan[entry] = tuple(dict.fromkeys(sum(parts, ())))
            else:
                plan |= {name: (name,) for name in self._find(entry)}
        if plan.get("mean") == ():
            plan["mean"] = tuple(name for name, of in plan.items() if of == (name,))
            if not plan["mean"]:
                raise ValueError(
                    "The layer 'mean' averages the other layers of the list, but there "
                    f"are none. Got layer={asked!r}. Use a list such as ['block*', "
                    "'mean'], or 'mean(block*)' for the mean alone."
                )
        return plan

    def _find(self, entry: str, *, parameter: str = "layer") -> tuple[str, ...]:
        """The layers that one name, or one wildcard, stands for."""
        if entry in self._submodules or entry == "output":
            return (entry,)
        if entry == "penultimate" and parameter == "layer":
            if self._source_head in self._submodules:
                return (entry,)
            raise ValueError(
                "The layer 'penultimate' is the input of the source head: set "
                "`source_head` to the name of the submodule that gives the logits. "
                f"Got source_head={self._source_head!r}."
            )
        if parameter == "layer" and (found := self._match(entry)):
            return found
        names = list(self._submodules)
        close = difflib.get_close_matches(entry, names, n=5)
        others = [name for name in names if name not in close]
        shown = [*map(repr, [*close, *others][:40]), "'output'"]
        if len(names) > 40:
            shown.append(f"and {len(names) - 40} more")
        raise ValueError(
            f"The '{parameter}' parameter must name a submodule of {self._kind}. Got "
            f"{entry!r}. Available: {', '.join(shown)}."
        )

    def _match(self, pattern: str) -> tuple[str, ...]:
        """Submodules that match a wildcard, which does not reach across a dot."""
        parts = pattern.split(".")
        return tuple(
            name
            for name, submodule in self._submodules.items()
            # Containers such as ModuleList are never called: they have no output.
            if type(submodule).forward is not torch.nn.Module.forward
            and len(own := name.split(".")) == len(parts)
            and all(map(fnmatchcase, own, parts))
        )

    def _tap(self, name: str) -> Tap:
        if name in self._submodules:
            return Tap(self._submodules[name])
        if name == "output":
            return Tap(self._module)
        return Tap(self._submodules[self._source_head], on_input=True)

    def collect(self, seen: Mapping[str, torch.Tensor]) -> Extraction:
        """The results of the plan from the pooled layers of one batch."""
        if self.candidates:
            self._settle(seen)
        results = {}
        for result, names in self.plan.items():
            layers = [seen[name] for name in names]
            if len({layer.shape[1] for layer in layers}) > 1:
                widths = {name: seen[name].shape[1] for name in names}
                raise ValueError(
                    f"The layer {result!r} averages layers, which must have the same "
                    f"number of features. Got {widths}."
                )
            results[result] = (
                layers[0] if len(layers) == 1 else torch.stack(layers).mean(dim=0)
            )
        return Extraction(results, seen.get(SOURCE))

    def _settle(self, seen: Mapping[str, torch.Tensor]) -> None:
        """Keep the candidates seen before the network's own features, in order."""
        order = list(seen)
        names = order[: order.index(self._own)]
        names = [name for name in names if name in self.candidates]
        if seen[self._own].shape[1]:
            names.append(self._own)
        self.plan = {name: (name,) for name in names}
        self.taps = {
            name: tap for name, tap in self.taps.items() if name in {*names, SOURCE}
        }
        self.candidates = frozenset()


def run_with_taps(
    call: Callable[[], Any],
    taps: Mapping[str, Tap],
    reduce: Callable[[str, torch.Tensor], torch.Tensor],
    *,
    candidates: Collection[str] = (),
    n_samples: int | None = None,
    is_linear: bool = False,
) -> dict[str, torch.Tensor]:
    """Run one forward pass, and reduce the tensor at each tap as it passes by.

    `reduce(name, tensor)` at once keeps no large activation alive, and sees it before
    a later layer can change it in place. Where a submodule runs more than once, its
    last run counts; a ValueError says if one did not run. The results are in the order
    of these runs, without those of `candidates` that did not run, gave no features of
    `n_samples` or gave a copy of what is there. `is_linear` says that `reduce` takes
    means within the channels, so that it need not be called after a batch
    normalisation.
    """
    seen: dict[str, torch.Tensor] = {}
    copies = _Copies()

    def attach(name: str, tap: Tap):
        is_candidate = name in candidates

        def take(value: Any, source: str | None = None) -> None:
            before = seen.get(source)
            seen.pop(name, None)  # of an earlier run
            tensor = first_tensor(value)
            if is_candidate:
                if tensor is None or not is_layer(tensor, n_samples):
                    return
            elif tensor is None:
                raise ValueError(f"The layer {name!r} has no tensor in its output.")
            if (copied := copies.find(tensor)) in seen:
                if is_candidate:
                    return
                if copied in candidates:
                    del seen[copied]  # rather than the network's own features
            copies.note(name, tensor)
            if before is None:
                seen[name] = reduce(name, tensor)
            else:
                seen[name] = _normalise(tap.submodule, before)

        def take_output(_: Any, args: tuple, out: Any) -> None:
            is_known = is_linear and _only_normalises(tap.submodule, args)
            take(out, copies.find(args[0]) if is_known else None)

        if tap.on_input:
            return tap.submodule.register_forward_pre_hook(
                lambda _, args, kwargs: take((args, kwargs)), with_kwargs=True
            )
        take_output.is_tap = True
        return tap.submodule.register_forward_hook(take_output)

    with ExitStack() as hooks:
        for name, tap in taps.items():
            hooks.callback(attach(name, tap).remove)
        call()
    missing = [name for name in taps if name not in seen and name not in candidates]
    if missing:
        raise ValueError(
            f"The forward pass did not run {missing}, which therefore have no output."
        )
    return seen


def _only_normalises(module: torch.nn.Module, args: tuple) -> bool:
    """Whether a module rescales the channels of square maps, and does nothing else.

    Of other maps, those of timm may have their channels last.
    """
    return (
        type(module) is torch.nn.BatchNorm2d
        and not module.training
        and module.running_mean is not None
        # Other hooks may change the output.
        and all(hasattr(hook, "is_tap") for hook in module._forward_hooks.values())
        and len(args) == 1
        and args[0].shape[2] == args[0].shape[3]
    )


def _normalise(module: torch.nn.BatchNorm2d, means: torch.Tensor) -> torch.Tensor:
    """The means within the channels after a batch normalisation, of those before."""
    mean, var, weight, bias = (
        None if tensor is None else tensor.to(torch.float32)
        for tensor in (
            module.running_mean,
            module.running_var,
            module.weight,
            module.bias,
        )
    )
    cells = means.reshape(len(means), module.num_features, -1)
    cells = torch.nn.functional.batch_norm(
        cells, mean, var, weight, bias, eps=module.eps
    )
    return cells.reshape(means.shape)


def is_layer(tensor: torch.Tensor, n_samples: int | None) -> bool:
    """Whether an output is one of "all" layers: features of each sample."""
    return (
        2 <= tensor.ndim <= 4
        and len(tensor) == n_samples
        and tensor.numel() > 0
        and tensor.is_floating_point()
        and tensor.layout == torch.strided
    )


class _Copies:
    """Tells outputs that are copies: the same values in the same memory."""

    def __init__(self) -> None:
        self._noted: dict[int, tuple] = {}

    def find(self, tensor: torch.Tensor) -> str | None:
        """The last output noted that has the values of a tensor, axes of 1 aside."""
        if tensor.layout != torch.strided or tensor.is_inference():
            return None
        name, alive, version, shape = self._noted.get(tensor.data_ptr(), (None,) * 4)
        # Once an output is freed, a later one may have its place in memory.
        is_copy = (
            name is not None
            and alive() is not None
            and tensor._version == version  # else something worked in place
            and _shape(tensor) == shape
        )
        return name if is_copy else None

    def note(self, name: str, tensor: torch.Tensor) -> None:
        """Note an output, without keeping it alive."""
        if tensor.layout == torch.strided and not tensor.is_inference():
            noted = name, weakref.ref(tensor), tensor._version, _shape(tensor)
            self._noted[tensor.data_ptr()] = noted


def _shape(tensor: torch.Tensor) -> tuple:
    """Shape and strides without the axes of length 1."""
    axes = zip(tensor.shape, tensor.stride(), strict=True)
    return tuple(axis for axis in axes if axis[0] > 1)


def first_tensor(value: Any) -> torch.Tensor | None:
    """The first tensor in a module's output, however deep in tuples and dicts."""
    queue = [value]
    while queue:
        value = queue.pop(0)
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, Mapping):
            queue[:0] = value.values()
        elif isinstance(value, (tuple, list)):
            queue[:0] = value
        elif hasattr(value, "__dataclass_fields__"):
            queue[:0] = vars(value).values()
    return None


def pool(
    tensor: torch.Tensor,
    how: str | tuple[str, int] | Callable[..., torch.Tensor],
    batch: Any = None,
) -> torch.Tensor:
    """Pool a layer to float32 features (n, n_features), in memory of their own.

    Outputs with two axes pass through. Of three, (n, tokens, features), the last holds
    the features; of four and more, (n, features, height, width), the second does. A
    grid keeps k x k means of maps with two spatial axes, and one mean of others. A
    callable that takes two arguments gets the batch, too.
    """
    own, tensor = tensor, tensor.to(torch.float32)
    n_axes = tensor.ndim
    if callable(how):
        given = (tensor, batch) if _takes_two(how) else (tensor,)
        tensor = torch.as_tensor(how(*given), dtype=torch.float32)
    elif how == "flatten" or n_axes < 3:
        tensor = tensor.reshape(len(tensor), -1)
    elif isinstance(how, tuple) and n_axes == 4:
        tensor = _pool_to_grid(tensor, how[1])
    else:
        axes = 1 if n_axes == 3 else tuple(range(2, n_axes))
        tensor = tensor.amax(axes) if how == "max" else tensor.mean(axes)
    # A view would change with a later layer that works in place.
    same = tensor.untyped_storage().data_ptr() == own.untyped_storage().data_ptr()
    return tensor.clone() if same else tensor


def _pool_to_grid(maps: torch.Tensor, k: int) -> torch.Tensor:
    """Adaptive average pooling of maps to k x k, flattened to (n, channels k k)."""
    if not maps.is_cpu:
        return torch.nn.functional.adaptive_avg_pool2d(maps, k).flatten(1)
    # On the CPU these take a fifth to three quarters of that time.
    n, c, h, w = maps.shape
    if maps.is_contiguous() and h % k == 0 and w % k == 0 and w >= 28 * k:
        rows = maps.reshape(n * c * k, h // k, w).mean(1)
        return rows.reshape(-1, w // k).mean(1).reshape(n, -1)
    cells = _grid(h, w, k)
    with torch.autocast("cpu", enabled=False):
        if maps.is_contiguous():
            means = maps.reshape(n * c, h * w) @ cells
        else:  # the channels are last in memory
            means = cells.T @ maps.permute(0, 2, 3, 1).reshape(n, h * w, c)
            means = means.transpose(1, 2)
        return means.reshape(n, -1)


@lru_cache(maxsize=64)
def _grid(h: int, w: int, k: int) -> torch.Tensor:
    """Matrix (h w, k k) that takes a flat map to the means of its cells."""
    with torch.inference_mode(False), torch.no_grad():
        rows, columns = (
            torch.nn.functional.adaptive_avg_pool1d(torch.eye(n, device="cpu"), k)
            for n in (h, w)
        )
        return torch.kron(rows, columns)


def _takes_two(function: Callable) -> bool:
    """Whether a function needs two arguments."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some of those written in C do not tell
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters) == 2


def softmax(logits: torch.Tensor) -> torch.Tensor:
    """Float32 probabilities (n, n_classes) of logits (n, n_classes[, 1, 1])."""
    if logits.ndim < 2 or logits.shape[2:].numel() != 1:
        raise ValueError(
            "The source head must give logits of shape (n_samples, n_source_classes). "
            f"Got shape {tuple(logits.shape)}."
        )
    return torch.softmax(logits.to(torch.float32).flatten(1), dim=1)
