"""Words to features: alignment, windows of long sentences, ragged to flat."""

from __future__ import annotations

import pickle
from itertools import chain

import numpy as np
import pytest
from sklearn.preprocessing import FunctionTransformer

from sktransfer.feature_extraction import flatten_tokens
from sktransfer.feature_extraction._tokens import flatten_labels, split_tokens

SENTENCES = [
    ["the", "film", "is", "unbelievably", "bad"],
    [],
    ["good"],
    ["a", "film", "a", "film", "a", "badly"],
]


class TestFlatten:
    features = [np.full((len(words), 2), i) for i, words in enumerate(SENTENCES)]

    def test_rows_and_labels_in_order(self):
        labels = [[f"{word}-label" for word in words] for words in SENTENCES]
        X, y = flatten_tokens(self.features, labels)
        np.testing.assert_array_equal(X[:, 1], np.repeat([0, 2, 3], [5, 1, 6]))
        assert y.tolist() == [f"{word}-label" for words in SENTENCES for word in words]

    def test_labels_keep_their_type(self):
        lengths = [len(words) for words in SENTENCES]
        labels = [np.arange(n) for n in lengths]
        _, y = flatten_tokens(self.features, labels)
        assert y.dtype.kind == "i"
        np.testing.assert_array_equal(y, np.concatenate(labels))

    def test_is_undone_by_split(self):
        parts = split_tokens(flatten_tokens(self.features), SENTENCES)
        for part, array in zip(parts, self.features, strict=True):
            np.testing.assert_array_equal(part, array)

    def test_sentences_of_one_length(self):
        X = np.arange(12.0).reshape(2, 3, 2)
        assert split_tokens(flatten_tokens(X), X).shape == (2,)
        np.testing.assert_array_equal(flatten_tokens(X), X.reshape(6, 2))

    def test_as_a_step(self):
        step = FunctionTransformer(flatten_tokens)
        flat = step.fit_transform(self.features)
        assert flat.shape == (12, 2)
        assert step.transform(flat) is flat

    @pytest.mark.parametrize(
        ("labels", "match"),
        [
            ([["O"] * 5, [], ["O", "O"], ["O"] * 6], "Sentence 2 has 1 words, but 2 l"),
            ([["O"] * 5, [], ["O"]], "each of the 4 sentences. Got 3 sequences"),
            ([["O"] * 5, [], "O", ["O"] * 6], "Got 'O' for sentence 2"),
            ([0, 1, 2, 3], "Got 0 for sentence 0"),
        ],
    )
    def test_labels_that_do_not_fit(self, labels, match):
        with pytest.raises(ValueError, match=match):
            flatten_tokens(self.features, labels)

    def test_sentences_that_are_texts_are_not_counted_by_letters(self):
        with pytest.raises(ValueError, match="Got the text 'good film' for sentence 1"):
            flatten_labels([["bad"], "good film"], [["O"], ["O", "O"]])

    @pytest.mark.parametrize("features", [[np.ones((2, 3)), np.ones((2, 4))], [[1.0]]])
    def test_features_that_do_not_fit(self, features):
        with pytest.raises(ValueError, match="with the same n_features"):
            flatten_tokens(features)


@pytest.fixture(params=["encoder", "decoder", "encoder-decoder"])
def language(request, make_model, tokenizers):
    models = {"encoder": "BertModel", "decoder": "GPT2Model"}
    model = make_model(request.param, models.get(request.param, "T5Model"))
    return model, tokenizers[request.param]


@pytest.fixture
def bert(make_model, tokenizers):
    return make_model("encoder", "BertModel"), tokenizers["encoder"]


def make(language, **params):
    from sktransfer.feature_extraction import TransformersFeatureExtractor

    model, tokenizer = language
    return TransformersFeatureExtractor(
        model, tokenizer=tokenizer, pooling="tokens", **params
    )


def pieces(tokenizer, word):
    """Tokens of one word that is not the first, which bytes mark by a space."""
    if tokenizer.pad_token is None:
        word = f" {word}"
    options = {"add_special_tokens": False, "return_attention_mask": False}
    return tokenizer(word, padding=False, truncation=False, **options)["input_ids"]


def states(language, ids, layer=-1):
    """Hidden states of one text with the special tokens of the model's kind."""
    import torch

    model, tokenizer = language
    before = [tokenizer.cls_token_id] if tokenizer.cls_token else []
    after = {"[SEP]": [3], "</s>": [1]}.get(tokenizer.sep_token or tokenizer.eos_token)
    ids = torch.tensor([[*before, *ids, *(after or [])]])
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    with torch.no_grad():
        hidden = encoder(ids, output_hidden_states=True).hidden_states[layer]
    return hidden[0, len(before) :].numpy()


def by_hand(language, words, layer=-1):
    """Of each word the state of its first sub-word, sub-words counted one by one."""
    split = [pieces(language[1], word) for word in words]
    hidden = states(language, list(chain(*split)), layer)
    starts = np.cumsum([0, *map(len, split)])[:-1]
    return hidden[starts]


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [-1, 1])
def test_first_sub_words(language, layer):
    n_pieces = len(pieces(language[1], "badly"))
    assert n_pieces > 1 or language[1].eos_token == "</s>"  # which has whole words
    features = make(language, layer=layer).transform(SENTENCES)
    assert features.dtype == object
    for words, own in zip(SENTENCES, features, strict=True):
        assert own.dtype == np.float32
        assert own.shape == (len(words), 16)
        if words:
            close(own, by_hand(language, words, layer))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_order_do_not_matter(language, batch_size):
    rng = np.random.default_rng(0)
    sentences = [SENTENCES[i] * rng.integers(1, 4) for i in rng.integers(0, 4, 20)]
    sentences[3] = ["film", "bad"] * 12
    params = {"max_length": 20, "layer": [0, -1]}
    order = rng.permutation(20)
    with pytest.warns(UserWarning, match="read in overlapping windows"):
        expected = make(language, **params).transform(sentences)
        features = make(language, batch_size=batch_size, **params).transform(
            [sentences[i] for i in order]
        )
    for i, own in zip(order, features, strict=True):
        close(own, expected[i])


def test_long_sentences_in_windows(bert):
    """All windows by hand; each word from the one where it is furthest from an edge."""
    words = ["the", "film", "is", "unbelievably", "bad", "and", "badly"] * 4
    split = [pieces(bert[1], word) for word in words]
    ids, room = list(chain(*split)), 8
    first = np.cumsum([0, *map(len, split)])[:-1]
    expected = np.zeros((len(words), 16))
    margins = np.full(len(words), -1)
    start = 0
    while True:
        stop = min(start + room, len(ids))
        hidden = states(bert, ids[start:stop])
        for j, place in enumerate(first):
            margin = min(place - start, stop - 1 - place)
            if margin >= max(margins[j], 0):
                margins[j], expected[j] = margin, hidden[place - start]
        if stop == len(ids):
            break
        start += room - room // 2
    match = "1 of 2 sentences have more than 10 tokens and were read in overlapping"
    with pytest.warns(UserWarning, match=match) as caught:
        features = make(bert, max_length=room + 2).transform([["good"], words])
    assert len(caught) == 1
    close(features[1], expected)
    close(features[0], by_hand(bert, ["good"]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_windows_from_either_end(make_model, tokenizers, side):
    """Embeddings without positions tell which token a word's features are from."""
    model = make_model("encoder", "T5Model", vocab_size=len(tokenizers["encoder"]))
    tokenizer = pickle.loads(pickle.dumps(tokenizers["encoder"]))
    tokenizer.truncation_side = side
    words = ["bad" * 3, "film", "badly", "the", "good", "unbelievably", "bad" * 5] * 3
    with pytest.warns(UserWarning, match="overlapping"):
        extractor = make((model, tokenizer), layer=0, max_length=9)
        (features,) = extractor.transform([words])
    first = [pieces(tokenizer, word)[0] for word in words]
    close(features, model.shared.weight.detach().numpy()[first])


def test_word_longer_than_a_window(bert):
    word = "bad" * 4
    assert len(pieces(bert[1], word)) > 4
    with pytest.warns(UserWarning, match="overlapping"):
        (features,) = make(bert, max_length=6).transform([[word, "good", "film"]])
    assert np.isfinite(features).all()
    # It is read from its beginning, not from the middle of another window.
    start = states(bert, pieces(bert[1], word)[:4])
    close(features[0], start[0])
    with pytest.raises(ValueError, match="'max_length' parameter must be at least 4"):
        make(bert, max_length=3).transform([["good"]])


def test_words_without_a_token(bert):
    sentences = [["film", " ", "bad"], ["good", "", ""]]
    with pytest.warns(UserWarning, match="3 of 6 words have no token") as caught:
        features = make(bert).transform(sentences)
    assert len(caught) == 1
    known = make(bert).transform([["film", "[UNK]", "bad"], ["good", "[UNK]", "[UNK]"]])
    for own, expected in zip(features, known, strict=True):
        close(own, expected)


def test_word_that_nothing_stands_for(make_model, tokenizers):
    """Empty, and the tokenizer has no special token to read instead."""
    tokenizer = pickle.loads(pickle.dumps(tokenizers["decoder"]))
    tokenizer.eos_token = None
    tokenizer.backend_tokenizer.pre_tokenizer = None
    model = make_model("decoder", "GPT2Model")
    with pytest.raises(ValueError, match="no token of the word ''"):
        make((model, tokenizer)).transform([["good", ""]])


def test_layers(bert):
    extractor = make(bert, layer=["*", "mean"])
    layers = extractor.transform_layers(SENTENCES)
    flat = extractor.extract(SENTENCES).features
    for name, features in layers.items():
        np.testing.assert_array_equal(flatten_tokens(features), flat[name])
    together = extractor.transform(SENTENCES)
    np.testing.assert_array_equal(
        together[0], np.hstack([features[0] for features in layers.values()])
    )


@pytest.mark.parametrize("X", [["the film"], [["the"], "film"], [["the", 1]]])
def test_what_is_no_sentence(bert, X):
    with pytest.raises(TypeError, match="X must hold sentences, each a sequence of wo"):
        make(bert).transform(X)


def test_no_words_at_all(bert):
    with pytest.raises(ValueError, match="Found no words in 2 sentences"):
        make(bert).transform([[], []])


def test_slow_tokenizers_are_refused(bert):
    class Letters:
        is_fast = False
        model_max_length = 8

        def __call__(self, texts):
            raise AssertionError("not to be called")

    with pytest.raises(ValueError, match="needs a fast tokenizer.* Got Letters"):
        make((bert[0], Letters())).transform([["film"]])
