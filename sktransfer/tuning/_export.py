"""Tuned networks as plain torch modules, and as files that need no sktransfer."""

from __future__ import annotations

import copy
import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sktransfer._version import __version__
from sktransfer.feature_extraction._in_use import copy_module
from sktransfer.feature_extraction._taps import run_with_taps
from sktransfer.tuning._backbone import Backbone
from sktransfer.utils._exclusive import exclusive
from sktransfer.utils._files import replacing_file
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="tuning", needed_by="sktransfer.tuning")

METADATA = "sktransfer.json"
# Relative to the largest output, or to 1 if all are smaller. Other runtimes sum in
# another order.
_TOLERANCES = {".pt2": 1e-5, ".onnx": 1e-4}
# What timm says about the images that a network was trained on.
_TIMM_KEYS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")


def export_network(
    backbone: Backbone,
    head: torch.nn.Linear,
    X: Any,
    path: str | os.PathLike | None = None,
    classes: np.ndarray | None = None,
) -> torch.nn.Module:
    """Make a plain module of a backbone and its head, and write it to a file if asked.

    `X` are a few raw samples, at least two, to trace the network with and to compare
    outputs on.
    """
    if path is not None:
        path = _check_path(path)
    # Only copies run, so that other threads may use the backbone meanwhile.
    head = copy_module(head).cpu()
    own = Backbone(
        backbone.extractor,
        copy_module(backbone.module),
        batch_size=len(X),
        device="cpu",
    ).eval()
    unused = copy.deepcopy(own.module)  # a run may leave traces in a module
    with torch.no_grad():
        examples = list(_make_examples(own, head, X))
        module = _plain_module(unused, own, head, examples)
        if path is None and module is not None and not _needs_sktransfer(module):
            return module
        own_class = module is not None
        if not own_class:
            module = _Deployed(own, head, examples[0]).eval()
            _check(module, examples, "The network, run once more,")
        with _torch_at_work():
            # Of a copy, in which a trace may leave tensors without values.
            traceable = copy.deepcopy(module) if own_class else module
            program = _trace(traceable, examples)
            traced = _as_module(program)
            _check(traced, examples, "The program that torch.export has traced")
            if path is not None:
                facts = _describe(program, own, examples, classes)
                write = _write_onnx if path.suffix.lower() == ".onnx" else _write_pt2
                with replacing_file(path) as part:
                    write(program, part, examples, facts)
    return module if own_class and not _needs_sktransfer(module) else traced


@contextmanager
def _torch_at_work() -> Iterator[None]:
    """One trace at a time, as torch replaces its own functions, and no warnings."""
    with exclusive([torch.export]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass
class _Example:
    """A batch of inputs, as the arguments of a module, and the outputs for it."""

    inputs: Any
    outputs: torch.Tensor

    def __post_init__(self):
        tensors = self.inputs
        if _is_text(tensors):
            tensors = tensors.tensors
        self.args, self.kwargs = (), {}
        if isinstance(tensors, Mapping):
            self.kwargs = dict(tensors)
        elif type(tensors) in (list, tuple):
            self.args = tuple(tensors)
        else:
            self.args = (tensors,)

    @property
    def names(self) -> list[str]:
        """Names of the arguments."""
        if len(self.args) == 1:
            return ["input"]
        return [*self.kwargs, *(f"input_{i}" for i in range(len(self.args)))]

    def leaves(self) -> dict[str, torch.Tensor]:
        """All tensors of the inputs, by name."""
        values = [*self.kwargs.values(), *self.args]
        return _leaves("", dict(zip(self.names, values, strict=True)))

    def rebuild(self, *values: Any) -> Any:
        """Inputs of the kind of these, from other arguments."""
        if self.kwargs:
            given = dict(zip(self.kwargs, values, strict=True))
            is_text = _is_text(self.inputs)
            return self.inputs._replace(tensors=given) if is_text else given
        kind = type(self.inputs)
        return kind(values) if kind in (list, tuple) else values[0]

    def compare(self, call: Callable[..., Any]) -> float:
        """Largest difference of outputs, relative to the largest one or to 1."""
        # Copies, because a module may work in place on its inputs.
        outputs = call(*copy.deepcopy(self.args), **copy.deepcopy(self.kwargs))
        outputs = torch.as_tensor(outputs)
        if outputs.shape != self.outputs.shape:
            return float("inf")
        difference = (outputs - self.outputs).abs().max()
        return (difference / self.outputs.abs().max().clamp(min=1)).item()


def _leaves(name: str, value: Any) -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {name: value}
    if isinstance(value, Mapping):
        parts = value.items()
    elif type(value) in (list, tuple):
        parts = enumerate(value)
    else:
        raise TypeError(
            "torch.export traces networks whose inputs are tensors, or lists, tuples "
            f"and mappings of them. Got an input of type {type(value).__name__}."
        )
    found = {}
    for key, part in parts:
        found |= _leaves(f"{name}_{key}" if name else str(key), part)
    return found


def _is_text(inputs: Any) -> bool:
    return hasattr(inputs, "_fields") and hasattr(inputs, "tensors")


def _make_examples(
    backbone: Backbone, head: torch.nn.Linear, X: Any
) -> Iterator[_Example]:
    """All samples in one batch, then each alone, with the outputs of the backbone."""
    extractor, (running, layers) = backbone.extractor, backbone._run_as
    cpu = torch.device("cpu")
    parts = [X, *(X[i : i + 1] for i in range(len(X)))]
    for part in parts:
        for rows, inputs in extractor.iter_batches(part, backbone.module, cpu):
            kept = copy.deepcopy(inputs)
            batch = extractor.run_batch(running, inputs, layers, rows, cpu)
            outputs = head(batch.joined)
            if not torch.isfinite(outputs).all():
                raise ValueError(
                    "The outputs for the samples of X are NaN or infinite, so that "
                    "nothing can be compared. Pass other samples."
                )
            yield _Example(kept, outputs)


def _plain_module(
    module: torch.nn.Module,
    backbone: Backbone,
    head: torch.nn.Linear,
    examples: list[_Example],
) -> torch.nn.Module | None:
    """The network's own module with the new head, if that gives the same outputs."""
    extractor, (_, layers) = backbone.extractor, backbone._run_as
    names, old = list(getattr(layers, "plan", ())), extractor.source_head
    if callable(extractor.pooling):
        return None
    head = copy.deepcopy(head)
    n_axes = []
    try:
        if names in (["penultimate"], [f"input({old})"]):
            if not isinstance(module.get_submodule(old), torch.nn.Linear):
                return None
            module.set_submodule(old, head)
        elif names == ["output"]:
            module = torch.nn.Sequential(module, head)
        else:
            return None
        trial = copy.deepcopy(module).eval()
        reads = trial[1] if names == ["output"] else trial.get_submodule(old)
        reads.register_forward_pre_hook(lambda _, args: n_axes.append(args[0].ndim))
        same = all(example.compare(trial) <= 1e-5 for example in examples)
    except Exception:  # the module does more than that
        return None
    # With more axes, features are pooled before the head: mostly another function.
    return module.eval() if same and n_axes == [2] * len(examples) else None


def _needs_sktransfer(module: torch.nn.Module) -> bool:
    """Whether any part of a module has a class of sktransfer, or inherits from one."""
    kinds = {base for part in module.modules() for base in type(part).__mro__}
    return any(kind.__module__.partition(".")[0] == "sktransfer" for kind in kinds)


class _Deployed(torch.nn.Module):
    """The layers that an extractor reads, pooled, and the head on top of them.

    It takes what the network takes: the arguments of `example`.
    """

    def __init__(self, backbone: Backbone, head: torch.nn.Linear, example: _Example):
        super().__init__()
        extractor, (self.network, layers) = backbone.extractor, backbone._run_as
        self.head = copy.deepcopy(head)

        def forward(*args: Any, **kwargs: Any) -> torch.Tensor:
            inputs = example.rebuild(*signature.bind(*args, **kwargs).args)
            seen = run_with_taps(
                partial(extractor.forward, self.network, inputs),
                layers.taps,
                lambda name, tensor: extractor.pool(tensor, inputs),
            )
            return self.head(layers.collect(seen).joined)

        # Not a method, for torch.export wants the names of the arguments.
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = [inspect.Parameter(name, kind) for name in example.names]
        signature = forward.__signature__ = inspect.Signature(names)
        self.forward = forward


def _check(
    call: Callable[..., Any],
    examples: list[_Example],
    subject: str,
    suffix: str = ".pt2",
) -> None:
    """Compare with the outputs of the tuned network; a ValueError if they differ."""
    for example in examples:
        try:
            difference = example.compare(call)
        except Exception as error:
            raise ValueError(
                f"{subject} fails on a batch of {len(example.outputs)} of the samples "
                f"of X: {_reason(error)}"
            ) from error
        if not difference <= _TOLERANCES[suffix]:
            raise ValueError(
                f"{subject} gives outputs that differ from those of the tuned network "
                f"by {difference:.2g} on a batch of {len(example.outputs)}; the limit "
                f"is {_TOLERANCES[suffix]:g}. Its forward pass may depend on values "
                "or on chance, which cannot be exported."
            )


def _variable_axes(examples: list[_Example]) -> dict[str, set[int]]:
    """By input, the axes whose size differs between the examples."""
    whole, *others = (example.leaves() for example in examples)
    is_text = _is_text(examples[0].inputs)
    return {
        name: {
            axis
            for axis, size in enumerate(tensor.shape)
            if any(other[name].shape[axis] != size for other in others)
            or (is_text and axis == 1)  # tokens
        }
        for name, tensor in whole.items()
    }


def _trace(
    module: torch.nn.Module, examples: list[_Example]
) -> torch.export.ExportedProgram:
    whole = examples[0]
    leaves = whole.leaves()
    shapes = torch.export.ShapesCollection()
    for name, axes in _variable_axes(examples).items():
        if any(leaves[name].shape[axis] == 1 for axis in axes):
            raise ValueError(
                "torch.export fixes axes of size 1, here of the input "
                f"{name!r}. Pass a text of two tokens or more in X."
            )
        shapes[leaves[name]] = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    try:
        program = torch.export.export(
            module, whole.args, whole.kwargs, dynamic_shapes=shapes, strict=False
        )
    except Exception as error:
        raise ValueError(
            f"{type(module).__name__} cannot be traced by torch.export: "
            f"{_reason(error)}"
        ) from error
    if isinstance(module, _Deployed):
        program = program.run_decompositions({})  # without operations in place
        _prune(program)
    return program


def _as_module(program: torch.export.ExportedProgram) -> torch.nn.Module:
    module = program.module()
    if "_guards_fn" not in dict(module.named_children()):
        return module  # of an older torch: a hook checks its inputs
    # The same graph, whose eval() does not raise an error.
    return torch.fx.GraphModule(module, module.graph).eval()


def _prune(program: torch.export.ExportedProgram) -> None:
    """Remove what no output needs, such as the old head, with its weights."""
    graph, signature = program.graph, program.graph_signature
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    kept = []
    for spec in signature.input_specs:
        node = nodes[spec.arg.name]
        if spec.target is None or node.users:
            kept.append(spec)
            continue
        graph.erase_node(node)
        program.state_dict.pop(spec.target, None)
        program.constants.pop(spec.target, None)
    signature.input_specs[:] = kept
    program.graph_module.recompile()


def _describe(
    program: torch.export.ExportedProgram,
    backbone: Backbone,
    examples: list[_Example],
    classes: np.ndarray | None,
) -> dict[str, Any]:
    """What the user of a file has to know: the classes and the inputs."""
    extractor, variable = backbone.extractor, _variable_axes(examples)
    config = getattr(backbone.module, "pretrained_cfg", None) or {}
    params = {
        name: value
        for name, value in extractor.get_params(deep=False).items()
        if name in ("network", "tokenizer", "max_length", "image_size")
        and isinstance(value, (str, int, os.PathLike))
    }
    return {
        "sktransfer_version": __version__,
        "output": "numbers" if classes is None else "logits",
        "classes": None if classes is None else classes.tolist(),
        "inputs": [
            {
                "name": name,
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": [
                    None if axis in variable[leaf] else size
                    for axis, size in enumerate(tensor.shape)
                ],
            }
            for name, (leaf, tensor) in zip(
                program.graph_signature.user_inputs,
                examples[0].leaves().items(),
                strict=True,
            )
        ],
        "preprocessing": {
            "extractor": type(extractor).__name__,
            **params,
            **{key: config[key] for key in _TIMM_KEYS if key in config},
        },
    }


def _write_pt2(
    program: Any, path: Path, examples: list[_Example], facts: dict[str, Any]
) -> None:
    extra = {METADATA: json.dumps(facts, default=str)}
    torch.export.save(program, path, extra_files=extra)
    _check(torch.export.load(path).module(), examples, "The file written by torch")


def _write_onnx(
    program: Any, path: Path, examples: list[_Example], facts: dict[str, Any]
) -> None:
    runtime = _import_onnx()
    names = program.graph_signature.user_inputs
    try:
        made = torch.onnx.export(
            program,
            input_names=names,
            output_names=["output"],
            dynamo=True,
            verbose=False,
        )
        made.model.metadata_props[METADATA] = json.dumps(facts, default=str)
        made.save(path, external_data=False)  # one file, of at most 2 GB
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"The network cannot be written as ONNX: {_reason(error)}"
        ) from error
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken = {node.name for node in session.get_inputs()}

    def call(*args: Any, **kwargs: Any) -> torch.Tensor:
        leaves = _Example(kwargs or args, None).leaves().values()
        pairs = zip(names, leaves, strict=True)
        given = {name: x.numpy() for name, x in pairs if name in taken}
        return torch.from_numpy(session.run(None, given)[0])

    _check(call, examples, "The ONNX file, run by onnxruntime,", suffix=".onnx")


def _import_onnx() -> Any:
    """The runtime, if all that export to ONNX needs is there."""
    for name in ("onnx", "onnxscript"):
        import_optional(name, extra="onnx", needed_by="Export to ONNX")
    return import_optional("onnxruntime", extra="onnx", needed_by="Export to ONNX")


def _check_path(path: str | os.PathLike) -> Path:
    """A path that can be written to, as far as that can be told before the work."""
    path = Path(path)
    if path.suffix.lower() not in _TOLERANCES:
        raise ValueError(
            "The 'path' parameter of export must end in '.pt2' (torch.export) or "
            f"'.onnx'. Got {str(path)!r} instead."
        )
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; create it first.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} must not be written to.")
    if path.suffix.lower() == ".onnx":
        _import_onnx()
    return path


def _reason(error: BaseException) -> str:
    """One line on the first cause of an error of torch."""
    if "specialized it to be a constant" in str(error):
        return (
            "its code fixes the size of an axis that varies, such as the number of "
            "samples in len(x), where x.shape[0] does not, or in a loop over samples."
        )
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
