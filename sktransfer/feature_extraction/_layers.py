"""The layers of a torch module that the `layer` parameter names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from sktransfer.feature_extraction._base import Extraction
from sktransfer.feature_extraction._taps import Tap
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")

# No submodule's name has a space.
SOURCE = "source probabilities"
ALL = "all layers"
_MEAN = re.compile(r"mean\((.*)\)")
_INPUT = re.compile(r"input\((.*)\)")


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
            inputs = [f"input({name})" for name in self._with_weights()]
            self.candidates = frozenset(inputs)
            asked = [*inputs, self._own]
        self.plan = self._make_plan(asked)
        needed = dict.fromkeys(name for names in self.plan.values() for name in names)
        self.taps = {name: self._tap(name) for name in needed}
        if source_proba:
            self.taps[SOURCE] = self._tap(source_head)

    @property
    def _own(self) -> str:
        """The layer with the network's own features."""
        return "penultimate" if self._source_head in self._submodules else "output"

    def _with_weights(self) -> list[str]:
        """Submodules with a matrix, or a kernel, of weights; not the source head."""
        return [
            name
            for name, submodule in self._module.named_modules()
            if name
            and name != self._source_head
            and "parametrizations" not in name.split(".")
            and _runs(submodule)
            and any(weight.ndim > 1 for weight in _own_weights(submodule))
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
        if parameter == "layer" and (of_input := _INPUT.fullmatch(entry)):
            inner = of_input[1]
            names = (inner,) if inner in self._submodules else self._match(inner)
            if names:
                return tuple(f"input({name})" for name in names)
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
            if _runs(submodule)
            and len(own := name.split(".")) == len(parts)
            and all(map(fnmatchcase, own, parts))
        )

    def _tap(self, name: str) -> Tap:
        if name in self._submodules:
            return Tap(self._submodules[name])
        if name == "output":
            return Tap(self._module)
        if inner := _INPUT.fullmatch(name):
            return Tap(self._submodules[inner[1]], on_input=True)
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


def _own_weights(module: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    """Parameters of a module that are not those of a submodule that runs."""
    yield from module.parameters(recurse=False)
    for name, part in module.named_children():
        kinds = torch.nn.ParameterList, torch.nn.ParameterDict
        if name == "parametrizations" or isinstance(part, kinds):
            yield from part.parameters()


def _runs(module: torch.nn.Module) -> bool:
    """Whether a module shows its output; containers such as ModuleList have none."""
    if isinstance(module, torch.jit.ScriptModule):
        return False  # it takes no hooks
    return type(module).forward is not torch.nn.Module.forward
