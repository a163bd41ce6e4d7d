"""Features of texts, and of their words, from language models."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from sktransfer.feature_extraction._base import Extraction
from sktransfer.feature_extraction._fingerprint import digest_files
from sktransfer.feature_extraction._language_models import (
    HiddenStates,
    Source,
    TokenBatch,
    describe_tokenizer,
    encode,
    has_classifier,
    layer_names,
    n_positions,
    stack_of,
    torch,
    transformers,
)
from sktransfer.feature_extraction._layers import Layers
from sktransfer.feature_extraction._network import BaseNetworkExtractor
from sktransfer.feature_extraction._samples import check_samples, read_samples
from sktransfer.feature_extraction._tokens import (
    check_texts,
    make_windows,
)
from sktransfer.utils._exclusive import exclusive

_SINGLE_LABEL = (None, "single_label_classification")


class TransformersFeatureExtractor(BaseNetworkExtractor):
    """Features of texts, or of their words, from a transformers language model.

    It takes encoders (BERT), decoders (GPT, Llama) and encoder-decoders (T5, BART), of
    which it runs the encoder. Of a sentence-transformers model it runs the transformer;
    set `pooling` as the model has it.

    Parameters
    ----------
    network : str, path or transformers.PreTrainedModel
        The name of a model on the hub, or a folder that holds one. It is loaded at
        first use and stays out of clones and pickles. A model itself is cloned and
        pickled with its weights; extraction leaves it as it was found.
    tokenizer : str, path or tokenizer, default=None
        The tokenizer, its name or folder. None loads that of `network`, which must
        then be a name or folder.
    layer : int, str or list of them, default=-1
        The hidden states that give the features, counted as in transformers: 0 are
        the embeddings, 1 is the output of the first block, -1 that of the model.
        ``"all"``, or ``"*"``, stands for all of them. ``"mean"``, in a list, is the
        mean of the other entries; ``"mean(1, -1)"`` or ``"mean(*)"`` is the mean alone.
    pooling : {"mean", "cls", "last", "tokens"}, default="mean"
        How the tokens of a text become features. Padding never counts, special tokens
        do.

        - ``"mean"``: the mean over the tokens;
        - ``"cls"``: the first token;
        - ``"last"``: the last token, for decoders;
        - ``"tokens"``: one row per word of sentences that are lists of words, from its
          first sub-word. :func:`flatten_tokens` turns the result into a matrix.
    batch_size : int, default=64
        The number of texts in one forward pass.
    max_length : int, default=None
        Maximum length of a text in tokens. None is the limit of the model, or the one
        set by sentence-transformers. Longer texts are truncated, with a warning. With
        ``pooling="tokens"`` they are not: long sentences are read in windows that
        overlap by half.
    device, dtype : str, str or None
        As in :class:`TorchFeatureExtractor`.
    revision : str, default=None
        The branch, tag or commit on the hub. Only a commit makes the fingerprint
        permanent.

    See Also
    --------
    TorchFeatureExtractor : For any other module.
    flatten_tokens : Features and labels of words for a classifier.

    Notes
    -----
    Each text is a str, or a pair of them: (text, other text). With
    ``pooling="tokens"`` each sample is a sentence, a sequence of words.

    The layers of an extraction are named by their index from 0: "12", not "-1". One
    call ranks them all: ``ModelSelector([("bert", TransformersFeatureExtractor(name,
    layer=["*", "mean"]))])``.

    Texts are batched by length and put back in order; a text that occurs several times
    is encoded once. A text without tokens is read as one padding token, a word that the
    tokenizer drops as an unknown word, with a warning.

    Source probabilities come from a sequence classification head, if the model was
    saved with one. In :meth:`fingerprint`, a hub name counts by name and revision, a
    folder by the contents of its files, a model by its configuration and weights.

    Examples
    --------
    >>> from tokenizers import Tokenizer, models, pre_tokenizers
    >>> from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    >>> from sktransfer.feature_extraction import TransformersFeatureExtractor
    >>> vocabulary = {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3, "film": 4}
    >>> backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
    >>> tokenizer = PreTrainedTokenizerFast(
    ...     tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    ... )
    >>> config = BertConfig(
    ...     vocab_size=5,
    ...     hidden_size=8,
    ...     num_hidden_layers=2,
    ...     num_attention_heads=2,
    ...     intermediate_size=8,
    ... )
    >>> extractor = TransformersFeatureExtractor(
    ...     BertModel(config), tokenizer=tokenizer, layer=[0, -1, "mean"]
    ... )
    >>> features = extractor.transform_layers(["good film", "bad bad film"])
    >>> {name: f.shape for name, f in features.items()}
    {'0': (2, 8), '2': (2, 8), 'mean': (2, 8)}
    """

    _parameter_constraints: dict = {
        **BaseNetworkExtractor._parameter_constraints,
        "network": [str, os.PathLike, transformers.PreTrainedModel],
        "tokenizer": [str, os.PathLike, callable, None],
        "layer": [Integral, str, list, tuple],
        "pooling": [StrOptions({"mean", "cls", "last", "tokens"})],
        "max_length": [Interval(Integral, 1, None, closed="left"), None],
        "revision": [str, None],
    }

    not_in_module = BaseNetworkExtractor.not_in_module | {"tokenizer", "max_length"}

    def __init__(
        self,
        network: str | os.PathLike | torch.nn.Module,
        *,
        tokenizer: Any = None,
        layer: int | str | Sequence[int | str] = -1,
        pooling: str = "mean",
        batch_size: int = 64,
        max_length: int | None = None,
        device: str | torch.device = "auto",
        dtype: str | None = None,
        revision: str | None = None,
    ):
        self.network = network
        self.tokenizer = tokenizer
        self.layer = layer
        self.pooling = pooling
        self.batch_size = batch_size
        self.max_length = max_length
        self.device = device
        self.dtype = dtype
        self.revision = revision

    @property
    def gives_tokens(self) -> bool:
        """Whether a row of the features is a word, not a text."""
        return self.pooling == "tokens"

    def iter_extract(
        self, X: Any, *, source_proba: bool = False, all_layers: bool = False
    ) -> Iterator[tuple[np.ndarray, Extraction]]:
        self._validate_params()
        texts = self._read(X)
        wanted = {"source_proba": source_proba, "all_layers": all_layers}
        if self.gives_tokens:
            yield from super().iter_extract(texts, **wanted)
            return
        places: dict[Any, list[int]] = {}
        for i, text in enumerate(texts):
            places.setdefault(text, []).append(i)
        rows_of = list(places.values())
        stream = super().iter_extract(list(places), **wanted)
        with closing(stream):
            for rows, batch in stream:
                found = [rows_of[i] for i in np.arange(len(rows_of))[rows]]
                again = [k for k, own in enumerate(found) for _ in own]
                rows = np.concatenate(found)
                repeats = len(rows) > len(found)
                size = self.batch_size if repeats else len(rows)
                for start in range(0, len(rows), size):
                    part = slice(start, start + size)
                    own = _take_rows(batch, again[part]) if repeats else batch
                    yield rows[part], own
                del batch, own

    def find_layers(
        self,
        module: torch.nn.Module,
        *,
        source_proba: bool = False,
        all_layers: bool = False,
    ) -> tuple[torch.nn.Module, Layers]:
        n_layers = stack_of(module).config.num_hidden_layers
        names = layer_names(self.layer, n_layers)
        every = layer_names("all", n_layers) if all_layers else []
        indices = {int(i) for name in names + every for i in re.findall(r"\d+", name)}
        states = HiddenStates(module, indices, source_proba)
        head = "logits" if source_proba else None
        layers = Layers(states, names, head, source_proba=source_proba)
        if all_layers:
            layers.behind = Layers(states, every, head)
        return states, layers

    def iter_batches(
        self, X: Any, module: torch.nn.Module, device: torch.device
    ) -> Iterator[tuple[np.ndarray, TokenBatch]]:
        make = self._word_batches if self.gives_tokens else self._text_batches
        return make(self._read(X), module, device)

    def with_module(
        self, module: torch.nn.Module, **params: Any
    ) -> TransformersFeatureExtractor:
        copied = super().with_module(module, **params)
        if "tokenizer" in self._cache():
            copied._cache()["tokenizer"] = self._cache()["tokenizer"]
        return copied

    # From texts to batches.

    def _read(self, X: Any) -> list:
        X, n_samples = check_samples(X, self)
        return check_texts(read_samples(X, 0, n_samples), as_words=self.gives_tokens)

    def _text_batches(
        self, texts: list, model: torch.nn.Module, device: torch.device
    ) -> Iterator[tuple[np.ndarray, TokenBatch]]:
        tokenizer, limit = self.load_tokenizer(), self._limit(model)
        lengths = [
            len(text) if isinstance(text, str) else sum(map(len, text))
            for text in texts
        ]
        n_cut = 0
        for rows in _by_length(lengths, self.batch_size):
            encodings, cut = encode(tokenizer, [texts[i] for i in rows], limit)
            n_cut += len(cut)
            yield rows, TokenBatch.pad(encodings, self._padding(model), device)
        if n_cut:
            warnings.warn(
                f"{n_cut} of {len(texts)} different texts have more than {limit} "
                "tokens and were cut off there.",
                stacklevel=2,
            )

    def _word_batches(
        self, sentences: list[list[str]], model: torch.nn.Module, device: torch.device
    ) -> Iterator[tuple[np.ndarray, TokenBatch]]:
        if not sum(map(len, sentences)):
            raise ValueError(f"Found no words in {len(sentences)} sentences.")
        tokenizer, limit = self.load_tokenizer(), self._limit(model)
        if not tokenizer.is_fast:
            raise ValueError(
                "pooling='tokens' needs a fast tokenizer, which tells the words that "
                f"its tokens are from. Got {type(tokenizer).__name__}."
            )
        lengths = [len(words) for words in sentences]
        starts = np.cumsum([0, *lengths])
        n_split = n_unknown = 0
        for places in _by_length(lengths, self.batch_size):
            windows = make_windows(tokenizer, [sentences[i] for i in places], limit)
            n_split += windows.n_split
            n_unknown += windows.n_unknown
            used = [i for i, words in enumerate(windows.words) if words]
            for start in range(0, len(used), self.batch_size):
                chosen = used[start : start + self.batch_size]
                words = [
                    (starts[places[i]] + j, row, column)
                    for row, window in enumerate(chosen)
                    for i, j, column in windows.words[window]
                ]
                rows, *where = np.array(words).T
                encodings = {
                    name: [ids[i] for i in chosen]
                    for name, ids in windows.encodings.items()
                }
                yield (
                    rows,
                    TokenBatch.pad(encodings, self._padding(model), device, where),
                )
        if n_split:
            warnings.warn(
                f"{n_split} of {len(sentences)} sentences have more than {limit} "
                "tokens and were read in overlapping windows.",
                stacklevel=2,
            )
        if n_unknown:
            warnings.warn(
                f"{n_unknown} of {starts[-1]} words have no token of their own and "
                "were read as unknown words.",
                stacklevel=2,
            )

    def _describe_batch(
        self, module: HiddenStates, inputs: TokenBatch, rows: np.ndarray
    ) -> str:
        n_texts, n_tokens = inputs.tensors["input_ids"].shape
        return (
            f"{type(module.model).__name__} failed on a batch of {n_texts} texts of up "
            f"to {n_tokens} tokens"
        )

    def pool(self, tensor: torch.Tensor, inputs: TokenBatch) -> torch.Tensor:
        return inputs.pool(tensor, self.pooling)

    def pool_layer(self, tensor: torch.Tensor, inputs: TokenBatch) -> torch.Tensor:
        return self.pool(tensor, inputs)

    # Loading.

    def make_module(self) -> torch.nn.Module:
        source = Source.find(os.fspath(self.network), self.revision)
        config = source.load(transformers.AutoConfig)
        with_head = has_classifier(config.architectures or ())
        model = source.load(
            transformers.AutoModelForSequenceClassification
            if with_head
            else transformers.AutoModel
        )
        if with_head and model.config.pad_token_id is None:
            # Decoders need it to find the end of a text.
            model.config.pad_token_id = self._padding(model)
        return model

    def load_tokenizer(self) -> Any:
        """Return the tokenizer, `tokenizer` or that of `network`, loaded once."""
        given = self.tokenizer
        if given is None and isinstance(self.network, torch.nn.Module):
            raise ValueError(
                f"The 'tokenizer' parameter of {type(self).__name__} must be set where "
                "'network' is a model rather than a name. Got None."
            )
        if callable(given):
            return given
        name = os.fspath(self.network if given is None else given)
        with exclusive([self]):
            cache, source = self._cache(), (name, self.revision)
            if cache.get("tokenizer", (None,))[0] != source:
                cache["tokenizer"] = source, Source.find(*source).load_tokenizer()
            return cache["tokenizer"][1]

    def _padding(self, model: torch.nn.Module) -> int:
        """The token to pad with, which the attention mask hides."""
        tokenizer = self.load_tokenizer()
        ids = (
            model.config.pad_token_id,
            tokenizer.pad_token_id,
            tokenizer.eos_token_id,
            tokenizer.bos_token_id,
        )
        return next((i for i in ids if i is not None), 0)

    def _limit(self, model: torch.nn.Module) -> int | None:
        """The longest text in tokens; None if there is no limit."""
        if self.max_length is not None:
            return self.max_length
        limits = [self.load_tokenizer().model_max_length, n_positions(stack_of(model))]
        # A tokenizer without a limit has the limit 1e30.
        return min((n for n in limits if n is not None and n < 1e9), default=None)

    def check_source_proba(self) -> None:
        if self.gives_tokens:
            raise ValueError(
                "Source probabilities are of texts, but with pooling='tokens' the "
                "features are of words."
            )
        if isinstance(self.network, torch.nn.Module):
            config, names = self.network.config, [type(self.network).__name__]
        else:
            source = Source.find(os.fspath(self.network), self.revision)
            config = source.load(transformers.AutoConfig)
            names = config.architectures or ["a model of unknown class"]
        if not has_classifier(names):
            raise ValueError(
                "Source probabilities need a model with a head for sequence "
                "classification (...ForSequenceClassification). Got "
                f"{', '.join(names)}."
            )
        if config.num_labels < 2 or config.problem_type not in _SINGLE_LABEL:
            raise ValueError(
                "Source probabilities need a head whose classes exclude each other. "
                f"Got one with num_labels={config.num_labels} and problem_type="
                f"{config.problem_type!r}."
            )

    def _fingerprint_params(self) -> dict[str, Any]:
        params = super()._fingerprint_params()
        for name in ("network", "tokenizer"):
            if isinstance(path := getattr(self, name), (str, os.PathLike)):
                is_folder = Path(path).is_dir()
                params[name] = digest_files(path) if is_folder else os.fspath(path)
        if callable(self.tokenizer):
            params["tokenizer"] = describe_tokenizer(self.tokenizer)
        return params


def _take_rows(batch: Extraction, rows: list[int]) -> Extraction:
    """Rows of a batch, some of them several times."""

    def take(arrays: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: tensor[rows] for name, tensor in arrays.items()}

    features, proba = batch
    proba = None if proba is None else proba[rows]
    layers = None if batch.layers is None else take(batch.layers)
    return Extraction(take(features), proba, layers)


def _by_length(lengths: list[int], size: int) -> Iterator[np.ndarray]:
    """Places in batches, the longest first: if memory is short, it shows at once."""
    order = np.argsort(np.negative(lengths), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
