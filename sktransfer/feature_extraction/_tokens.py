"""Features and labels word by word: sentences to windows, ragged to flat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from sktransfer.utils._exclusive import exclusive


def flatten_tokens(features: Any, labels: Sequence | None = None) -> Any:
    """Stack the features of the words of all sentences, and their labels.

    Parameters
    ----------
    features : sequence of arrays of shape (n_words, n_features)
        One array a sentence, as an extractor with ``pooling="tokens"`` gives them.
    labels : sequence of sequences, default=None
        The labels of each sentence, one a word.

    Returns
    -------
    features : ndarray of shape (n_tokens, n_features)
        Those of all words, in order. Alone if no labels are given, which makes the
        function a step of a pipeline, in a
        :class:`~sklearn.preprocessing.FunctionTransformer`.
    labels : ndarray of shape (n_tokens,)
        Their labels.

    Raises
    ------
    ValueError
        If a sentence, which is named, has not one label a word, or sentences differ in
        their number of features.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.feature_extraction import flatten_tokens
    >>> features = [np.ones((2, 3)), np.zeros((0, 3)), np.ones((1, 3))]
    >>> X, y = flatten_tokens(features, [["O", "B-person"], [], ["O"]])
    >>> X.shape, y.tolist()
    ((3, 3), ['O', 'B-person', 'O'])
    """
    if labels is not None:
        return flatten_tokens(features), flatten_labels(features, labels)
    if getattr(features, "ndim", 1) == 2:
        return features  # flat already, in the middle of a pipeline
    shapes = {np.shape(array)[1:] for array in features}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(
            "features must hold an array of shape (n_words, n_features) for each "
            "sentence, with the same n_features. Got arrays of shape (n_words, *s), "
            f"s being one of {sorted(shapes)}."
        )
    return np.concatenate(list(features))


def flatten_labels(sentences: Sequence, labels: Sequence) -> np.ndarray:
    """Concatenate the labels of all sentences; each word needs one."""
    if len(sentences) != len(labels):
        raise ValueError(
            f"There must be labels for each of the {len(sentences)} sentences. Got "
            f"{len(labels)} sequences of labels."
        )
    for i, (words, own) in enumerate(zip(sentences, labels, strict=True)):
        if isinstance(words, str):
            raise ValueError(
                "With one label per word, a sentence must be a sequence of words "
                f"(str), such as ['good', 'film']. Got the text {words!r} for sentence "
                f"{i}: split it into the words that are labelled."
            )
        if isinstance(own, str) or not hasattr(own, "__len__"):
            raise ValueError(
                "The labels of a sentence must be a sequence with one label per word. "
                f"Got {own!r} for sentence {i}."
            )
        if len(words) != len(own):
            raise ValueError(
                f"Sentence {i} has {len(words)} words, but {len(own)} labels."
            )
    return np.array(list(chain.from_iterable(labels)))


def group_words(sentences: Sequence, groups: np.ndarray | None = None) -> np.ndarray:
    """The group of each word: its sentence, or the group of that."""
    groups = np.arange(len(sentences)) if groups is None else groups
    return np.repeat(groups, [len(words) for words in sentences])


def split_tokens(flat: Any, sentences: Sequence) -> np.ndarray:
    """Cut an array with one row per word into an array of objects, one per sentence."""
    parts = np.empty(len(sentences), dtype=object)
    start = 0
    for i, words in enumerate(sentences):
        parts[i] = flat[start : start + len(words)]
        start += len(words)
    return parts


def check_texts(samples: Sequence, *, as_words: bool) -> list:
    """Check that samples are texts or pairs of texts, or sentences of words.

    A TypeError names a sample that is something else, or of another kind than the
    first.
    """
    texts: list = []
    for i, sample in enumerate(samples):
        text: Any = None
        if isinstance(sample, str):
            text = None if as_words else str(sample)
        elif hasattr(sample, "__len__"):
            parts = list(sample)
            if all(isinstance(part, str) for part in parts):
                pair = tuple(parts) if len(parts) == 2 else None
                text = parts if as_words else pair
        if text is None or type(text) is not type(texts[0] if texts else text):
            wanted = (
                "sentences, each a sequence of words (str)"
                if as_words
                else "texts (str), or pairs of them; words need pooling='tokens'"
            )
            raise TypeError(f"X must hold {wanted}. Got {sample!r} for sample {i}.")
        texts.append(text)
    return texts


@contextmanager
def as_found(tokenizer: Any) -> Iterator[None]:
    """Reserve a tokenizer for this thread, then restore its truncation and padding."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield
        return
    with exclusive([backend]):
        truncation, padding = backend.truncation, backend.padding
        try:
            yield
        finally:
            if truncation is None:
                backend.no_truncation()
            else:
                backend.enable_truncation(**truncation)
            if padding is None:
                backend.no_padding()
            else:
                backend.enable_padding(**padding)


class Windows(NamedTuple):
    """Sentences as a model reads them; a long one takes several windows.

    `encodings` has what the tokenizer made of each window; `words`, for each window,
    the sentence, the word and the column of its first sub-word, for the words that
    are taken from it; `n_split` sentences took several windows, and the tokenizer has
    nothing for `n_unknown` words.
    """

    encodings: dict[str, list[list[int]]]
    words: list[list[tuple[int, int, int]]]
    n_split: int
    n_unknown: int


def make_windows(
    tokenizer: Any, sentences: Sequence[Sequence[str]], limit: int | None
) -> Windows:
    """Cut sentences into windows that a model can read, and find their words in them.

    Windows overlap by half. A word that is in two of them is taken from the one where
    it is further from the edges. A ValueError says if `limit`, the longest window in
    tokens, leaves no room for words, or there is no token for one.
    """
    sentences = [list(map(str, words)) for words in sentences]
    windows = _encode(tokenizer, sentences, limit)
    unknown = _without_token(sentences, windows)
    if unknown:
        # What the tokenizer drops, such as a lone joiner, is read as an unknown word.
        stand_in = tokenizer.unk_token or tokenizer.eos_token or tokenizer.pad_token
        for i, j in unknown:
            dropped, sentences[i][j] = sentences[i][j], stand_in or ""
        windows = _encode(tokenizer, sentences, limit)
        if _without_token(sentences, windows):
            raise ValueError(
                f"The tokenizer makes no token of the word {dropped!r}, and has none "
                "for unknown words."
            )
    return windows._replace(n_unknown=len(unknown))


def check_room(
    tokenizer: Any, limit: int | None, at_least: int, pair: bool = False
) -> int | None:
    """Tokens of the text that a limit leaves room for; an error if they are too few."""
    if limit is None:
        return None
    n_special = tokenizer.num_special_tokens_to_add(pair=pair)
    if limit - n_special < at_least:
        raise ValueError(
            f"The 'max_length' parameter must be at least {n_special + at_least}, as "
            f"{n_special} of the tokens are special ones. Got {limit}."
        )
    return limit - n_special


def _without_token(
    sentences: list[list[str]], windows: Windows
) -> list[tuple[int, int]]:
    found = {(i, j) for words in windows.words for i, j, _ in words}
    return [
        (i, j)
        for i, words in enumerate(sentences)
        for j in range(len(words))
        if (i, j) not in found
    ]


def _encode(tokenizer: Any, sentences: list[list[str]], limit: int | None) -> Windows:
    options = {}
    if limit is not None:
        stride = check_room(tokenizer, limit, 2) // 2
        options = {"truncation": True, "max_length": limit, "stride": stride}
    if _minds_spaces(tokenizer):
        sentences = [[f" {word}" for word in words] for words in sentences]
    with as_found(tokenizer):
        encodings = tokenizer(
            sentences,
            is_split_into_words=True,
            return_overflowing_tokens=limit is not None,
            return_attention_mask=False,
            verbose=False,
            **options,
        )
    n_windows = len(encodings["input_ids"])
    sentence_of = encodings.pop("overflow_to_sample_mapping", range(n_windows))
    # A tokenizer that truncates on the left yields the last window first.
    before = 1 if tokenizer.truncation_side == "left" else -1
    best: dict[tuple[int, int], tuple[int, int, int]] = {}
    for window, i in enumerate(sentence_of):
        earlier = window + before
        continues = 0 <= earlier < n_windows and sentence_of[earlier] == i
        word_ids = encodings.word_ids(window)
        columns = [c for c, j in enumerate(word_ids) if j is not None]
        # A window that continues a sentence may begin inside a word, which the
        # previous window contains whole.
        last = word_ids[columns[0]] if continues else None
        for column in columns:
            if (j := word_ids[column]) != last:
                margin = min(column - columns[0], columns[-1] - column)
                best[i, j] = max(best.get((i, j), (-1, 0, 0)), (margin, window, column))
            last = j
    words: list[list[tuple[int, int, int]]] = [[] for _ in range(n_windows)]
    for (i, j), (_, window, column) in best.items():
        words[window].append((i, j, column))
    n_split = sum(n > 1 for n in Counter(sentence_of).values())
    return Windows(dict(encodings), words, n_split, 0)


def _minds_spaces(tokenizer: Any) -> bool:
    """Whether a word reads differently after a space, as with byte-level BPE."""
    pre = tokenizer.backend_tokenizer.pre_tokenizer
    if pre is None:
        return False
    (alone, _), *_ = pre.pre_tokenize_str("a")
    (spaced, _), *_ = pre.pre_tokenize_str(" a")
    return alone != spaced
