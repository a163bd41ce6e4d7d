"""Language models: loading them, their hidden states, and batches of tokens."""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sktransfer.feature_extraction._tokens import as_found, check_room
from sktransfer.utils._optional import import_optional

_NAME = "TransformersFeatureExtractor"
torch = import_optional("torch", extra="text", needed_by=_NAME)
transformers = import_optional("transformers", extra="text", needed_by=_NAME)


class Source(NamedTuple):
    """Where a model is kept: a name on the hub (and revision), or a folder.

    The subfolder is where sentence-transformers has put it; empty if there is none.
    """

    name: str
    revision: str | None
    subfolder: str

    @classmethod
    def find(cls, name: str, revision: str | None) -> Source:
        """Find the transformer among the modules of sentence-transformers, if any."""
        if name.startswith((".", "~", os.sep)) and not Path(name).is_dir():
            raise FileNotFoundError(f"There is no folder {name!r} to load from.")
        modules = cls(name, revision, "").read_json("modules.json")
        paths = [m["path"] for m in modules or () if m["type"].endswith("Transformer")]
        return cls(name, revision, paths[0] if paths else "")

    def read_json(self, file: str) -> Any:
        """What a file of the model holds; None if there is no such file."""
        try:
            found = transformers.utils.cached_file(
                self.name, file, revision=self.revision, subfolder=self.subfolder
            )
        except OSError:  # where there is no model at all, `load` will say so
            return None
        return json.loads(Path(found).read_text("utf-8"))

    def load(self, maker: Any) -> Any:
        """Load with one of the Auto classes of transformers."""
        try:
            return maker.from_pretrained(
                self.name,
                revision=self.revision or "main",
                subfolder=self.subfolder,
                trust_remote_code=False,
            )
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"{self.name!r} needs Python code of its own, which is never run. Use "
                "a model that transformers itself has or, after reading the code, load "
                "model and tokenizer with trust_remote_code=True and pass both to the "
                "extractor."
            ) from error

    def load_tokenizer(self) -> Any:
        """Load the tokenizer, which may have a limit from sentence-transformers."""
        tokenizer = self.load(transformers.AutoTokenizer)
        settings = self.read_json("sentence_bert_config.json") or {}
        if (limit := settings.get("max_seq_length")) is not None:
            tokenizer.model_max_length = min(limit, tokenizer.model_max_length)
        return tokenizer


def has_classifier(names: Iterable[str]) -> bool:
    """Whether an architecture, by its class names, classifies texts."""
    return any(name.endswith("ForSequenceClassification") for name in names)


def stack_of(model: torch.nn.Module) -> torch.nn.Module:
    """The part of a model, without its head, whose hidden states are the features."""
    base = model.base_model
    return base.get_encoder() if model.config.is_encoder_decoder else base


def n_positions(stack: torch.nn.Module) -> int | None:
    """The longest text that a model has positions for; None if there is no limit."""
    n = getattr(stack.config, "max_position_embeddings", None)
    if n is None or n < 1:
        return None
    # The RoBERTa family counts positions from the one after padding.
    taken = [
        module.padding_idx + 1
        for name, module in stack.named_modules()
        if name.endswith("position_embeddings")
        and getattr(module, "padding_idx", None) is not None
    ]
    return n - max(taken, default=0)


def layer_names(layer: int | str | Sequence[int | str], n_layers: int) -> list[str]:
    """The layers asked for as `Layers` takes them: ``[-1]`` is ``['12']`` of 12."""

    def expand(entry: int | str) -> list[str]:
        if entry in ("*", "all"):
            return [str(i) for i in range(n_layers + 1)]
        try:
            return [str(range(n_layers + 1)[int(entry)])]
        except (ValueError, TypeError, IndexError):
            raise ValueError(
                f"The 'layer' parameter must be an index from {-n_layers - 1} to "
                f"{n_layers}, 'all', '*', 'mean', 'mean(...)' or a list of them. Got "
                f"{entry!r}."
            ) from None

    names = []
    for entry in [layer] if isinstance(layer, (int, str)) else layer:
        if entry == "mean":
            names.append(entry)
        elif mean := re.fullmatch(r"mean\((.*)\)", str(entry)):
            parts = [
                name for part in mean[1].split(",") for name in expand(part.strip())
            ]
            names.append(f"mean({', '.join(parts)})")
        else:
            names += expand(entry)
    return list(dict.fromkeys(names))


class TokenBatch(NamedTuple):
    """What a model reads in one forward pass, and where the features are.

    The tensors (n_texts, n_tokens) are padded on the right, with the attention mask.
    `words` (2, n_words) are row and column of the tokens to take, or None.
    """

    tensors: dict[str, torch.Tensor]
    words: torch.Tensor | None = None

    @classmethod
    def pad(
        cls,
        encodings: dict[str, list[list[int]]],
        padding: int,
        device: torch.device,
        words: Sequence[np.ndarray] | None = None,
    ) -> TokenBatch:
        """Make a batch of what a tokenizer gives."""
        ids = [own or [padding] for own in encodings["input_ids"]]
        width = max(map(len, ids))

        def fill(rows: list[list[int]], value: int) -> torch.Tensor:
            full = [[*row, *[value] * (width - len(row))] for row in rows]
            return torch.tensor(full, device=device)

        tensors = {
            "input_ids": fill(ids, padding),
            "attention_mask": fill([[1] * len(own) for own in ids], 0),
        }
        if "token_type_ids" in encodings:
            tensors["token_type_ids"] = fill(encodings["token_type_ids"], 0)
        if words is not None:
            words = torch.as_tensor(np.stack(words), device=device)
        return cls(tensors, words)

    def pool(self, states: torch.Tensor, how: str) -> torch.Tensor:
        """Pool hidden states (n_texts, n_tokens, n_features) in float32."""
        states = states.to(torch.float32)
        if how == "tokens":
            return states[self.words[0], self.words[1]]
        mask = self.tensors["attention_mask"]
        lengths = mask.sum(dim=1)
        if how == "mean":
            kept = states.masked_fill(mask[..., None] == 0, 0.0)
            return kept.sum(dim=1) / lengths[:, None]
        rows = torch.arange(states.shape[0], device=states.device)
        return states[rows, 0 if how == "cls" else lengths - 1]


class HiddenStates(torch.nn.Module):
    """A language model that exposes its hidden states as submodules "0", "1", ....

    With `with_head` its head runs as well; the submodule "logits" has its output.
    """

    def __init__(self, model: torch.nn.Module, indices: Iterable[int], with_head: bool):
        super().__init__()
        self.training = False  # the modes to bring back are those of the model
        self.stack = stack_of(model)
        self.model = model if with_head else self.stack
        self._made_as = type(model), model.config
        self.indices = sorted(indices)
        self.with_head = with_head
        for name in [*map(str, self.indices), "logits"]:
            self.add_module(name, torch.nn.Identity().eval())
        self._takes = inspect.signature(self.model.forward).parameters

    def forward(self, batch: TokenBatch) -> None:
        """Run the model on a batch."""
        options: dict[str, Any] = {"use_cache": False, **batch.tensors}
        options = {name: v for name, v in options.items() if name in self._takes}
        last = self.stack.config.num_hidden_layers
        if inner := [i for i in self.indices if i != last]:
            # Newer versions keep only these; older ones treat the list as True.
            options["output_hidden_states"] = inner
        output, states = self._run(options)
        if inner and states.hidden_states is None:
            # transformers registers what a class can record when an instance is made,
            # which has not happened in a process that unpickled the model.
            kind, config = self._made_as
            with torch.device("meta"):
                kind(config)
            output, states = self._run(options)
        if inner and len(states.hidden_states) != last + 1:
            raise ValueError(
                f"{type(self.stack).__name__} gives {len(states.hidden_states)} hidden "
                f"states, but its configuration names {last} layers."
            )
        for i in self.indices:
            state = states.last_hidden_state if i == last else states.hidden_states[i]
            self.get_submodule(str(i))(state)
        if self.with_head:
            self.logits(output.logits)

    def _run(self, options: dict[str, Any]) -> tuple[Any, Any]:
        """What the model gives, and what the part with the hidden states does."""
        given = []
        hook = self.stack.register_forward_hook(lambda _, args, out: given.append(out))
        try:
            output = self.model(**options, return_dict=True)
        finally:
            hook.remove()
        (states,) = given
        return output, states


def describe_tokenizer(tokenizer: Any) -> Any:
    """What a tokenizer does, without what the last call has set it to."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer
    rules = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    names = ("special_tokens_map", "model_max_length", "truncation_side")
    return [type(tokenizer), rules, *(getattr(tokenizer, name) for name in names)]


def encode(
    tokenizer: Any, texts: Sequence[str | tuple[str, str]], limit: int | None
) -> tuple[dict[str, list[list[int]]], list[int]]:
    """Tokens of texts, or pairs of them, and the places of those that were cut off."""
    pairs = not isinstance(texts[0], str)
    check_room(tokenizer, limit, 1 + pairs, pairs)

    def run(texts: Sequence, **options: Any) -> dict[str, list[list[int]]]:
        sides = map(list, zip(*texts, strict=True)) if pairs else [list(texts)]
        with as_found(tokenizer):
            return dict(
                tokenizer(*sides, return_attention_mask=False, verbose=False, **options)
            )

    encodings = run(texts)
    too_long = [
        i
        for i, ids in enumerate(encodings["input_ids"])
        if limit is not None and len(ids) > limit
    ]
    if too_long:
        cut = run([texts[i] for i in too_long], truncation=True, max_length=limit)
        for name, rows in encodings.items():
            for i, row in zip(too_long, cut[name], strict=True):
                rows[i] = row
    return encodings, too_long
