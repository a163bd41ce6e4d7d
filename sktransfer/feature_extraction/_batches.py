"""Batches of a torch module: made of samples, sent to the device, written back."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from sktransfer.feature_extraction._samples import is_array
from sktransfer.utils._optional import import_optional

torch = import_optional("torch", extra="torch", needed_by="TorchFeatureExtractor")


def collate(samples: list) -> np.ndarray | torch.Tensor | dict:
    """Stack samples, numeric arrays or tensors of one shape, to a batch.

    Mappings of them are stacked key by key. A ValueError says if samples do not fit
    together, a TypeError if they are no numbers.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        if any(sample.keys() != first.keys() for sample in samples):
            raise ValueError("The samples of a batch must have the same keys.")
        return {key: collate([sample[key] for sample in samples]) for key in first}
    try:
        if isinstance(first, torch.Tensor):
            return torch.stack(samples)
        # NumPy would accept images, but few modules take their order of axes.
        is_image = type(first).__module__.partition(".")[0] == "PIL"
        batch = None if is_image else np.stack([np.asarray(x) for x in samples])
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(
            "The samples of a batch must be numeric arrays or tensors of one shape. "
            "Set 'preprocess' to convert each sample, or 'collate_fn' to batch them: "
            f"{error}"
        ) from error
    if batch is None or batch.dtype.kind not in "biuf":
        raise TypeError(
            "File paths, images and other objects need the 'preprocess' parameter, a "
            "callable that returns a tensor or an array for each sample, or "
            "'collate_fn', which returns a batch for a list of samples. Got samples of "
            f"type {type(first).__name__}."
        )
    return batch


def to_device(
    batch: Any, is_new: bool, device: torch.device, dtype: torch.dtype | None
) -> Any:
    """Move a batch to the device, with floating-point values as `dtype` if given.

    Tensors and arrays are moved however deep they are in lists, tuples and mappings
    (which become dicts). What else has a method ``to`` (graphs, packed sequences)
    moves itself; the rest stays. Unless the memory of the batch `is_new`, they are
    copied in any case: a module may work in place on its input.
    """
    if isinstance(batch, torch.Tensor):
        return _tensor_to_device(batch, is_new, device, dtype)
    if callable(getattr(batch, "to", None)):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {
            key: to_device(part, is_new, device, dtype) for key, part in batch.items()
        }
    if isinstance(batch, (list, tuple)):
        parts = [to_device(part, is_new, device, dtype) for part in batch]
        is_named = hasattr(batch, "_fields")
        return type(batch)(*parts) if is_named else type(batch)(parts)
    is_numeric = is_array(batch) and getattr(batch.dtype, "kind", "f") not in "OUST"
    return _tensor_to_device(batch, is_new, device, dtype) if is_numeric else batch


def _tensor_to_device(
    batch: Any, is_new: bool, device: torch.device, dtype: torch.dtype | None
) -> torch.Tensor:
    to_cuda = device.type == "cuda"
    if isinstance(batch, np.ndarray) and (to_cuda or not is_new):
        # NumPy copies, because torch takes neither read-only arrays (memory maps) nor
        # negative strides. It also allocates: glibc seldom reuses freed memory for the
        # aligned blocks that torch requests, and batches would pile up.
        own = np.empty(batch.shape, dtype=batch.dtype.newbyteorder("="))
        tensor = torch.from_numpy(own)
        if to_cuda:
            tensor = torch.empty_like(tensor, pin_memory=True)
        np.copyto(tensor.numpy(), batch)
    else:
        tensor = torch.as_tensor(batch).detach()
        tensor = tensor if is_new else tensor.clone()
        is_dense = tensor.layout == torch.strided
        if to_cuda and is_dense and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
    if dtype is None or not tensor.is_floating_point():
        dtype = tensor.dtype
    if to_cuda:  # from pinned memory, while the device is still at the last batch
        return tensor.to(device, non_blocking=True).to(dtype)
    return tensor.to(dtype).to(device)


def describe(inputs: Any) -> str:
    """What goes into a module, for the message of an error."""
    if isinstance(inputs, torch.Tensor):
        return f"an input of shape {tuple(inputs.shape)} and type {inputs.dtype}"
    if isinstance(inputs, Mapping):
        return ", ".join(f"{key!r}: {describe(x)}" for key, x in inputs.items())
    if type(inputs) in (list, tuple):
        shown = ", ".join(map(describe, islice(inputs, 5)))
        return shown if len(inputs) <= 5 else f"{shown} and {len(inputs) - 5} more"
    return f"an input of type {type(inputs).__name__}"
